"""INT8 files of every kind of model, from the command to the file that a user runs.

The networks are untrained, and their own detections are the labels.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from detect.api.evaluation_request import choose_instance
from detect.api.exporting import ExportRequest, run_export
from detect.data.classification.table import ClassTable
from detect.data.shapes import draw_scene
from detect.exporting import int8
from detect.exporting.calibration import Calibration
from detect.exporting.int8 import export_int8
from detect.exporting.options import ExportOptions
from detect.exporting.quantizer import prediction_loss
from detect.inference.classifier import Classifier
from detect.inference.detector import Detector
from detect.inference.runtimes.onnx_runtime import OnnxNetwork
from detect.models.build import build_model
from detect.models.checkpoint import Checkpoint, load_checkpoint, rewrite_checkpoint
from tests.exporting import exports
from tests.exporting.lively import enliven, find_everywhere
from tests.models.yamls import write_model
from tests.papers.sdpoint import samples

pytestmark = pytest.mark.slow

IMAGES, OBJECTS = 24, 4
MAX_LOSS = 0.3
"""AP that these networks may lose: their scores are close together, so that rounding changes the order."""


def binary(folder: Path) -> Checkpoint:
    """A detector with binary weights."""
    torch.manual_seed(0)
    text = exports.DETECTOR.replace("backbone:", "conv: {kind: bdsc, p: 0.6}\nbackbone:")
    model = build_model(str(write_model(folder, text)), num_classes=2).train()
    enliven(model)
    find_everywhere(model)
    return Checkpoint(model.eval(), ("a", "b"), (1, 2), 96, {}, {}, None, 1.0, {})


def with_points(folder: Path, way: str) -> Checkpoint:
    """A detector with instances (SDPoint)."""
    checkpoint = samples.detector(folder, way=way)
    enliven(checkpoint.detector.train())
    find_everywhere(checkpoint.detector.eval())
    return replace(checkpoint, image_size=96)


def own_labels(folder: Path, predict) -> str:
    """A COCO data set whose boxes are what a network finds; both splits are the same."""
    images, annotations = [], []
    (folder / "images").mkdir()
    for number in range(IMAGES):
        rgb = draw_scene(96, np.random.default_rng(number))[0]
        cv2.imwrite(str(folder / "images" / f"{number}.png"), rgb[..., ::-1])
        images.append({"id": number, "file_name": f"{number}.png", "width": 96, "height": 96})
        found = predict(rgb)
        for box, label in zip(found.boxes_xyxy_px.tolist(), found.labels.tolist(), strict=True):
            left, top, right, bottom = box
            bbox = [left, top, right - left, bottom - top]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number, "category_id": label + 1, "bbox": bbox, "iscrowd": 0}
                | {"area": bbox[2] * bbox[3]}
            )
    categories = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    table = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "labels.json").write_text(json.dumps(table))
    split = {"images": "images", "annotations": "labels.json"}
    config = {"name": "own", "format": "coco", "root": str(folder), "splits": {"train": split, "val": split}}
    (folder / "data.yaml").write_text(json.dumps(config))
    return str(folder / "data.yaml")


@pytest.mark.parametrize(
    ("kind", "cost", "instance", "weights_only"),
    [
        ("binary", None, "plain", False),
        ("binary", None, "plain", True),
        ("restore", 0.7, "1@0.75", False),
        ("shrink", 0.7, "1@0.75", False),
        ("shrink", 0.7, "1@0.75", True),
    ],
)
def test_a_detector(tmp_path, monkeypatch, kind, cost, instance, weights_only):
    monkeypatch.setattr(int8, "MAX_LOSS", MAX_LOSS)
    weights, out = tmp_path / "model.pt", tmp_path / "int8.onnx"
    rewrite_checkpoint(weights, binary(tmp_path) if kind == "binary" else with_points(tmp_path, kind))
    network = Detector(load_checkpoint(weights), "cpu")
    if cost is not None:
        network.cost = cost
    data = own_labels(tmp_path, lambda image: network.predict(image, conf=0.0, max_det=OBJECTS))
    request = ExportRequest(weights, out, data=data, int8=True, cost=cost, weights_only=weights_only, threads=1)
    exported = run_export(request)
    result = exported.record["int8"]
    assert result["num_layers"] - len(result["float_layers"]) >= 2
    file = OnnxNetwork(out, "cpu")
    assert (file.instance, file.metadata["precision"]) == (instance, "int8 weights" if weights_only else "int8")
    image = draw_scene(96, np.random.default_rng(0))[0][None]
    found = file.predictions(image)
    assert prediction_loss(network._network.predictions(image).numpy(), found) < 0.01
    if cost is not None:  # it is not the plain network
        network.cost = 1.0
        plain = network._network.predictions(image).numpy()
        assert plain.shape != found.shape or prediction_loss(plain, found) > 0.1


def test_an_instance_of_a_classifier(tmp_path, monkeypatch):
    """Its own classes are the labels; the untrained network is nearly undecided."""
    monkeypatch.setattr(int8, "MAX_LOSS", 0.25)
    records = (samples.record(0, 1.0, 1000, 0.5, "top1"), samples.record(1, 0.5, 250, 0.3, "top1"))
    checkpoint = samples.classifier(tmp_path, records)
    enliven(checkpoint.model.train())
    checkpoint.model.eval()
    checkpoint, _ = choose_instance(checkpoint, 0.5)
    pixels = np.stack([draw_scene(32, np.random.default_rng(number))[0] for number in range(IMAGES)])
    labels = np.array([Classifier(checkpoint, "cpu").predict(image).label for image in pixels])
    table = ClassTable(np.array([b"x"] * IMAGES), labels, ("a", "b", "c"), pixels)
    options = ExportOptions(dynamic=False, int8=True)
    _, result = export_int8(checkpoint, tmp_path / "int8.onnx", options, Calibration(list(pixels)), table)
    assert result.expected["top1"] == 1
    assert result.found["top1"] >= 0.75
    assert OnnxNetwork(tmp_path / "int8.onnx", "cpu").instance == "1@0.5"
