"""The exports that the tests of this folder share: the largest takes ten seconds."""

from __future__ import annotations

import pytest
import torch

from detect.evaluation.forward import PredictSettings
from detect.exporting.onnx import export_onnx
from detect.exporting.options import ExportOptions
from detect.models.build import build_classifier, build_model
from detect.models.checkpoint import load_checkpoint, save_checkpoint
from tests.exporting.lively import enliven
from tests.models.yamls import write_model

CLASSIFIER = """\
name: tiny-classifier
scale: {channel_multiple: 1}
conv: {kind: bdsc, p: 0.6}
defaults: {downsample: spd}
backbone:
  - {name: stem, module: Conv, args: {out_channels: 6, kernel_size: 3}}
  - {name: down, module: Downsample, args: {out_channels: 5}}
  - {name: c5, module: ResidualStage, args: {out_channels: 24, halve: true, activation: relu}}
head:
  - {name: classify, module: Classify}
"""
"""Binary weights behind a space-to-depth, where a convolution takes pieces, and in a residual block. The 5 * 3 * 9
signs of ``down`` do not fill their last byte."""


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A yolov5n-spd that answers to its input, as a trained one does and a fresh one does not."""
    torch.manual_seed(0)
    model = build_model("yolov5n-spd", num_classes=3).train()
    enliven(model)
    with torch.no_grad():
        for conv in model.head.predict:
            conv.weight.mul_(0.2)
            conv.bias.view(3, -1)[:, 4:] = 0  # objects everywhere
    path = tmp_path_factory.mktemp("checkpoint") / "model.pt"
    names, ids = ("cat", "dög", 'a "b"'), (3, 9, 90)
    save_checkpoint(path, model, names=names, category_ids=ids, image_size=96, metrics={}, provenance={})
    return load_checkpoint(path)


@pytest.fixture(scope="session")
def exported(checkpoint, tmp_path_factory):
    """The exported file, and what the export said about it."""
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    return path, export_onnx(checkpoint, path)


@pytest.fixture(scope="session")
def suppressed(checkpoint, tmp_path_factory):
    """A file with non-maximum suppression in it, and the options that it was made with."""
    path = tmp_path_factory.mktemp("suppressed") / "model.onnx"
    options = ExportOptions(image_size=96, suppression=PredictSettings(0.2, 0.5, 40))
    export_onnx(checkpoint, path, options)
    return path, options


@pytest.fixture(scope="session")
def raw(checkpoint, tmp_path_factory):
    """A file that gives what the head says."""
    path = tmp_path_factory.mktemp("raw") / "model.onnx"
    export_onnx(checkpoint, path, ExportOptions(image_size=96, raw=True))
    return path


@pytest.fixture(scope="session")
def classifier(tmp_path_factory):
    """A small classifier with binary weights and with norms as after a training; some of their factors are negative."""
    folder = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(0)
    model = build_classifier(str(write_model(folder, CLASSIFIER)), num_classes=3).train()
    model.normalise_by((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
    enliven(model, negative=0.3)
    names, facts = ("cat", "dög", 'a "b"'), {"metrics": {}, "provenance": {}, "training": {}}
    path = folder / "model.pt"
    save_checkpoint(path, model, names=names, category_ids=(0, 1, 2), image_size=32, center_crop=0.8, **facts)
    return load_checkpoint(path)


@pytest.fixture(scope="session")
def folded(classifier, tmp_path_factory):
    """The classifier's file, its binary weights written out, and what the export said about it."""
    path = tmp_path_factory.mktemp("folded") / "model.onnx"
    return path, export_onnx(classifier, path)


@pytest.fixture(scope="session")
def packed(classifier, tmp_path_factory):
    """The classifier's file with a bit for each binary weight, and what the export said about it."""
    path = tmp_path_factory.mktemp("packed") / "model.onnx"
    return path, export_onnx(classifier, path, ExportOptions(masks="packed"))
