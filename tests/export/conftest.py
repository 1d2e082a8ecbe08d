"""One export for all tests of this folder: it takes ten seconds."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from detect.export.onnx import export_onnx
from detect.models.build import build_model
from detect.models.checkpoint import load_checkpoint, save_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A yolov5n-spd that answers to its input, as a trained one does and a fresh one does not."""
    torch.manual_seed(0)
    model = build_model("yolov5n-spd", num_classes=3).train()
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    with torch.no_grad():
        for norm in norms:
            norm.weight.uniform_(0.5, 1.0)
            norm.bias.normal_(0, 0.1)
            norm.momentum = 1.0  # the statistics of one batch
        model(torch.rand(8, 3, 12, 12).repeat_interleave(8, dim=2).repeat_interleave(8, dim=3))
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
