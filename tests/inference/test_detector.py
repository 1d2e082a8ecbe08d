from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import detect
from detect import Detector
from detect.data.images import write_image
from detect.errors import InputError
from detect.models.build import build_model
from detect.models.checkpoint import save_checkpoint


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """An untrained model: what it finds means nothing, but it finds something at a low score."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    model = build_model("yolov5n+width=0.1", num_classes=3)
    names = ("red", "green", "7")
    save_checkpoint(path, model, names=names, category_ids=(1, 2, 3), image_size=96, metrics={}, provenance={})
    return path


@pytest.fixture(scope="module")
def detector(weights):
    return Detector(weights, device="cpu")


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)


LOW = {"conf": 0.0, "max_det": 5}


def assert_same(first, second, atol=0.0):
    assert len(first) == len(second) > 0
    np.testing.assert_allclose(first.boxes_xyxy_px, second.boxes_xyxy_px, atol=atol)
    np.testing.assert_allclose(first.scores, second.scores, atol=atol)
    assert first.labels.tolist() == second.labels.tolist()


def test_names_of_the_package():
    assert detect.__version__ == "0.2.0"
    with pytest.raises(AttributeError, match="no attribute 'Detectr'"):
        detect.Detectr  # noqa: B018


def test_what_a_detector_knows(detector):
    assert detector.names == ("red", "green", "7")
    assert detector.image_size == 96


def test_an_empty_list_gives_an_empty_list(detector):
    assert detector.predict([]) == []


def test_detections_are_inside_the_original_image(detector, image):
    found = detector.predict(image, **LOW)
    assert 0 < len(found) <= 5
    assert found.image_hw == (60, 90)
    assert found.boxes_xyxy_px.min() >= 0
    assert (found.boxes_xyxy_px[:, 2:] <= [90, 60]).all()
    assert (np.diff(found.scores) <= 0).all()
    assert found.names == detector.names


def test_path_array_and_pil_image_are_the_same(detector, image, tmp_path):
    path = tmp_path / "a.png"
    write_image(path, image)
    expected = detector.predict(image, **LOW)
    assert_same(detector.predict(path, **LOW), expected)
    assert_same(detector.predict(str(path), **LOW), expected)
    assert_same(detector.predict(Image.fromarray(image), **LOW), expected)
    assert_same(detector.predict(image[::-1, ::-1].copy()[::-1, ::-1], **LOW), expected)  # not contiguous


def test_exif_orientation_of_files_and_pil_images(detector, image, tmp_path):
    turned = Image.fromarray(image)
    exif = turned.getexif()
    exif[0x0112] = 6  # shown turned by 90 degrees
    turned.save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as opened:
        from_pil = detector.predict(opened, **LOW)
    from_path = detector.predict(tmp_path / "a.png", **LOW)
    assert from_path.image_hw == (90, 60)
    assert_same(from_path, from_pil)
    assert_same(from_path, detector.predict(np.rot90(image, -1), **LOW))


def test_what_is_found_does_not_depend_on_the_other_images(detector):
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in ((60, 90), (90, 60), (120, 180), (96, 96))]
    together = detector.predict(images, batch_size=3, **LOW)
    assert [found.image_hw for found in together] == [(60, 90), (90, 60), (120, 180), (96, 96)]
    for one, found in zip(images, together, strict=True):
        assert_same(found, detector.predict(one, **LOW), atol=1e-3)


def test_classes_are_chosen_by_name_or_index(detector, image):
    for classes, expected in ((["green"], {1}), ([2], {2}), (["7"], {2}), (["0", "green"], {0, 1})):
        found = detector.predict(image, conf=0.0, classes=classes)
        assert set(found.labels.tolist()) <= expected
        assert len(found) > 0


def test_sixteen_bits_as_pil_image_and_as_file(detector, tmp_path):
    grey = np.random.default_rng(2).integers(0, 65536, (60, 90)).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    expected = detector.predict(np.repeat((grey // 256).astype(np.uint8)[..., None], 3, axis=2), **LOW)
    assert_same(detector.predict(tmp_path / "grey.png", **LOW), expected)
    with Image.open(tmp_path / "grey.png") as opened:
        assert_same(detector.predict(opened, **LOW), expected)


def test_classes_may_suppress_one_another(detector, image):
    options = {"conf": 0.0, "iou": 0.3, "max_det": 3000}
    apart = detector.predict(image, **options)
    together = detector.predict(image, **options, class_agnostic=True)
    assert len(together) < len(apart)
    assert len(set(apart.labels.tolist())) > 1
    assert together.scores[0] == apart.scores[0]


def test_image_size_and_score(detector, image):
    assert len(detector.predict(image, conf=1.0)) == 0
    larger = detector.predict(image, image_size=160, **LOW)
    assert larger.image_hw == (60, 90)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"conf": 2}, "score threshold: must be from 0 to 1, found 2"),
        ({"iou": -1}, "IoU threshold: must be from 0 to 1, found -1"),
        ({"max_det": 0}, "must be at least 1, found 0"),
        ({"image_size": 100}, "image size: must be a multiple of 32 up to 16384, found 100"),
        ({"image_size": 0}, "image size: must be a multiple of 32"),
        ({"image_size": 10**6 * 32}, "image size: must be a multiple of 32 up to 16384"),
        ({"batch_size": 0}, "batch size: must be at least 1"),
        ({"classes": ["gren"]}, "unknown class 'gren'; did you mean 'green'"),
        ({"classes": [3]}, "there is no class 3; allowed: 0 to 2"),
        ({"classes": "red"}, r"must be a list, such as \['red'\]"),
        ({"conf": "0.5"}, "^conf: must be a number, found '0.5'$"),
        ({"overlap": None}, "^overlap: must be a number, found None$"),
        ({"max_det": None}, "^max_det: must be a whole number, found None$"),
        ({"image_size": 96.0}, "^image_size: must be a whole number, found 96.0$"),
    ],
)
def test_options_out_of_range(detector, image, options, message):
    with pytest.raises(InputError, match=message):
        detector.predict(image, **options)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("missing.jpg", "missing.jpg: no such file"),
        (np.zeros((4, 4), np.uint8), r"must be \(H, W, 3\) uint8 in RGB order, found \(4, 4\) uint8"),
        (np.zeros((4, 4, 3), np.float32), "found .* float32"),
        (np.zeros((0, 4, 3), np.uint8), "found .*0, 4, 3"),
        (7, "must be a path, an array or a PIL image, found int"),
    ],
)
def test_unusable_sources(detector, source, message):
    with pytest.raises(InputError, match=message):
        detector.predict(source)


def test_a_device_may_be_the_number_of_a_gpu(weights):
    with pytest.raises(InputError, match="--device cuda:99: PyTorch sees"):
        Detector(weights, device=99)


def test_options_that_there_are_not(detector, image):
    with pytest.raises(TypeError, match="unexpected keyword argument 'confidence'"):
        detector.predict(image, confidence=0.5)
    with pytest.raises(TypeError, match="unexpected keyword argument 'confidence'"):
        detector.stream(image, confidence=0.5)


def test_unusable_weights(tmp_path):
    with pytest.raises(InputError, match=r"none.pt"):
        Detector(tmp_path / "none.pt")
    with pytest.raises(InputError, match="precision: must be one of fp32, bf16, fp16, found 'fp8'"):
        Detector("detect-n-bccd", precision="fp8")


def test_an_image_no_larger_than_a_tile_is_predicted_as_without_tiles(detector, image):
    assert_same(detector.predict(image, tile=90, **LOW), detector.predict(image, **LOW))


def test_tiles_do_not_depend_on_the_batch_size(detector):
    large = np.random.default_rng(3).integers(0, 256, (200, 250, 3), dtype=np.uint8)
    alone, other = (detector.predict([large], tile=96, overlap=0.1, batch_size=n, **LOW) for n in (1, 7))
    assert_same(alone[0], other[0], atol=1e-3)
    assert alone[0].image_hw == (200, 250)
    assert (alone[0].boxes_xyxy_px[:, 2:] <= [250, 200]).all()


def test_tiles_out_of_range(detector, image):
    with pytest.raises(InputError, match="tile: must be at least 32 pixels, found 0"):
        detector.predict(image, tile=0)
    with pytest.raises(InputError, match="overlap: must be from 0 to"):
        detector.predict(image, tile=64, overlap=1)
    with pytest.raises(InputError, match="batch size: must be at least 1, found 0"):
        detector.predict(image, tile=64, batch_size=0)


def test_large_images_are_looked_at_in_tiles_only(detector, tmp_path, monkeypatch):
    """The limits are lowered to 60 x 89 and 60 x 90 pixels."""
    monkeypatch.setattr("detect.inference.detector.MAX_PIXELS", 60 * 89)
    monkeypatch.setattr("detect.inference.detector.MAX_TILED_PIXELS", 60 * 90)
    Image.new("RGB", (90, 60)).save(tmp_path / "large.png")
    for source in (tmp_path / "large.png", Image.open(tmp_path / "large.png")):
        with pytest.raises(InputError, match="has 90 x 60 pixels; allowed are 5340"):
            detector.predict(source)
        detector.predict(source, tile=64)
    assert len(list(detector.stream(tmp_path / "large.png", tile=64))) == 1
