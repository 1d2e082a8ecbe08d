from __future__ import annotations

import numpy as np

from detect.evaluation.confusion import confusion_matrix, match
from tests.evaluation.synthetic import make_found, make_table, random_problem


def test_nothing_anywhere():
    assert confusion_matrix(make_table([]), make_found([])).tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert confusion_matrix(make_table([[]]), make_found([])).sum() == 0


def test_missed_objects_are_in_the_last_column():
    matrix = confusion_matrix(make_table([[(0, 0, 0, 9, 9), (1, 20, 20, 30, 30), (1, 50, 50, 60, 60)]]), make_found([]))
    assert matrix.tolist() == [[0, 0, 1], [0, 0, 2], [0, 0, 0]]


def test_detections_of_nothing_are_in_the_last_row():
    matrix = confusion_matrix(make_table([[]]), make_found([(0, 1, 0, 0, 9, 9, 0.9)]))
    assert matrix.tolist() == [[0, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_right_and_confused():
    table = make_table([[(0, 0, 0, 10, 10)], [(0, 0, 0, 10, 10)]])
    found = make_found([(0, 0, 0, 0, 10, 10, 0.9), (1, 1, 0, 0, 10, 10, 0.9)])
    assert confusion_matrix(table, found).tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 0]]


def test_low_scores_and_small_overlaps_do_not_count():
    # IoU of 10 x 10 and its left 4 x 10 is 0.4: a detection of nothing, and a missed object. The exact one scores below
    # 0.25.
    table = make_table([[(0, 0, 0, 10, 10)]])
    found = make_found([(0, 0, 0, 0, 4, 10, 0.9), (0, 0, 0, 0, 10, 10, 0.24)])
    assert confusion_matrix(table, found).tolist() == [[0, 0, 1], [0, 0, 0], [1, 0, 0]]


def test_the_better_score_takes_the_object():
    table = make_table([[(0, 0, 0, 10, 10)]])
    found = make_found([(0, 1, 0, 0, 10, 9, 0.9), (0, 0, 0, 0, 10, 10, 0.5)])
    assert confusion_matrix(table, found).tolist() == [[0, 1, 0], [0, 0, 0], [1, 0, 0]]


def test_crowds_hide_what_lies_in_them():
    table = make_table([[(0, 0, 0, 100, 100, True), (1, 200, 200, 210, 210)]])
    found = make_found([(0, 0, 10, 10, 20, 20, 0.9), (0, 0, 95, 10, 105, 20, 0.8), (0, 0, 96, 30, 106, 40, 0.7)])
    # The second lies by exactly half in the crowd, the third by 40 %.
    assert confusion_matrix(table, found).tolist() == [[0, 0, 0], [0, 0, 1], [1, 0, 0]]


def test_match_takes_the_free_object_of_largest_overlap():
    objects = np.array([[0, 0, 10, 10], [0, 0, 10, 12]], dtype=float)
    found = np.array([[0, 0, 10, 11.5], [0, 0, 10, 12], [0, 0, 10, 12]], dtype=float)
    # 11.5 high: IoU 10 / 11.5 = 0.87 with the first and 11.5 / 12 = 0.96 with the second object.
    assert match(found, objects).tolist() == [1, 0, -1]


def test_every_object_and_every_detection_is_counted_once():
    table, found = random_problem(1)
    matrix = confusion_matrix(table, found)
    objects = np.bincount(table.labels[~table.is_crowd], minlength=len(table.names))
    assert matrix[:-1].sum(axis=1).tolist() == objects.tolist()
    assert 0 < matrix[:, :-1].sum() <= (found.scores >= 0.25).sum()
