"""The evaluation of classifiers."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from detect.data.annotations import encode_paths
from detect.data.classification.table import ClassTable
from detect.data.images import write_image
from detect.drawing.text import columns
from detect.errors import InputError
from detect.evaluation import classification
from detect.evaluation.classification import (
    ClassEvaluation,
    class_metrics,
    class_scores,
    logits_of_probabilities,
    most_confused,
)
from detect.evaluation.loop import Conditions
from detect.evaluation.report import class_metrics_record, class_table

CPU = torch.device("cpu")
NAMES = ("red", "green", "blue")
OPTIONS: dict[str, Any] = {
    "image_size": 8,
    "batch_size": 2,
    "workers": 0,
    "device": CPU,
    "progress": False,
}


def evaluate_classifier(model: Any, table: ClassTable, **conditions: Any) -> ClassEvaluation:
    return classification.evaluate_classifier(model, table, Conditions(**conditions))


class ColorLogits(torch.nn.Module):
    """The mean of red, green and blue, times 4, as logits: a network whose answer is known."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(3)
        self.max_reduction = 4
        self.num_classes = 3

    def forward(self, images: Tensor) -> Tensor:
        return 4 * images.mean(dim=(2, 3))


def color_table(folder: Path, colors: list[tuple[int, int, int]], labels: list[int]) -> ClassTable:
    """Images of one colour each."""
    paths = [folder / f"{number}.png" for number in range(len(colors))]
    for path, color in zip(paths, colors, strict=True):
        write_image(path, np.full((10, 12, 3), color, np.uint8))
    return ClassTable(encode_paths(paths), np.array(labels, dtype=np.int64), NAMES)


@pytest.fixture
def table(tmp_path: Path) -> ClassTable:
    """Two red images, one of which is red, a green one, a blue one that is taken for green; no class is empty."""
    colors = [(255, 0, 0), (255, 0, 0), (0, 255, 0), (0, 255, 0)]
    return color_table(tmp_path, colors, [0, 1, 1, 2])


def test_metrics_by_hand() -> None:
    """Three classes, four images.

    Image 0 (true 0): probabilities 1/2 1/4 1/4, right. Image 1 (true 0): 1/4 1/2 1/4, taken for 1.
    Image 2 (true 1): 1/8 3/4 1/8, right. Image 3 (true 1): 1/2 1/4 1/4, taken for 0.
    top1 = 2/4; with three classes all are among the five best. Loss = (ln 2 + ln 4 + ln 4/3 + ln 4) / 4.
    """
    probabilities = np.array([[2, 1, 1], [1, 2, 1], [0.5, 3, 0.5], [2, 1, 1]]) / 4
    found = class_metrics(np.log(probabilities), np.array([0, 0, 1, 1]), NAMES)
    assert found["top1"] == 0.5
    assert found["top5"] == 1
    assert found["loss"] == pytest.approx((math.log(2) + 2 * math.log(4) + math.log(4 / 3)) / 4)
    assert found.per_class == {
        "red": {"top1": 0.5, "top5": 1.0, "images": 2},
        "green": {"top1": 0.5, "top5": 1.0, "images": 2},
        "blue": {"top1": -1.0, "top5": -1.0, "images": 0},
    }
    assert found.confusion.tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 0]]


def test_metrics_of_nothing() -> None:
    found = class_metrics(np.zeros((0, 3)), np.zeros(0, np.int64), NAMES)
    assert found.values == {"top1": -1, "top5": -1, "loss": -1}
    assert found.confusion.sum() == 0


def test_images_without_an_answer_are_wrong() -> None:
    """Of two images of class 0 one has no answer: top1 is 1/2, and the loss is that of the other, -ln 1 = 0."""
    scores = np.array([[0, -np.inf, -np.inf], [np.nan] * 3])
    found = class_metrics(scores, np.array([0, 0]), NAMES)
    assert found.values == {"top1": 0.5, "top5": 0.5, "loss": 0.0}
    assert math.copysign(1, found["loss"]) == 1
    assert found.confusion.tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_of_equal_classes_the_first_is_the_best() -> None:
    """Seven equal classes: only class 0 is the best, classes 0 to 4 are the five best; loss ln 7."""
    found = class_metrics(np.full((7, 7), -math.log(7)), np.arange(7), tuple("abcdefg"))
    assert found["top1"] == pytest.approx(1 / 7)
    assert found["top5"] == pytest.approx(5 / 7)
    assert found["loss"] == pytest.approx(math.log(7))
    assert found.confusion[:, 0].tolist() == [1] * 7


def test_two_classes() -> None:
    found = class_metrics(np.log([[0.25, 0.75], [0.25, 0.75]]), np.array([0, 1]), ("a", "b"))
    assert (found["top1"], found["top5"]) == (0.5, 1)


def test_classes_of_one_name_stay_apart() -> None:
    found = class_metrics(np.log([[0.2, 0.3, 0.5]]), np.array([2]), ("crane", "b", "crane"))
    assert list(found.per_class) == ["crane (class 0)", "b", "crane (class 2)"]


def test_most_confused_pairs() -> None:
    confusion = np.array([[9, 2, 0], [3, 9, 2], [0, 0, 9]])
    assert most_confused(confusion, 2) == [(1, 0, 3), (0, 1, 2)]
    assert most_confused(confusion, 10) == [(1, 0, 3), (0, 1, 2), (1, 2, 2)]
    assert most_confused(np.eye(3, dtype=np.int64), 10) == []


def test_a_split_is_classified(table: ClassTable) -> None:
    """Logits 4 and 0 0: the best class has e^4 / (e^4 + 2). Images 0 and 2 are right; the loss of a right one is
    ln(e^4 + 2) - 4, of a wrong one ln(e^4 + 2).
    """
    found = evaluate_classifier(ColorLogits(), table, **OPTIONS)
    total = math.exp(4) + 2
    assert found.metrics["top1"] == 0.5
    assert found.metrics["loss"] == pytest.approx(math.log(total) - 2)
    assert found.predicted.tolist() == [0, 0, 1, 1]
    np.testing.assert_allclose(found.probabilities[0], [math.exp(4) / total, 1 / total, 1 / total], rtol=1e-5)
    assert found.probabilities.dtype == np.float32
    assert list(found.speed_ms) == ["preprocess", "network"]
    assert all(value > 0 for value in found.speed_ms.values())


@pytest.mark.parametrize("options", [{"batch_size": 4}, {"batch_size": 3, "workers": 1}])
def test_batches_and_workers_do_not_change_the_result(table: ClassTable, options: dict[str, int]) -> None:
    model: Any = ColorLogits()
    one = evaluate_classifier(model, table, **OPTIONS | {"batch_size": 1})
    other = evaluate_classifier(model, table, **OPTIONS | options)
    np.testing.assert_array_equal(one.probabilities, other.probabilities)


def test_classes_are_mapped_by_name(table: ClassTable) -> None:
    """What the model calls its classes 0, 1, 2 are the data's classes 1, 2, 0."""
    model: Any = ColorLogits()
    found = evaluate_classifier(model, table, **OPTIONS, names=("green", "blue", "red"))
    assert found.label_of.tolist() == [1, 2, 0]
    assert found.predicted.tolist() == [1, 1, 2, 2]
    with pytest.raises(
        InputError, match="none in common; the checkpoint has 'a', 'b', 'c', the data 'red', 'green', 'b"
    ):
        evaluate_classifier(model, table, **OPTIONS, names=("a", "b", "c"))


def test_the_answer_is_chosen_among_the_classes_of_the_data(table: ClassTable) -> None:
    """The model's first class, which wins for red images, is not in the data: their logits are 0 for both others.

    The data's class red, which the model lacks, has a probability of 0 and no loss; image 1 is a green one: ln 2.
    Images 2 and 3 have the logits 4 for green, 0 for blue: ln(1 + e^-4) for the green one, 4 more for the blue one.
    """
    model: Any = ColorLogits()
    labels = dataclasses.replace(table, labels=np.array([0, 1, 1, 2]))
    found = evaluate_classifier(model, labels, **OPTIONS, names=("pink", "green", "blue"))
    assert found.label_of.tolist() == [-1, 1, 2]
    assert found.predicted.tolist() == [1, 1, 1, 1]
    np.testing.assert_allclose(found.probabilities[0], [0, 0.5, 0.5])
    assert found.metrics["top1"] == 0.5
    assert found.metrics["top5"] == 0.75  # never the class that the model lacks, though there are only three
    certain = math.log(1 + math.exp(-4))
    assert found.metrics["loss"] == pytest.approx((math.log(2) + certain + certain + 4) / 3)
    assert found.is_answered.all()


def test_unreadable_images_are_wrong_or_refused(table: ClassTable, caplog: pytest.LogCaptureFixture) -> None:
    table.path(0).write_bytes(b"no image")
    model: Any = ColorLogits()
    found = evaluate_classifier(model, table, **OPTIONS)
    assert found.is_answered.tolist() == [False, True, True, True]
    assert found.probabilities[0].tolist() == [0, 0, 0]
    assert found.predicted[0] == -1
    assert found.metrics["top1"] == 0.25
    assert found.results[0]["top5"] == []
    assert "not finite" not in caplog.text
    with pytest.raises(InputError, match=r"0\.png: is not an image"):
        evaluate_classifier(model, table, **OPTIONS, strict=True)


def test_a_network_that_gives_no_numbers_is_wrong(table: ClassTable, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(ColorLogits):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images).log() * 0  # -inf * 0 is NaN

    model: Any = Broken()
    found = evaluate_classifier(model, table, **OPTIONS)
    assert found.metrics.values == {"top1": 0, "top5": 0, "loss": -1}
    assert "the network's output is not finite for 4 images; they count as wrong" in caplog.text


def test_probabilities_that_round_to_zero_are_an_answer() -> None:
    """As of files of 16 bits; a row that is no number stays one without an answer."""
    found = np.array([[1, 0, 0], [np.nan] * 3], np.float32)
    logits = logits_of_probabilities(lambda images: found)(torch.zeros((2, 8, 8, 3), dtype=torch.uint8))
    scores = class_scores(logits, np.arange(3), 3).numpy()
    assert class_metrics(scores, np.array([0, 0]), NAMES).values == {"top1": 0.5, "top5": 0.5, "loss": 0}


def test_an_empty_split(table: ClassTable) -> None:
    empty = dataclasses.replace(table, image_paths=table.image_paths[:0], labels=table.labels[:0])
    model: Any = ColorLogits()
    found = evaluate_classifier(model, empty, **OPTIONS)
    assert found.metrics["top1"] == -1
    assert found.probabilities.shape == (0, 3)
    assert found.results == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 6}, "image size: must be a multiple of 4, found 6"),
        ({"batch_size": 0}, "batch size: must be at least 1, found 0"),
        ({"workers": -1}, "workers: must be at least 0, found -1"),
    ],
)
def test_settings_out_of_range(table: ClassTable, options: dict[str, int], message: str) -> None:
    model: Any = ColorLogits()
    with pytest.raises(InputError, match=message):
        evaluate_classifier(model, table, **OPTIONS | options)


def test_training_goes_on_as_before(table: ClassTable) -> None:
    model: Any = ColorLogits().train()
    model.norm.eval()
    evaluate_classifier(model, table, **OPTIONS)
    assert model.training
    assert not model.norm.training


# ------------------------------------------------------------------------------------------------- report


def evaluation(names: tuple[str, ...] = NAMES) -> ClassEvaluation:
    """Three images of class 0 (right, taken for 1, without an answer) and one of class 1, taken for 0."""
    probabilities = np.array([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0, 0, 0], [0.5, 0.25, 0.25]], np.float32)
    scores = np.log(probabilities, where=probabilities > 0, out=np.full_like(probabilities, np.nan))
    labels = np.array([0, 0, 0, 1])
    table = ClassTable(encode_paths([Path(f"/data/{n}.png") for n in range(4)]), labels, names)
    speed = {"preprocess": 1.23456, "network": 20.0}
    return ClassEvaluation(
        class_metrics(scores, labels, names), probabilities, table, np.arange(3), 32, 1.0, speed_ms=speed
    )


def test_table_shows_every_number_and_explains_minus_one() -> None:
    """top1 = 1/4, top5 = 3/4, loss = (ln 2 + ln 4 + ln 4) / 3 = 1.155."""
    lines = class_table(evaluation().metrics).splitlines()
    assert lines[1] == "  top1   0.250   share of the images whose class is the most probable one"
    assert lines[2] == "  top5   0.750   share of the images whose class is among the 3 most probable"
    assert lines[3].startswith("  loss   1.155 ")
    assert lines[5].split() == ["class", "top1", "top5", "images"]
    assert lines[6].split() == ["red", "0.333", "0.667", "3"]
    assert lines[7].split() == ["green", "0.000", "1.000", "1"]
    assert lines[8] == "classes without images in the split, not shown: 1"
    assert lines[10].split() == ["true", "predicted", "images"]
    assert lines[11].split() == ["red", "green", "1"]
    assert lines[12].split() == ["green", "red", "1"]
    assert "-1" not in "".join(lines)


def test_table_says_nothing_of_what_does_not_occur() -> None:
    perfect = class_metrics(np.log([[0.75, 0.25], [0.25, 0.75]]), np.array([0, 1]), ("a", "b"))
    assert len(class_table(perfect).splitlines()) == 8


@pytest.mark.parametrize("name", ["猫" * 8, "x" * 200, "new\nline", "$\\alpha$"])
def test_table_stays_aligned(name: str) -> None:
    lines = class_table(evaluation((name, "b", "c")).metrics).splitlines()
    assert len({columns(line) for line in lines[5:8]}) == 1
    assert len({columns(line) for line in lines[10:13]}) == 1


def test_metrics_json() -> None:
    found = class_metrics_record(evaluation(), {"weights": "w.pt"})
    assert (found["top1"], found["images"], found["unanswered"]) == (0.25, 4, 1)
    assert found["confused"][0] == {"true": "red", "predicted": "green", "images": 1}
    assert found["per_class"]["blue"]["top1"] == -1
    assert found["speed_ms"] == {"preprocess": 1.235, "network": 20.0}
    assert found["weights"] == "w.pt"


def test_results_have_the_best_classes() -> None:
    assert evaluation().results[3] == {
        "file_name": "/data/3.png",
        "category": "green",
        "label": 1,
        "top5": [
            {"category": "red", "score": 0.5},
            {"category": "green", "score": 0.25},
            {"category": "blue", "score": 0.25},
        ],
    }


def test_ten_crops(tmp_path: Path) -> None:
    """Crops of 8 px of 16 px, whose left 12 columns are red, the others green: of corners and middle three are all red,
    with logits 4, 0, 0; two are half green, with logits 2, 2, 0. The middle alone is red.
    """
    image = np.zeros((16, 16, 3), np.uint8)
    image[:, :12, 0] = image[:, 12:, 1] = 255
    write_image(tmp_path / "a.png", image)
    table = ClassTable(encode_paths([tmp_path / "a.png"]), np.array([0]), NAMES)
    red, half = math.e**4 / (math.e**4 + 2), math.e**2 / (2 * math.e**2 + 1)
    for crops, expected in ((1, red), (10, (3 * red + 2 * half) / 5)):
        found = classification.evaluate_classifier(ColorLogits(), table, Conditions(**OPTIONS), 0.5, crops)
        assert found.probabilities[0, 0] == pytest.approx(expected, rel=1e-6)
