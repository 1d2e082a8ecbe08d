"""Classification from Python and its files."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from detect import Classifier, Detector
from detect.data.images import ImageError, write_image
from detect.errors import InputError
from detect.inference.class_outputs import ClassWriter, draw_classification
from detect.inference.run import classify_files, open_predictor
from detect.models.build import build_classifier, build_model
from detect.models.checkpoint import load_checkpoint, save_checkpoint
from detect.structures import Classification

NAMES = ("red", "green", "7", "猫", "x" * 200, "six")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained classifier and an untrained detector."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    classifier = build_classifier("resnet18+width=0.1", len(NAMES))
    facts = {"category_ids": tuple(range(6)), "metrics": {}, "provenance": {}}
    save_checkpoint(folder / "classifier.pt", classifier, names=NAMES, image_size=64, center_crop=0.5, **facts)
    detector = build_model("yolov5n+width=0.1", len(NAMES))
    save_checkpoint(folder / "detector.pt", detector, names=NAMES, image_size=64, **facts)
    return folder


@pytest.fixture(scope="module")
def classifier(folder: Path) -> Classifier:
    return Classifier(folder / "classifier.pt", device="cpu")


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)


def made(shares: list[float]) -> Classification:
    return Classification(np.array(shares, np.float32), NAMES[: len(shares)])


# ------------------------------------------------------------------------------------------- prediction


def test_what_a_classifier_knows(classifier: Classifier) -> None:
    assert classifier.names == NAMES
    assert classifier.image_size == 64
    assert classifier.center_crop == 0.5


def test_sources_of_all_kinds_are_the_same(classifier: Classifier, image: np.ndarray, tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", image)
    found = classifier.predict(image)
    assert found.probabilities.shape == (6,)
    assert found.probabilities.sum() == pytest.approx(1)
    for source in (tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(image), image[::-1][::-1]):
        np.testing.assert_array_equal(classifier.predict(source).probabilities, found.probabilities)


def test_a_list_gives_a_list_and_batches_change_nothing(classifier: Classifier, image: np.ndarray) -> None:
    images = [image, image[:20, :7], np.zeros((1, 1, 3), np.uint8), image[:, ::-1], image[::2]]
    assert classifier.predict([]) == []
    alone = [classifier.predict(one) for one in images]
    together = classifier.predict(images, batch_size=3)
    assert len(together) == 5
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)


def test_only_the_middle_is_seen(classifier: Classifier, image: np.ndarray) -> None:
    """Half of the short side of 60 px: the middle 30 x 30. 12 px of margin are as good as none."""
    other = image.copy()
    other[:12], other[-12:], other[:, :27], other[:, -27:] = 0, 0, 0, 0
    np.testing.assert_array_equal(classifier.predict(image).probabilities, classifier.predict(other).probabilities)
    other[30, 45] ^= 255
    assert (classifier.predict(image).probabilities != classifier.predict(other).probabilities).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 50}, r"image size: must be a multiple of 32 up to 16384, found 50"),
        ({"image_size": 0}, r"image size: must be a multiple of 32 up to 16384, found 0"),
        ({"batch_size": 0}, "batch size: must be at least 1, found 0"),
    ],
)
def test_options_out_of_range(classifier: Classifier, image: np.ndarray, options: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        classifier.predict(image, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("source", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), None])
def test_what_is_no_image(classifier: Classifier, source: object) -> None:
    with pytest.raises(InputError, match="source: "):
        classifier.predict(source)  # type: ignore[call-overload]


def test_numbers_that_are_not_finite(folder: Path, image: np.ndarray) -> None:
    checkpoint = load_checkpoint(folder / "classifier.pt")
    with torch.no_grad():
        checkpoint.classifier.head.linear.bias[0] = torch.nan
    with pytest.raises(InputError, match="the network's output is not finite with this precision; try another"):
        Classifier(checkpoint, device="cpu").predict(image)


def test_a_checkpoint_of_the_other_kind(folder: Path) -> None:
    with pytest.raises(InputError, match=r"^yolov5n\+width=0\.1 is a detector; use detect\.Detector$"):
        Classifier(folder / "detector.pt", device="cpu")
    with pytest.raises(InputError, match=r"^resnet18\+width=0\.1 is a classifier; use detect\.Classifier$"):
        Detector(folder / "classifier.pt", device="cpu")
    assert isinstance(open_predictor(folder / "detector.pt", "cpu", "fp32"), Detector)
    assert isinstance(open_predictor(folder / "classifier.pt", "cpu", "fp32"), Classifier)


# ------------------------------------------------------------------------------------------------ files


def test_files_are_told_in_one_line(
    classifier: Classifier, image: np.ndarray, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = [tmp_path / name for name in ("a.png", "bad.png", "c.png")]
    write_image(paths[0], image)
    write_image(paths[2], image)
    paths[1].write_bytes(b"no image")
    found = list(classify_files(classifier, paths, batch_size=2))
    assert [one.path for one in found] == [paths[0], paths[2]]
    name, score = found[0].classification.top(1)[0]
    assert found[0].line().startswith(f"{paths[0]}: {name} {score:.2f}, ")
    assert found[0].line().count(", ") == 4
    assert "1 of 3 images could not be read and were skipped" in caplog.text
    with pytest.raises(ImageError, match=r"bad\.png: is not an image"):
        list(classify_files(classifier, paths[1:2]))
    with pytest.raises(InputError, match="batch size: must be at least 1, found 0"):
        list(classify_files(classifier, paths, batch_size=0))


def test_the_writer_leaves_pictures_and_json(tmp_path: Path, image: np.ndarray) -> None:
    paths = [tmp_path / "a/x.png", tmp_path / "b/x.png"]
    writer = ClassWriter(tmp_path / "out", paths, json=True)
    for path in paths:
        writer.add(path, image, made([0.1, 0.6, 0.3]))
    assert writer.finish() == [
        f"drawn images: {tmp_path / 'out'}",
        f"classes of all images: {tmp_path / 'out/predictions.json'}",
    ]
    entries = json.loads((tmp_path / "out/predictions.json").read_text())
    assert entries[1] == {
        "file_name": str(paths[1]),
        "top5": [
            {"category": "green", "score": 0.6},
            {"category": "7", "score": 0.3},
            {"category": "red", "score": 0.1},
        ],
    }
    assert cv2.imread(str(tmp_path / "out/b/x.jpg")) is not None


def test_the_writer_does_not_replace_what_is_not_its_own(tmp_path: Path, image: np.ndarray) -> None:
    write_image(tmp_path / "x.jpg", image)
    with pytest.raises(InputError, match=r"x\.jpg would replace an image of --source"):
        ClassWriter(tmp_path, [tmp_path / "x.jpg"])
    (tmp_path / "out").mkdir()
    (tmp_path / "out/predictions.json").write_text("mine")
    ClassWriter(tmp_path / "out", [tmp_path / "x.jpg"])
    with pytest.raises(InputError, match=r"predictions\.json is there and not from an earlier prediction"):
        ClassWriter(tmp_path / "out", [tmp_path / "x.jpg"], json=True)


# -------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize(
    ("image_hw", "shown_hw"),
    [
        ((32, 32), (320, 320)),  # enlarged ten times
        ((1, 1), (320, 320)),
        ((16, 32), (160, 320)),
        ((600, 800), (600, 800)),
        ((400, 50), (400, 320)),  # too narrow for words: white at its sides
    ],
)
def test_classes_stand_below_the_image(image_hw: tuple[int, int], shown_hw: tuple[int, int]) -> None:
    """Letters have 14 px at a width of 320 px and 27 px at 800 px; lines take 1.5 of it, the two margins 0.5 each."""
    black = np.zeros((*image_hw, 3), np.uint8)
    shown = draw_classification(black, made([0.75, 0.25]))
    font = {320: 14, 800: 27}[shown_hw[1]]
    assert shown.shape == (shown_hw[0] + 2 * round(1.5 * font) + 2 * (font // 2), shown_hw[1], 3)
    middle = shown_hw[1] // 2
    assert (shown[: shown_hw[0], middle] == 0).all()
    assert (shown[shown_hw[0] + 1] == 255).all()
    assert not black.any()


def test_bars_are_as_long_as_classes_are_probable() -> None:
    shown = draw_classification(np.zeros((320, 320, 3), np.uint8), made([0.25, 0.75]))
    first, second = 320 + 7 + 10, 320 + 7 + 21 + 10  # the middles of the two lines
    colored = np.ptp(shown.astype(int), axis=2) > 60
    lengths = colored[first].sum() - 1, colored[second].sum() - 1
    full = 320 - 7 - 3 * 14 - (7 + 144)  # from 45 % of the width to three letters before the end
    assert lengths == (pytest.approx(0.75 * full, abs=1), pytest.approx(0.25 * full, abs=1))


def test_names_of_all_kinds_are_drawn() -> None:
    shown = draw_classification(np.zeros((320, 320, 3), np.uint8), made([0.1, 0.1, 0.2, 0.2, 0.3, 0.1]))
    assert len(shown) == 320 + 5 * 21 + 14  # five lines of six classes
