"""Images by the least cost that gets them right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detect.data.annotations import encode_paths
from detect.data.classification.table import ClassTable
from detect.data.images import read_image, write_image
from detect.drawing.sheets import GAP_PX, LINE_PX, PANEL_PX, sheet_width
from detect.evaluation.outputs import EvaluationOutputs
from detect.inference import timing
from detect.models.checkpoint import load_checkpoint, rewrite_checkpoint
from detect.papers.sdpoint.comparison import Comparison
from detect.papers.sdpoint.difficulty import draw_least_costs, least_costs
from detect.papers.sdpoint.report import InstanceReport
from detect.papers.sdpoint.transform import Instance
from tests.papers.sdpoint.samples import classifier, comparison
from tests.papers.sdpoint.test_metrics import ALONE, classes

CHEAP, MIDDLE, BEST = Instance(1, 0.5), Instance(1, 0.75), Instance(2, 0.75)
"""The front of the samples: 0.25, 0.6 and 0.9 of the full cost."""


def of_five_images() -> Comparison:
    """Image 0 is right at every cost, 1 at the two upper ones, 2 at the top one, 3 at the lowest alone, 4 never."""
    is_right = {
        CHEAP: np.array([True, False, False, True, False]),
        MIDDLE: np.array([True, True, False, False, False]),
        BEST: np.array([True, True, True, False, False]),
        Instance(2, 0.5): np.array([True] * 5),  # is not on the front
    }
    return comparison(is_right=is_right)


def test_groups() -> None:
    """Image 3, which the best network has wrong, is in none."""
    found = [(record.instance, rows.tolist()) for record, rows in least_costs(of_five_images())]
    assert found == [(CHEAP, [0]), (MIDDLE, [1]), (BEST, [2])]


def test_sheet(tmp_path: Path) -> None:
    """A heading for each of three groups, and a row of images for those two that can be read."""
    paths = [tmp_path / f"{row}.png" for row in range(5)]
    for path in paths[1:]:
        write_image(path, np.zeros((20, 30, 3), np.uint8))
    table = ClassTable(encode_paths(paths), np.zeros(5, np.int64), ("a",))
    draw_least_costs(tmp_path / "sheet.png", of_five_images(), table, 1.0)
    row = PANEL_PX + 2 * LINE_PX + 2 * GAP_PX
    assert read_image(tmp_path / "sheet.png").shape == (3 * 2 * LINE_PX + 2 * row, sheet_width(8), 3)


@pytest.mark.slow
def test_the_report_of_a_classifier_has_the_sheet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "MAX_ROUNDS", 1)
    weights = tmp_path / "model.pt"
    rewrite_checkpoint(weights, classifier(tmp_path))
    report = InstanceReport(weights, load_checkpoint(weights), None)
    about = {"data": "x", "split": "val", "image_size": 32, "precision": "fp32", "device": "cpu"}
    outputs = EvaluationOutputs(pictures=tmp_path / "out")
    *_, last = report.run(classes(tmp_path), ALONE, outputs, about, title="x")
    assert last == f"images by the least cost that gets them right: {tmp_path / 'out/least_costs.jpg'}"
    assert read_image(tmp_path / "out/least_costs.jpg").shape[1] == sheet_width(8)
