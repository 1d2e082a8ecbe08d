"""``Detector`` and ``Classifier`` on an exported file: what they find with the checkpoint."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch

from detect.errors import InputError
from detect.evaluation.forward import PredictSettings
from detect.exporting.gate import count_unmatched, gate_images
from detect.exporting.onnx import export_onnx
from detect.exporting.options import ExportOptions
from detect.inference.classifier import Classifier
from detect.inference.detector import Detector
from detect.inference.run import open_predictor
from detect.models.build import build_classifier, build_model
from detect.models.checkpoint import load_checkpoint, save_checkpoint
from tests.models.yamls import TINY, write_model

SMALL = """\
name: small
backbone:
  - {name: stem, module: Conv, args: {out_channels: 8}}
  - {name: c5, module: Conv, args: {out_channels: 8, kernel_size: 3}}
head:
  - {name: classify, module: Classify}
"""

KINDS = {
    "predictions": ExportOptions(),
    "detections": ExportOptions(suppression=PredictSettings(0.1, 0.6, 300)),
    "raw": ExportOptions(raw=True),
    "one size": ExportOptions(dynamic=False),
    "raw of one size": ExportOptions(dynamic=False, raw=True),
    "detections of one size": ExportOptions(dynamic=False, suppression=PredictSettings(0.1, 0.6, 300)),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A tiny detector that finds something everywhere."""
    folder = tmp_path_factory.mktemp("onnx")
    torch.manual_seed(1)
    model = build_model(str(write_model(folder, TINY)), num_classes=3)
    with torch.no_grad():
        for conv in model.head.predict:
            conv.weight.mul_(4)
            conv.bias.view(model.head.anchors_px.shape[1], -1)[:, 4:] = 0
    path = folder / "best.pt"
    save_checkpoint(
        path, model, names=("a", "b", "c"), category_ids=(1, 2, 3), image_size=64, metrics={}, provenance={}
    )
    return load_checkpoint(path)


@pytest.fixture(scope="module", params=KINDS)
def exported(request, checkpoint, tmp_path_factory):
    """An exported file of each kind, and images for it: one that takes one size sees the whole square of padding, where
    the checkpoint pads to the next multiple only, so that they agree on squares.
    """
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    export_onnx(checkpoint, path, KINDS[request.param])
    images = gate_images()
    if not KINDS[request.param].dynamic:
        images = [image[:33, :33] for image in images]
    return path, [*images, images[0][:, ::-1]]  # the last two make a batch of one shape


@pytest.mark.parametrize("batch_size", [1, 9])
def test_the_same_detections(checkpoint, exported, batch_size):
    path, images = exported
    reference, model = Detector(checkpoint, "cpu"), Detector(path)
    assert (model.names, model.image_size, model.device.type, model.cost) == (("a", "b", "c"), 64, "cpu", 1.0)
    options = {"conf": 0.3, "batch_size": batch_size, "max_det": 50}
    expected, found = reference.predict(images, **options), model.predict(images, **options)
    assert sum(map(len, expected)) > 100
    for one, other in zip(expected, found, strict=True):
        assert len(one) == len(other)
        assert count_unmatched(rows(one), rows(other)) == 0  # equal scores may change places


def rows(found):
    """(N, 6): box, score, class."""
    return np.column_stack([found.boxes_xyxy_px, found.scores, found.labels])


def test_another_size(checkpoint, exported):
    path, images = exported
    model = Detector(path)
    if model.network_hw((33, 99)) == (64, 64):
        with pytest.raises(InputError, match=r"image size: .*model.onnx takes 64 only, found 96"):
            model.predict(images[0], image_size=96)
    else:
        assert model.network_hw((33, 99), 96) == (32, 96)
        with pytest.raises(InputError, match="image size: must be a multiple of 4"):
            model.predict(images[0], image_size=98)
        expected = Detector(checkpoint, "cpu").predict(images[0], image_size=96, conf=0.3)
        found = model.predict(images[0], image_size=96, conf=0.3)
        np.testing.assert_allclose(found.boxes_xyxy_px, expected.boxes_xyxy_px, atol=0.01)


def test_a_classifier(tmp_path):
    torch.manual_seed(0)
    model = build_classifier(str(write_model(tmp_path, SMALL)), num_classes=3)
    facts = {"names": ("a", "b", "c"), "category_ids": (0, 1, 2), "metrics": {}, "provenance": {}}
    save_checkpoint(tmp_path / "best.pt", model, image_size=32, center_crop=0.8, **facts)
    export_onnx(load_checkpoint(tmp_path / "best.pt"), tmp_path / "model.onnx")
    found = open_predictor(tmp_path / "model.onnx", "cpu", "fp32")
    assert isinstance(found, Classifier)
    assert (found.names, found.image_size, found.center_crop) == (("a", "b", "c"), 32, 0.8)
    images = gate_images()
    for expected, given in zip(
        Classifier(tmp_path / "best.pt", "cpu").predict(images), found.predict(images), strict=True
    ):
        np.testing.assert_allclose(given.probabilities, expected.probabilities, atol=1e-6)
    with pytest.raises(InputError, match=r"small is a classifier; use detect\.Classifier"):
        Detector(tmp_path / "model.onnx")


def test_what_an_exported_file_has_settled(exported):
    path, _ = exported
    with pytest.raises(InputError, match=r"the cost of an exported file is fixed; detect export --cost"):
        Detector(path).cost = 0.5
    with pytest.raises(InputError, match=r"model.onnx: has the number format that it was exported with"):
        Detector(path, precision="bf16")


@pytest.mark.parametrize(
    "level",
    [
        {"anchors_px": [[4, 4]], "xy_scale": 2, "sizes": "round"},
        {"anchors_px": [4, 4], "xy_scale": 2, "sizes": "square"},
        {"anchors_px": [[4, 4]], "sizes": "square"},
        {"anchors_px": [[4, "x"]], "xy_scale": 2, "sizes": "square"},
        7,
    ],
)
def test_levels_that_cannot_be_decoded(exported, tmp_path, level):
    path = tmp_path / "model.onnx"
    model = onnx.load(exported[0])
    entry = next(entry for entry in model.metadata_props if entry.key == "output")
    entry.value = json.dumps({"levels": [level]})
    onnx.save(model, path)
    with pytest.raises(InputError, match=r"model.onnx: its metadata are incomplete or damaged"):
        Detector(path)


def test_files_that_are_none(exported, tmp_path):
    path = tmp_path / "model.onnx"
    with pytest.raises(InputError, match=r"model.onnx: cannot be read: No such file"):
        Detector(path)
    path.write_bytes(exported[0].read_bytes()[:5000])
    with pytest.raises(InputError, match=r"model.onnx: is not an ONNX file, or is damaged"):
        Detector(path)
    model = onnx.load(exported[0])
    entries = {entry.key: entry for entry in model.metadata_props}
    entries["names"].value = "[not JSON"
    onnx.save(model, path)
    with pytest.raises(InputError, match=r"model.onnx: its metadata are incomplete or damaged"):
        Detector(path)
    del model.metadata_props[:]
    onnx.save(model, path)
    with pytest.raises(InputError, match=r"model.onnx: is not a file that detect export wrote"):
        Detector(path)
