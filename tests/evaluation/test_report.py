from __future__ import annotations

import numpy as np
import pytest

from detect.drawing.text import columns
from detect.evaluation.coco import ABSENT, METRICS, CocoMetrics, coco_metrics
from detect.evaluation.detection import Evaluation
from detect.evaluation.postprocess import COCO_SETTINGS
from detect.evaluation.report import coco_table, metrics_record, speed_line
from tests.evaluation.synthetic import make_found, make_table


def evaluation(names=("a", "b")) -> Evaluation:
    table = make_table([[(0, 10, 10, 50, 50)], []], names=names)
    found = make_found([(0, 0, 10, 10, 50, 50, 0.5)])
    speed = {"preprocess": 1.23456, "network": 20.0, "postprocess": 0.5}
    return Evaluation(coco_metrics(table, found), found, table, COCO_SETTINGS, speed)


def test_table_shows_every_number_and_explains_minus_one():
    lines = coco_table(evaluation().metrics).splitlines()
    assert lines[0] == "COCO metrics"
    assert [line.split()[0] for line in lines[1:13]] == list(METRICS)
    assert lines[1].startswith("  AP      1.000   precision, IoU 0.50:0.95, all objects")
    assert lines[4].startswith("  AP_S       -1   precision, IoU 0.50:0.95, small objects")
    assert lines[14].split() == ["class", "AP", "AP50", "AP_S", "AP_M", "AP_L", "AR_100", "objects"]
    assert lines[15].split() == ["a", "1.000", "1.000", "-1", "1.000", "-1", "1.000", "1"]
    assert lines[16] == "classes without objects in the split, not shown: 1"
    assert lines[-1] == "-1: there is no such object in the ground truth"


def test_table_does_not_explain_what_does_not_occur():
    values = dict.fromkeys(METRICS, 0.5)
    per_class = {"a": {**dict.fromkeys(("AP", "AP50", "AP_S", "AP_M", "AP_L", "AR_100"), 0.5), "objects": 3}}
    assert "-1" not in coco_table(CocoMetrics(values, per_class, np.zeros((10, 101, 1))))


@pytest.mark.parametrize("name", ["猫" * 8, "x" * 200, "new\nline", "$\\alpha$"])
def test_table_stays_aligned(name):
    lines = coco_table(evaluation((name, "b")).metrics).splitlines()
    assert len(lines) == 19
    assert columns(lines[14]) == columns(lines[15])


def test_metrics_json():
    found = metrics_record(evaluation(("猫", "b")), {"weights": "w.pt", "split": "val"})
    assert list(found)[:12] == list(METRICS)
    assert found["AP"] == pytest.approx(1)
    assert found["AP_S"] == ABSENT
    assert found["per_class"]["猫"]["objects"] == 1
    assert found["per_class"]["b"]["AP"] == ABSENT
    assert found["images"] == 2
    assert found["detections"] == 1
    assert found["speed_ms"] == {"preprocess": 1.235, "network": 20.0, "postprocess": 0.5}
    assert found["weights"] == "w.pt"


def test_speed_line():
    assert speed_line({"network": 1.25, "postprocess": 0.5}) == "ms per image: network 1.2, postprocess 0.5"
