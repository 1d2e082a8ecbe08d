from __future__ import annotations

import sys

import cv2
import numpy as np
import pytest

from detect.evaluation import pictures
from detect.evaluation.coco import coco_metrics
from detect.evaluation.confusion import confusion_matrix
from detect.evaluation.pictures import draw_confusion_matrix, draw_precision_recall
from tests.evaluation.synthetic import make_found, make_table, random_problem

ODD_NAMES = ("$\\alpha_1$", "$", "_hidden", "x" * 300, "猫", "a\nb", "", "بيت", "\U0010fffd")


def is_picture(path) -> bool:
    image = cv2.imread(str(path))
    return image is not None and min(image.shape[:2]) > 300 and image.std() > 5


@pytest.mark.parametrize("names", [pytest.param(("a", "b"), marks=pytest.mark.slow), ODD_NAMES], ids=["plain", "odd"])
def test_pictures_of_any_class_names(tmp_path, names):
    table = make_table(
        [[(k, 0, 0, 50, 50)] for k in range(len(names))], names=names, category_ids=tuple(range(1, len(names) + 1))
    )
    found = make_found([(k, k, 0, 0, 50, 45 - k, 0.9) for k in range(len(names))])
    draw_precision_recall(tmp_path / "pr.png", coco_metrics(table, found))
    draw_confusion_matrix(tmp_path / "confusion.png", confusion_matrix(table, found), table.names)
    assert is_picture(tmp_path / "pr.png")
    assert is_picture(tmp_path / "confusion.png")
    assert "matplotlib.pyplot" not in sys.modules


def test_pictures_without_any_object(tmp_path):
    table, found = make_table([[]]), make_found([])
    draw_precision_recall(tmp_path / "pr.png", coco_metrics(table, found))
    draw_confusion_matrix(tmp_path / "confusion.png", confusion_matrix(table, found), table.names)
    assert is_picture(tmp_path / "pr.png")
    assert is_picture(tmp_path / "confusion.png")


def test_a_confusion_matrix_of_many_classes_stays_a_picture(tmp_path, monkeypatch):
    """130 classes would take 2 + 0.35 * 131 inches; names and counts cannot be read any more."""
    drawn = []
    monkeypatch.setattr(pictures, "save_figure", lambda figure, path: drawn.append(figure))
    draw_confusion_matrix(tmp_path / "confusion.png", np.eye(131, dtype=np.int64) * 7, tuple(map(str, range(130))))
    draw_confusion_matrix(tmp_path / "confusion.png", np.eye(4, dtype=np.int64) * 7, ("a", "b", "c"))
    (large, small) = drawn
    assert large.get_size_inches().tolist() == [30, 29]
    assert small.get_size_inches().tolist() == [6, 5]  # a side of 4 and the ten letters of background
    assert [len(figure.axes[0].texts) for figure in drawn] == [0, 4]
    assert len(small.axes[0].get_xticklabels()) == 4
    assert "129" not in [label.get_text() for label in large.axes[0].get_xticklabels()]


LONG_NAMES = ("x" * 300, "\U0010fffd" * 20, "$" * 30, "a class of many words", "b", "c")


def test_long_names_leave_the_matrix_and_the_curves_their_room(tmp_path, monkeypatch):
    """A name that no font has is ten characters of escape for each: it counts with these."""
    drawn = []
    monkeypatch.setattr(pictures, "save_figure", lambda figure, path: drawn.append(figure))
    table = make_table([[(k, 0, 0, 50, 50) for k in range(6)]], names=LONG_NAMES, category_ids=tuple(range(1, 7)))
    found = make_found([(0, k, 0, 0, 50, 45, 0.9) for k in range(6)])
    draw_precision_recall(tmp_path / "pr.png", coco_metrics(table, found))
    draw_confusion_matrix(tmp_path / "confusion.png", confusion_matrix(table, found), table.names)
    for figure in drawn:
        figure.draw_without_rendering()
        box = figure.axes[0].get_window_extent().transformed(figure.dpi_scale_trans.inverted())
        assert min(box.width, box.height) > 2.5, "inches"


def test_the_mean_curve_is_that_of_ap50(tmp_path):
    table, found = random_problem(2, num_images=10)
    metrics = coco_metrics(table, found)
    curves = metrics.precision[0]
    assert curves[:, curves[0] > -1].mean() == pytest.approx(metrics["AP50"])
