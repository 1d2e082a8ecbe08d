"""Detectors of every family, exported with and without suppression: what they find is what PyTorch finds."""

from __future__ import annotations

import copy

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from detect.boxes.nms import non_max_suppression
from detect.evaluation.postprocess import PredictSettings
from detect.exporting.comparison_inputs import comparison_images
from detect.exporting.onnx import export_onnx
from detect.exporting.options import ExportOptions
from detect.models.build import build_model
from detect.models.checkpoint import load_checkpoint, save_checkpoint
from tests.exporting.lively import enliven, soften_outputs

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
    "resnet18+fpn+spd",
    "yolox-nano",
    "resnet18+efm+anchor-free+spd",
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
    soften_outputs(model, 0.1)
    facts = {"names": ("a", "b", "c"), "category_ids": (1, 2, 3), "metrics": {}, "provenance": {}}
    save_checkpoint(folder / "best.pt", model, image_size=128, **facts)
    return load_checkpoint(folder / "best.pt")


def pictures(batch, height, width):
    """(B, 3, H, W) float32 of shapes."""
    image = np.tile(comparison_images()[7], (1, 2, 1))[:height, :width]
    stacked = np.stack([np.roll(image, 31 * number, axis=1) for number in range(batch)])
    return np.ascontiguousarray(stacked.transpose(0, 3, 1, 2), np.float32) / np.float32(255)


class Largest:
    """The largest difference of the best hundred predictions of any image."""

    def __init__(self):
        self.box_px = self.score = 0.0

    def add(self, expected, found):
        best = (expected[..., 4:5] * expected[..., 5:]).amax(dim=2).topk(100).indices
        for rows, one, other in zip(best, expected.numpy(), found, strict=True):
            self.box_px = max(self.box_px, np.abs(one[rows, :4] - other[rows, :4]).max())
            self.score = max(self.score, np.abs(one[rows, 4:] - other[rows, 4:]).max())

    @property
    def good(self):
        return self.box_px <= BOX_PX and self.score <= SCORE

    def __str__(self):
        return f"{self.box_px:.2g} px, score {self.score:.2g}"


def predicted(model, images):
    """(B, P, 5 + K) as PyTorch computes it."""
    with torch.inference_mode():
        return model.decode(model(torch.from_numpy(images)))


def from_float64(model, session):
    """How far PyTorch in float32 and the file are from float64. Untrained, some networks give boxes of 40,000 px, and
    the rounding of their many layers is more than a hundredth of a pixel in PyTorch, too.
    """
    exact, rounding, exported = copy.deepcopy(model).double(), Largest(), Largest()
    for shape in SHAPES:
        images = pictures(*shape)
        expected = predicted(exact, images.astype(np.float64))
        rounding.add(expected, predicted(model, images).numpy())
        exported.add(expected, session.run(None, {"images": images})[0])
    return rounding, exported


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
    largest = Largest()
    for shape in SHAPES:
        images = pictures(*shape)
        expected = predicted(checkpoint.model, images)
        (found,) = session.run(None, {"images": images})
        assert found.shape == expected.shape
        largest.add(expected, found)
        detections, counts = with_nms.run(None, {"images": images})
        kept = non_max_suppression(torch.from_numpy(found), 0.001, 0.6, 100, multi_label=False)
        for rows, count, (boxes, scores, labels) in zip(detections, counts, kept, strict=True):
            assert abs(int(count) - len(scores)) <= 1  # an IoU may be the threshold but for rounding
            if count == len(scores):
                np.testing.assert_allclose(rows[:count, 4], scores, atol=SCORE)
            assert len(boxes) == len(labels) > 0
    if largest.good:
        print(f"{name}: {largest}")  # pytest -s
    else:
        rounding, exported = from_float64(checkpoint.model, session)
        print(f"{name}: {largest}; from float64 {exported}, PyTorch itself {rounding}")
        assert exported.box_px <= max(BOX_PX, 2 * rounding.box_px)
        assert exported.score <= max(SCORE, 2 * rounding.score)
