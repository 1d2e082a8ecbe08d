"""Non-maximum suppression inside the graph: what ``detect.boxes.nms`` finds, in every supported operator set."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper

from detect.boxes.nms import non_max_suppression
from detect.evaluation.postprocess import PredictSettings
from detect.exporting.onnx_graph import append_suppression, with_predictions
from detect.exporting.options import OPSETS


def passing_on(opset, columns):
    """A network whose predictions are its input."""
    values = [helper.make_tensor_value_info(n, 1, ["batch", "P", columns]) for n in ("images", "predictions")]
    node = helper.make_node("Identity", ["images"], ["predictions"])
    graph = helper.make_graph([node], "network", values[:1], values[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def run(model, predictions):
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": predictions})


def random_predictions(batch, count, classes, seed=0):
    """Boxes of 8 to 48 px in 600 x 600 px, so that many overlap."""
    predictions = np.random.default_rng(seed).random((batch, count, 5 + classes), dtype=np.float32)
    predictions[..., :2] *= 600
    predictions[..., 2:4] = predictions[..., 2:4] * 40 + 8
    return predictions


CASES = ((1, 1000, 0.25), (3, 500, 0.25), (2, 500, 0.9999), (5, 63, 0.1), (2, 1, 0.0))
"""Images, predictions and score threshold."""


@pytest.mark.parametrize(
    ("opset", "batch", "count", "score"),
    [*((18, *case) for case in CASES), *((opset, 5, 63, 0.1) for opset in OPSETS if opset != 18)],
)
def test_the_same_detections(opset, batch, count, score):
    predictions = random_predictions(batch, count, classes=7)
    settings = PredictSettings(score, 0.6, 300)
    detections, counts = run(append_suppression(passing_on(opset, 12), settings), predictions)
    assert detections.shape == (batch, 300, 6)
    expected = non_max_suppression(torch.from_numpy(predictions), score, 0.6, 300, multi_label=False)
    for rows, found, (boxes, scores, labels) in zip(detections, counts, expected, strict=True):
        assert found == len(scores)
        np.testing.assert_allclose(rows[:found], np.column_stack([boxes, scores, labels]), atol=1e-3)
        assert (rows[found:] == 0).all()


def test_by_hand():
    """Two boxes of 10 x 10 px a pixel apart share 90 of 110 px: IoU 0.82. A third is of another class."""
    first, second, third = [50, 50, 10, 10, 0.9, 1, 0], [51, 50, 10, 10, 0.8, 1, 0], [50, 50, 10, 10, 0.7, 0, 1]
    model = passing_on(18, 7)
    predictions = np.array([[second, third, first]], np.float32)
    detections, counts = run(append_suppression(model, PredictSettings(0.25, 0.8, 5)), predictions)
    assert counts.tolist() == [2]
    np.testing.assert_allclose(detections[0, :2], [[45, 45, 55, 55, 0.9, 0], [45, 45, 55, 55, 0.7, 1]], rtol=1e-6)
    _, counts = run(append_suppression(model, PredictSettings(0.25, 0.83, 5)), predictions)
    assert counts.tolist() == [3]
    detections, counts = run(append_suppression(model, PredictSettings(0.25, 0.83, 1)), predictions)
    assert (counts.tolist(), detections[0, 0, 4].round(3)) == ([1], 0.9)


def test_with_predictions():
    """All scores above 0 count, and the predictions are an output too."""
    model = append_suppression(passing_on(18, 7), PredictSettings(0.9, 0.6, 5))
    predictions = random_predictions(1, 3, classes=2)
    detections, counts, given = run(with_predictions(model), predictions)
    assert (given == predictions).all()
    assert counts.tolist() == [3]
    assert (detections[0, :3, 4] > 0).all()
    assert len(model.graph.output) == 2  # the model itself has not changed
