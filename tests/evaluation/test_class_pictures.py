"""What a classifier takes images for, in pictures."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from detect.data.annotations import encode_paths
from detect.data.classification.table import ClassTable
from detect.data.images import write_image
from detect.drawing.sheets import GAP_PX, GREEN, PANEL_PX, RED, Panel, draw_text, fitted, panel_sheet, sheet_width
from detect.evaluation.class_pictures import (
    class_maps,
    class_sheet,
    draw_class_activation,
    draw_class_confusion,
    draw_confused_pairs,
    overlay,
    prediction_sheet,
    spread,
)
from detect.evaluation.classification import ClassEvaluation, class_metrics, evaluate_classifier
from detect.evaluation.loop import Conditions
from detect.evaluation.outputs import EvaluationOutputs
from detect.models.build import build_classifier
from detect.models.definition import parse_definition
from detect.models.model import ClassificationModel

CPU = torch.device("cpu")
ODD_NAMES = ("$\\alpha_1$", "_hidden", "x" * 300, "猫", "a\nb", "", "بيت", "\U0010fffd")


def make_evaluation(folder: Path, names: tuple[str, ...], probabilities: list[list[float]]) -> ClassEvaluation:
    """Image ``n`` shows class ``n % K``; its pixels are noise."""
    rng = np.random.default_rng(0)
    paths = [folder / f"{number}.png" for number in range(len(probabilities))]
    for path in paths:
        write_image(path, rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
    labels = np.arange(len(paths)) % len(names)
    table = ClassTable(encode_paths(paths), labels, names)
    shares = np.array(probabilities, dtype=np.float32).reshape(-1, len(names))
    metrics = class_metrics(np.log(shares, out=np.full_like(shares, np.nan), where=shares > 0), labels, names)
    return ClassEvaluation(metrics, shares, table, np.arange(len(names)), 32, 1.0, speed_ms={})


def tiny_model(head: str = "{}", classes: int = 3) -> ClassificationModel:
    """Two convolutions to 4 x 4 cells of an image of 16 px, and a head with ``head`` as its arguments."""
    definition = parse_definition(
        {
            "name": "tiny",
            "backbone": [
                {"name": "stem", "module": "Conv", "args": {"out_channels": 6, "kernel_size": 3, "stride": 2}},
                {"name": "c5", "module": "Conv", "args": {"out_channels": 5, "kernel_size": 3, "stride": 2}},
            ],
            "head": [{"name": "classify", "module": "Classify", "args": head_arguments(head)}],
        },
        "tiny.yaml",
    )
    torch.manual_seed(0)
    return build_classifier(definition, classes).eval()


def head_arguments(text: str) -> dict[str, object]:
    return {"{}": {}, "average_last": {"average_last": True}, "max": {"pool": "max"}}[text]


# ------------------------------------------------------------------------------------------------- sheets


def test_a_sheet_without_images_has_an_empty_row() -> None:
    sheet = panel_sheet([], 3)
    assert sheet.shape[1] == sheet_width(3) == 3 * PANEL_PX + 4 * GAP_PX
    assert (sheet == 255).all()


def test_tiles_stand_in_rows_above_their_captions() -> None:
    blue = np.zeros((2, 2, 3), np.uint8) + np.array([0, 0, 255], np.uint8)
    one, two = panel_sheet([Panel(blue, "a")], 2), panel_sheet([Panel(blue, "a", RED)] * 3, 2)
    assert two.shape[0] - GAP_PX == 2 * (one.shape[0] - GAP_PX)
    assert one.shape[1] == two.shape[1]
    tile = one[GAP_PX : GAP_PX + PANEL_PX, GAP_PX : GAP_PX + PANEL_PX]
    assert (tile == (0, 0, 255)).all()
    below = one[GAP_PX + PANEL_PX :]
    assert below.min() < 100
    assert (one[:, GAP_PX + PANEL_PX + 1 :] == 255).all()  # no second tile
    red = two[GAP_PX + PANEL_PX : one.shape[0] - GAP_PX].astype(int)
    assert (red[..., 0] - red[..., 1]).max() > 100


@pytest.mark.parametrize(
    ("size_hw", "expected"), [((1, 1), (160, 160)), ((320, 80), (160, 40)), ((1, 1000), (1, 160)), ((8, 16), (80, 160))]
)
def test_images_are_fitted(size_hw: tuple[int, int], expected: tuple[int, int]) -> None:
    assert fitted(np.zeros((*size_hw, 3), np.uint8), 160).shape == (*expected, 3)


@pytest.mark.parametrize("name", [*ODD_NAMES, "word " * 40])
def test_captions_stay_in_their_tile(name: str) -> None:
    black = np.zeros((9, 9, 3), np.uint8)
    for caption in (name, (name, name, name)):
        sheet = panel_sheet([Panel(black, caption)], 1)
        assert (sheet[:, :GAP_PX] == 255).all()
        assert (sheet[:, -GAP_PX:] == 255).all()


def test_text_is_shortened_to_its_width() -> None:
    picture = Image.new("RGB", (300, 40), "white")
    draw_text(ImageDraw.Draw(picture), (0, 0), "a long name of a class", 20, 60)
    columns = (np.array(picture) < 128).any(axis=(0, 2))
    assert 30 < np.flatnonzero(columns).max() <= 60


# ------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize("names", [pytest.param(("a", "b"), marks=pytest.mark.slow), ODD_NAMES], ids=["plain", "odd"])
def test_pictures_of_any_class_names(tmp_path: Path, names: tuple[str, ...]) -> None:
    """Every image is taken for class 0."""
    shares = [0.5] + [0.5 / (len(names) - 1)] * (len(names) - 1)
    evaluation = make_evaluation(tmp_path, names, [shares] * len(names))
    draw_class_confusion(tmp_path / "confusion.png", evaluation)
    draw_confused_pairs(tmp_path / "pairs.png", evaluation)
    assert min(cv2.imread(str(tmp_path / "confusion.png")).shape[:2]) > 300
    pairs = cv2.imread(str(tmp_path / "pairs.png"))
    row = panel_sheet([], 8).shape[0] + 36  # a heading of two lines, a row of tiles
    assert pairs.shape == ((len(names) - 1) * row, sheet_width(8), 3)
    assert "matplotlib.pyplot" not in sys.modules


def test_the_surest_mistakes_come_first(tmp_path: Path) -> None:
    """Images 0, 2, 4 show class 0 and are taken for class 1 with 0.6, 0.9 and 0.7."""
    evaluation = make_evaluation(tmp_path, ("a", "b"), [[0.4, 0.6], [0, 1], [0.1, 0.9], [0, 1], [0.3, 0.7]])
    draw_confused_pairs(tmp_path / "pairs.png", evaluation)
    shown = cv2.cvtColor(cv2.imread(str(tmp_path / "pairs.png")), cv2.COLOR_BGR2RGB)
    for place, row in enumerate((2, 4, 0)):
        left = GAP_PX + place * (PANEL_PX + GAP_PX)
        tile = shown[36 + GAP_PX :][:PANEL_PX, left : left + PANEL_PX]
        np.testing.assert_array_equal(tile, fitted(evaluation.table.read(row), PANEL_PX))


def test_nothing_is_confused(tmp_path: Path) -> None:
    evaluation = make_evaluation(tmp_path, ("a", "b"), [[0.9, 0.1], [0.1, 0.9]])
    draw_confused_pairs(tmp_path / "pairs.png", evaluation)
    assert cv2.imread(str(tmp_path / "pairs.png")).min() < 100  # it says so


def test_predictions_are_green_or_red(tmp_path: Path) -> None:
    right = make_evaluation(tmp_path, ("a", "b"), [[0.9, 0.1], [0.1, 0.9]])
    wrong = make_evaluation(tmp_path, ("a", "b"), [[0.1, 0.9], [0.9, 0.1]])
    for evaluation, color in ((right, GREEN), (wrong, RED)):
        sheet = prediction_sheet(evaluation, 36)
        assert sheet.dtype == np.uint8
        assert sheet.shape == panel_sheet([], 2).shape
        assert (sheet[GAP_PX + PANEL_PX :] == color).all(axis=2).any()


def test_predictions_of_a_part_and_of_nothing(tmp_path: Path) -> None:
    many = make_evaluation(tmp_path, ("a", "b"), [[0.9, 0.1]] * 20 + [[0, 0]])
    assert prediction_sheet(many, 9).shape[1] == sheet_width(3)
    many.table.path(0).unlink()
    assert prediction_sheet(many, 1).shape == panel_sheet([], 1).shape
    none = make_evaluation(tmp_path, ("a", "b"), [])
    assert (prediction_sheet(none, 9) == 255).all()


def test_spread() -> None:
    assert spread(np.arange(3), 5).tolist() == [0, 1, 2]
    assert spread(np.arange(9), 3).tolist() == [0, 4, 8]
    assert spread(np.zeros(0, np.int64), 3).tolist() == []


def test_a_batch_with_what_it_shows() -> None:
    images = np.zeros((5, 32, 32, 3), np.uint8)
    sheet = class_sheet(images, ["cat", "dog 0.60 cat 0.40", "猫", "", "x" * 200])
    assert sheet.shape == panel_sheet([Panel(images[0], "")] * 5, 3).shape
    assert class_sheet(images[:0], []).shape == panel_sheet([], 1).shape


# ------------------------------------------------------------------------------------ class activation


@pytest.mark.parametrize("head", ["{}", "average_last"])
def test_the_mean_of_a_map_and_the_bias_are_the_logit(head: str) -> None:
    """mean over cells of sum_c w_c f_c = sum_c w_c mean(f_c), which is the head without its bias."""
    model = tiny_model(head)
    images = torch.randint(0, 256, (2, 16, 16, 3), dtype=torch.uint8)
    logits, maps = class_maps(model, images, CPU)
    assert maps.shape == (2, 3, 4, 4)
    bias = model.head.linear.bias.detach()
    torch.testing.assert_close(maps.mean(dim=(2, 3)) + bias, logits, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(model(images.permute(0, 3, 1, 2) / 255), logits)
    assert not model.head._forward_pre_hooks


def test_with_a_maximum_the_map_does_not_add_up() -> None:
    """One channel counts, with weight 1: the logit is the map's greatest cell and the bias."""
    model = tiny_model("max")
    with torch.no_grad():
        model.head.linear.weight.zero_()[0, 0] = 1
    logits, maps = class_maps(model, torch.randint(0, 256, (1, 16, 16, 3), dtype=torch.uint8), CPU)
    assert logits[0, 0].item() == pytest.approx(maps[0, 0].max().item() + model.head.linear.bias[0].item(), abs=1e-5)


def test_an_overlay_is_blue_where_least_and_red_where_most() -> None:
    grey = np.full((8, 8, 3), 128, np.uint8)
    shown = overlay(grey, np.array([[-3.0, 5.0]])).astype(int)
    assert shown.shape == (8, 8, 3)
    assert shown[4, 0, 2] >= shown[4, 0, 0]
    assert shown[4, 7, 0] > shown[4, 7, 2]
    assert (overlay(grey, np.zeros((2, 2))) == overlay(grey, np.ones((2, 2)))).all()


def conditions(image_size: int, names: tuple[str, ...] | None = None) -> Conditions:
    return Conditions(image_size, batch_size=4, workers=0, device=CPU, names=names, progress=False)


def small_split(folder: Path, size: int, num_images: int) -> ClassTable:
    rng = np.random.default_rng(0)
    paths = [folder / f"images/{number}.png" for number in range(num_images)]
    for path in paths:
        write_image(path, rng.integers(0, 256, (size, size, 3), dtype=np.uint8))
    return ClassTable(encode_paths(paths), np.arange(num_images) % 3, ("a", "b", "c"))


@pytest.mark.parametrize("names", [pytest.param(None, marks=pytest.mark.slow), ("c", "a", "b")])
def test_all_files_of_an_evaluation(tmp_path: Path, names: tuple[str, ...] | None) -> None:
    """Nine images, all taken for one class: three are right, in one row; six are wrong, in two rows of three pairs."""
    model, table = tiny_model(), small_split(tmp_path, 16, 9)
    with torch.no_grad():
        model.head.linear.bias[1] = 50
    evaluation = evaluate_classifier(model, table, conditions(16, names))
    wanted = EvaluationOutputs(tmp_path / "m.json", tmp_path / "r.json", tmp_path / "out")
    lines = wanted.write_classes(evaluation, model, CPU, {})
    assert [line.split(":")[0] for line in lines] == ["classes", "metrics", "pictures"]
    shown = {path.name: cv2.imread(str(path)).shape for path in (tmp_path / "out").iterdir()}
    assert set(shown) == {"confusion_matrix.png", "confused_pairs.jpg", "class_activation.jpg"}
    one, two = (panel_sheet([Panel(np.zeros((1, 1, 3), np.uint8), "")] * n, 6).shape[0] for n in (6, 12))
    assert shown["class_activation.jpg"] == (36 + one + 36 + two, sheet_width(6), 3)
    assert EvaluationOutputs().write_classes(evaluation, model, CPU, {}) == []


def test_a_map_of_one_cell_is_not_drawn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, table = tiny_model(), small_split(tmp_path, 4, 3)
    evaluation = evaluate_classifier(model, table, conditions(4))
    assert not draw_class_activation(tmp_path / "map.jpg", evaluation, model, CPU)
    assert not (tmp_path / "map.jpg").exists()
    assert "map.jpg is not drawn: the last map has a single cell at this image size" in caplog.text


def test_maps_are_of_the_predicted_class_also_in_another_order(tmp_path: Path) -> None:
    """The model's class 1 always wins; the data calls it class 0. Image 0 is right: its map is the second tile."""
    model, table = tiny_model(), small_split(tmp_path, 16, 3)
    with torch.no_grad():
        model.head.linear.bias[1] = 50
    evaluation = evaluate_classifier(model, table, conditions(16, ("c", "a", "b")))
    assert draw_class_activation(tmp_path / "map.png", evaluation, model, CPU)
    shown = cv2.cvtColor(cv2.imread(str(tmp_path / "map.png")), cv2.COLOR_BGR2RGB)
    image = table.read(0)
    _, maps = class_maps(model, torch.from_numpy(image[None].copy()), CPU)
    left = GAP_PX + PANEL_PX + GAP_PX
    tile = shown[36 + GAP_PX :][:PANEL_PX, left : left + PANEL_PX]
    expected = fitted(overlay(image, maps[0, 1].numpy()), PANEL_PX)
    np.testing.assert_allclose(tile.astype(int), expected.astype(int), atol=3)  # other batches round differently
