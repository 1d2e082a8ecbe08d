"""Two detectors and two classifiers on one split, with counts by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detect.data.annotations import encode_paths
from detect.data.images import read_image, write_image
from detect.drawing.sheets import GAP_PX, LINE_PX, PANEL_PX, sheet_width
from detect.evaluation.class_differences import ClassifierPair, draw_class_differences
from detect.evaluation.class_differences import summary_line as class_line
from detect.evaluation.differences import COLORS, TRUTH, DetectorPair, draw_differences, pair_detectors, summary_line
from detect.evaluation.examples import Shown, show
from detect.evaluation.matches import ALL_AREAS, match_by_coco
from tests.evaluation.synthetic import make_found, make_table
from tests.evaluation.test_class_pictures import make_evaluation

OBJECTS = [
    [(0, 0, 0, 40, 40), (0, 60, 0, 100, 40), (1, 0, 60, 40, 100)],
    [(0, 0, 0, 40, 40), (1, 50, 50, 90, 90, True)],
    [],
]


def shown_of(*found: tuple[int, int, float, float, float, float, float]) -> Shown:
    table = make_table(OBJECTS)
    boxes = make_found(list(found))
    return show(table, boxes, match_by_coco(table, boxes, [ALL_AREAS])[0])


@pytest.fixture
def pair() -> DetectorPair:
    """Image 0: both find the first object, A alone the second, B alone the third; the wrong class of A at the third
    has no like in B. Image 1: both are wrong in one place, B also in another; a detection in the crowd does not count.
    """
    first = shown_of(
        (0, 0, 0, 0, 40, 40, 0.9),
        (0, 0, 60, 0, 100, 40, 0.8),
        (0, 0, 0, 64, 40, 100, 0.7),
        (1, 0, 100, 100, 140, 140, 0.6),
        (1, 1, 50, 50, 90, 90, 0.5),
        (2, 0, 0, 0, 9, 9, 0.2),  # below the score
    )
    second = shown_of(
        (0, 0, 0, 0, 40, 40, 0.5),
        (0, 1, 0, 60, 40, 100, 0.4),
        (1, 0, 100, 100, 140, 139, 0.9),
        (1, 0, 150, 150, 160, 160, 0.3),
    )
    return pair_detectors(first, second)


def test_counts(pair: DetectorPair) -> None:
    assert pair.counts.tolist() == [3, 1, 0]
    assert pair.totals == {
        "objects": 4,
        "found_by_both": 1,
        "found_by_a_alone": 1,
        "found_by_b_alone": 1,
        "found_by_none": 1,
        "wrong_of_a_alone": 1,
        "wrong_of_b_alone": 1,
    }
    assert summary_line(pair.totals) == (
        "of 4 objects both find 1, A alone 1, B alone 1, neither 1; wrong detections of A alone 1, of B alone 1"
    )


def test_differences_in_order(pair: DetectorPair) -> None:
    assert [one.record(pair.table) for one in pair.differences] == [
        record("0.jpg", "found by one", "A", "a", 0.8, (60, 0, 100, 40)),
        record("0.jpg", "wrong of one", "A", "a", 0.7, (0, 64, 40, 100)),
        record("0.jpg", "found by one", "B", "b", 0.4, (0, 60, 40, 100)),
        record("1.jpg", "wrong of one", "B", "a", 0.3, (150, 150, 160, 160)),
    ]


def record(image: str, kind: str, model: str, name: str, score: float, box: tuple[float, ...]) -> dict[str, object]:
    sides = dict(zip(("left", "top", "right", "bottom"), map(float, box), strict=True))
    return {"image": image, "kind": kind, "model": model, "class": name, "score": score, **sides}


def test_a_model_does_not_differ_from_itself() -> None:
    shown = shown_of((0, 0, 0, 0, 40, 40, 0.9), (1, 0, 100, 100, 140, 140, 0.6))
    pair = pair_detectors(shown, shown)
    assert pair.differences == []
    assert pair.totals["found_by_both"] == 1


def test_wrong_detections_of_other_classes_are_not_shared() -> None:
    pair = pair_detectors(shown_of((2, 0, 0, 0, 40, 40, 0.9)), shown_of((2, 1, 0, 0, 40, 40, 0.9)))
    assert [(one.model, one.kind) for one in pair.differences] == [("A", "wrong of one"), ("B", "wrong of one")]


def test_sheet(tmp_path: Path, pair: DetectorPair) -> None:
    """Truth, A and B of the image that differs most; the other is gone. Frames in their colours in their third."""
    table = pair.table
    paths = [tmp_path / "0.png", *(tmp_path / f"{row}.jpg" for row in (1, 2))]
    write_image(paths[0], np.full((160, 160, 3), 128, np.uint8))
    object.__setattr__(table, "image_paths", encode_paths(paths))
    assert draw_differences(tmp_path / "sheet.png", pair, 5) == 1
    sheet = read_image(tmp_path / "sheet.png")
    thirds = np.array_split(sheet, 3, axis=1)
    near = [[int((np.abs(part.astype(int) - color).max(axis=2) < 40).sum()) for part in thirds] for color in _colors()]
    assert [count > 20 for count in near[0]] == [True, True, True]  # what each misses and the other finds is dashed
    assert [[count > 20 for count in counts] for counts in near[1:]] == [[False, True, False], [False, False, True]]


def _colors() -> list[tuple[int, int, int]]:
    return [TRUTH, COLORS["A"], COLORS["B"]]


def test_a_sheet_without_differences(tmp_path: Path) -> None:
    shown = shown_of()
    assert draw_differences(tmp_path / "sheet.png", pair_detectors(shown, shown), 5) == 0
    assert read_image(tmp_path / "sheet.png").shape[0] > 2 * LINE_PX


# ------------------------------------------------------------------------------------------ classifiers


@pytest.fixture
def classifiers(tmp_path: Path) -> ClassifierPair:
    """Five images of the classes cat, dog, cat, dog, cat: right by both, A, B, B (without an answer of A), none."""
    names = ("cat", "dog")
    first = make_evaluation(tmp_path, names, [[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0, 0], [0.1, 0.9]])
    second = make_evaluation(tmp_path, names, [[0.8, 0.2], [0.7, 0.3], [0.9, 0.1], [0.4, 0.6], [0.2, 0.8]])
    return ClassifierPair((first, second))


def test_classifiers(classifiers: ClassifierPair) -> None:
    """Of the true class: image 1, 0.6 against 0.3; image 2, 0.2 against 0.9; image 3, 0 against 0.6."""
    assert class_line(classifiers.totals) == "of 5 images both have 1 right, A alone 1, B alone 2, neither 1"
    assert [(one["image"], one["right"]) for one in classifiers.records()] == [
        ("2.png", "B"),
        ("3.png", "B"),
        ("1.png", "A"),
    ]
    assert classifiers.rows_of("B").tolist() == [2, 3]
    assert classifiers.records()[1] == {
        "image": "3.png",
        "right": "B",
        "class": "dog",
        "predicted A": "",
        "score A": 0.0,
        "predicted B": "dog",
        "score B": 0.6,
    }


def test_sheet_of_classifiers(tmp_path: Path, classifiers: ClassifierPair) -> None:
    """Half of the two places for each: two headings, and a row below each."""
    assert draw_class_differences(tmp_path / "sheet.png", classifiers, 2) == 2
    row = PANEL_PX + 2 * LINE_PX + 2 * GAP_PX
    assert read_image(tmp_path / "sheet.png").shape == (2 * (2 * LINE_PX + row), sheet_width(8), 3)


def test_an_image_without_an_answer_is_drawn(tmp_path: Path, classifiers: ClassifierPair) -> None:
    assert draw_class_differences(tmp_path / "sheet.png", classifiers, 8) == 3
