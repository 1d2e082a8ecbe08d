"""Detectors of every family, exported with and without suppression: what they find is what PyTorch finds."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from detect.boxes.nms import non_max_suppression
from detect.evaluation.predict import PredictSettings
from detect.export.gate import gate_images
from detect.export.onnx import export_onnx
from detect.export.options import ExportOptions
from detect.models.build import build_model
from detect.models.checkpoint import load_checkpoint, save_checkpoint
from tests.export.lively import enliven

FAMILIES = (
    "yolov5n",
    "yolov5n-spd",
    "yolov5n-spd+bdsc",
    "yolov3-tiny",
    "yolov3-tiny-prn",
    "csppeleenet-efm",
    "csppeleenet-gfm",
    "csppeleenet-cem-sam",
    "csppeleenet-panet",
    "peleenet-fpn",
    "cspdensenet-reference-b-prn",
    "cspresnet50-panet-spp",
    "cspresnext50-panet-spp",
    "yolov3-spp",
    "yolov4",
    "resnet18-spd+fpn",
)

SHAPES = ((1, 320, 640), (2, 640, 640), (5, 416, 608))
BOX_PX, SCORE = 0.01, 1e-4
SETTINGS = PredictSettings(0.001, 0.6, 100)


def make_checkpoint(folder, name):
    """The family's network with norms as after a training; its head says little, as one does that is not trained."""
    torch.manual_seed(0)
    model = build_model(name, num_classes=3).train()
    enliven(model)
    with torch.no_grad():
        # Channels that hardly vary would be multiplied by hundreds, and rounding with them, in PyTorch as well.
        for norm in (layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)):
            norm.running_var.clamp_(min=0.05)
        for conv in model.head.predict:
            conv.weight.mul_(0.1)
            conv.bias.view(model.head.anchors_px.shape[1], -1)[:, 4:] = 0
    facts = {"names": ("a", "b", "c"), "category_ids": (1, 2, 3), "metrics": {}, "provenance": {}}
    save_checkpoint(folder / "best.pt", model, image_size=128, **facts)
    return load_checkpoint(folder / "best.pt")


def pictures(batch, height, width):
    """(B, 3, H, W) float32 of shapes."""
    image = np.tile(gate_images()[7], (1, 2, 1))[:height, :width]
    stacked = np.stack([np.roll(image, 31 * number, axis=1) for number in range(batch)])
    return np.ascontiguousarray(stacked.transpose(0, 3, 1, 2), np.float32) / np.float32(255)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_family(tmp_path, name):
    checkpoint = make_checkpoint(tmp_path, name)
    path, suppressed = tmp_path / "model.onnx", tmp_path / "nms.onnx"
    assert export_onnx(checkpoint, path).good
    assert export_onnx(checkpoint, suppressed, ExportOptions(suppression=SETTINGS)).good
    session, with_nms = (
        onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]) for file in (path, suppressed)
    )
    box_px = score = 0.0
    for shape in SHAPES:
        images = pictures(*shape)
        with torch.inference_mode():
            expected = checkpoint.model.decode(checkpoint.model(torch.from_numpy(images)))
        (found,) = session.run(None, {"images": images})
        assert found.shape == expected.shape
        best = (expected[..., 4:5] * expected[..., 5:]).amax(dim=2).topk(100).indices
        for rows, one, other in zip(best, expected.numpy(), found, strict=True):
            box_px = max(box_px, np.abs(one[rows, :4] - other[rows, :4]).max())
            score = max(score, np.abs(one[rows, 4:] - other[rows, 4:]).max())
        detections, counts = with_nms.run(None, {"images": images})
        kept = non_max_suppression(torch.from_numpy(found), 0.001, 0.6, 100, multi_label=False)
        for rows, count, (boxes, scores, labels) in zip(detections, counts, kept, strict=True):
            assert abs(int(count) - len(scores)) <= 1  # an IoU may be the threshold but for rounding
            if count == len(scores):
                np.testing.assert_allclose(rows[:count, 4], scores, atol=SCORE)
            assert len(boxes) == len(labels) > 0
    print(f"{name}: {box_px:.2g} px, score {score:.2g}")  # pytest -s
    assert box_px <= BOX_PX
    assert score <= SCORE
