"""Exported files of hand-made graphs, whose outputs are known; an export takes seconds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from detect.inference.runtimes.formats import ONNX

LEVEL = {"anchors_px": [[6.0, 4.0], [10.0, 12.0]], "xy_scale": 2.0, "sizes": "square"}
"""Two anchors (width, height)."""


def write_onnx(path: Path, nodes, constants, output: dict, *, fixed: bool = False, **facts: str) -> Path:
    """A file of one output ``out``, of images of any size, or of 64 px."""
    side = 64 if fixed else None
    graph = helper.make_graph(
        nodes,
        "hand-made",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [None, 3, side, side])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    metadata = {
        "format": ONNX.version,
        "model": "hand-made",
        "task": "detection",
        "names": '["a", "b", "c"]',
        "category_ids": "[1, 2, 3]",
        "image_size": "64",
        "stride": "8",
        "instance": "plain",
        "cost": "1.0",
        "preprocessing": "{}",
        "output": json.dumps(output),
    }
    helper.set_model_props(model, metadata | facts)
    onnx.save(model, path)
    return path


def write_classifier(path: Path, value_range: tuple[float, float] | None = None) -> Path:
    """Softmax of the means of red, green and blue; it sees 0.8 of the short side."""
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["means"], axes=[2, 3], keepdims=0),
        helper.make_node("Softmax", ["means"], ["out"], axis=1),
    ]
    preprocessing = json.dumps({"center_crop": 0.8, "value_range": value_range})
    return write_onnx(path, nodes, {}, {}, task="classification", preprocessing=preprocessing)


def write_detections(path: Path, rows: list[list[float]], *, fixed: bool = False) -> Path:
    """Suppression inside: each image has the ``rows`` (left, top, right, bottom, score, class)."""
    table = np.array(rows, np.float32)[None]
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["means"], axes=[1, 2, 3], keepdims=1),  # (N, 1, 1, 1)
        helper.make_node("Squeeze", ["means", "axis"], ["numbers"]),  # (N, 1, 1)
        helper.make_node("Mul", ["numbers", "zero"], ["zeros"]),
        helper.make_node("Add", ["zeros", "table"], ["out"]),
    ]
    constants = {"axis": np.array([3]), "zero": np.float32(0), "table": table}
    output = {"non_maximum_suppression": "applied", "max_detections": len(rows)}
    return write_onnx(path, nodes, constants, output, fixed=fixed)


def write_raw(path: Path, level: object = None, *, fixed: bool = False) -> Path:
    """Raw maps of zeros with cells of 8 px: sigmoids are 1/2, boxes have the size of their anchor."""
    channels = 2 * (5 + 3)
    nodes = [
        helper.make_node("AveragePool", ["images"], ["cells"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Conv", ["cells", "weights"], ["out"]),
    ]
    constants = {"weights": np.zeros((channels, 3, 1, 1), np.float32)}
    return write_onnx(path, nodes, constants, {"levels": [LEVEL if level is None else level]}, fixed=fixed)
