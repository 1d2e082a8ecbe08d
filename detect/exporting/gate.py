"""The gate that every export passes, or leaves no file: what the file computes, and what is said of its use.

The first comparison gives PyTorch and ONNX Runtime the same tensors (``detect.exporting.parity``). The second starts
with images of odd shapes: PyTorch does what ``detect.Detector`` does, and the file is run by ``onnx_runner.py``, which
knows of it what it reads in it. So a wrong word in the metadata, or a wrong step in the program that users get, ends
the export as a wrong graph does.

Letters: B images, P predictions of an image, K classes, N detections.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch
from torch import Tensor

from detect.data.annotations import AnnotationTable
from detect.data.classification.geometry import center_crop
from detect.data.letterbox import letterbox, pad_batch
from detect.data.shapes import draw_scene
from detect.errors import InputError
from detect.evaluation.detection import DetectionOptions, evaluate_network
from detect.evaluation.forward import COCO_SETTINGS, PredictSettings, postprocess, run_classifier, run_network
from detect.evaluation.loop import Conditions
from detect.exporting.nms import with_predictions
from detect.exporting.options import ExportOptions
from detect.exporting.parity import (
    TOLERANCES,
    Difference,
    ExportError,
    Shape,
    Tolerance,
    compare_outputs,
    compare_tensors,
    first_line,
    run,
    worst,
)
from detect.inference.onnx_network import OnnxNetwork, runtime_errors
from detect.models.checkpoint import Checkpoint
from detect.structures import Letterbox

if TYPE_CHECKING:
    from detect.exporting.onnx_runner import OnnxModel  # it needs ONNX Runtime

IMAGE_SHAPES = ((97, 33), (33, 97), (61, 61), (120, 161), (213, 320), (480, 101), (375, 500), (719, 403))
"""(H, W) of the images: odd, smaller and larger than the network input, wide and tall."""

BATCHES = ((2, 0), (5, 3))
"""How many images of a shape go through the network together, and which one of ``IMAGE_SHAPES`` they have."""

CANDIDATES = 50
"""Of an image's predictions, so many enter the suppression that is compared, whatever their scores."""

MAX_UNMATCHED = 0.01
"""Share of the detections that may be there on one side only: where the IoU of two boxes is the threshold but for
rounding, the sides may decide differently."""

AP_TOLERANCES = {"fp32": 0.001, "fp16": 0.01}
"""Largest difference of AP, by the precision of the file."""

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Parity:
    """How far an exported file is from its model.

    Args:
        difference: the largest, of tensors and of images.
        tolerance: what was allowed.
        shapes: of the compared tensors, (B, H, W) each.
        images: how many were compared from reading to detections.
        detections: how many of them, by PyTorch; 0 of a classifier.
        unmatched: how many detections are there on one side only.
        ap: on a split, AP of the model in PyTorch, of the file, and how far apart they may be; None if there is no
            split.
    """

    difference: Difference
    tolerance: Tolerance
    shapes: list[Shape]
    images: int
    detections: int = 0
    unmatched: int = 0
    ap: tuple[float, float, float] | None = None

    @property
    def good(self) -> bool:
        """Whether every difference is within tolerance."""
        expected, found, allowed = self.ap or (0.0, 0.0, 0.0)
        same = self.unmatched <= MAX_UNMATCHED * self.detections
        return self.difference.good and same and abs(expected - found) <= allowed

    def line(self) -> str:
        """The differences in words."""
        start = f"largest difference from PyTorch on {len(self.shapes)} input shapes and {self.images} images: "
        tolerance, box_px, score = self.tolerance, self.difference.box_px, self.difference.score
        if box_px is None:
            return f"{start}probability {score:.2g} (at most {tolerance.score:.2%} of the image's largest)"
        same = self.detections - min(self.unmatched, self.detections)
        ap = ""
        if self.ap is not None:
            ap = f", AP {self.ap[1]:.4f} and in PyTorch {self.ap[0]:.4f} (at most {self.ap[2]:g} apart)"
        return (
            f"{start}{box_px:.2g} px (at most {tolerance.box_px:g} px or {tolerance.box_share:.1%} of the box), "
            f"score {score:.2g} (at most {tolerance.score:g}), {same} of {self.detections} detections the same{ap}"
        )


def compare_onnx(
    checkpoint: Checkpoint, path: Path, options: ExportOptions, table: AnnotationTable | None = None
) -> Parity:
    """Compare an exported file with its checkpoint, both on the CPU.

    Args:
        checkpoint: its model is in evaluation mode, float32, and runs the instance that was exported.
        path: the ONNX file.
        options: what was asked for, with the image size resolved.
        table: a labelled split on which a detector's AP is compared too.

    Raises:
        ExportError: ONNX Runtime cannot load or run the file, or its outputs have other shapes, or it other classes.
        InputError: ONNX Runtime is not installed.
    """
    content = path.read_bytes()
    if options.suppression is not None:  # its predictions are compared too
        content = with_predictions(onnx.load_from_string(content)).SerializeToString()
    model, tolerance = checkpoint.model, TOLERANCES["fp16" if options.half else "fp32"]
    assert options.image_size is not None, "it is resolved"
    runner = _open(content)
    tensors, shapes = compare_tensors(model, runner, options.image_size, tolerance)
    if list(checkpoint.names) != runner.names:
        raise ExportError(f"the exported file's classes are {runner.names[:3]} ..., must be {checkpoint.names[:3]} ...")
    parity = _Images(checkpoint, runner, options, tolerance).compare(tensors, shapes)
    return parity if table is None else replace(parity, ap=_compare_ap(checkpoint, path, options, table))


def _compare_ap(
    checkpoint: Checkpoint, path: Path, options: ExportOptions, table: AnnotationTable
) -> tuple[float, float, float]:
    """AP by PyTorch, by the file, and how far apart they may be."""
    network = OnnxNetwork(path, CPU)
    measured = DetectionOptions(options.suppression or COCO_SETTINGS)

    def reference(images: Tensor) -> Tensor:
        padded = pad_batch(list(images.numpy()), shape_hw=network.padded_hw((images.shape[1], images.shape[2])))
        return run_network(checkpoint.detector, torch.from_numpy(padded), CPU)

    conditions = Conditions(network.image_size, batch_size=8, workers=0, device=CPU, names=checkpoint.names)
    found = [
        evaluate_network(forward, network.multiple, table, conditions, measured).metrics
        for forward in (reference, network.predictions)
    ]
    expected, exported = (metrics.values["AP"] if metrics else 0.0 for metrics in found)
    return expected, exported, AP_TOLERANCES["fp16" if options.half else "fp32"]


def _open(content: bytes) -> OnnxModel:
    try:
        from detect.exporting.onnx_runner import OnnxModel
    except ImportError:
        hint = "pip install onnxruntime"
        raise InputError(f"onnxruntime is not installed, which checks the exported file: {hint}") from None
    try:
        return OnnxModel(content)
    except runtime_errors() as error:
        raise ExportError(f"ONNX Runtime cannot load the exported graph: {first_line(error)}") from None


class _Images:
    """The second comparison."""

    def __init__(self, checkpoint: Checkpoint, runner: OnnxModel, options: ExportOptions, tolerance: Tolerance) -> None:
        assert options.image_size is not None, "it is resolved"
        self._checkpoint, self._runner, self._options, self._tolerance = checkpoint, runner, options, tolerance
        self._size: int = options.image_size
        self._detections = self._unmatched = 0

    def compare(self, tensors: Difference, shapes: list[Shape]) -> Parity:
        """All images, and with what the first comparison found the whole parity."""
        images = gate_images()
        batches = [[image] for image in images]
        if self._options.dynamic:
            batches += [[_variant(images[which], number) for number in range(count)] for count, which in BATCHES]
        classifies = self._checkpoint.model.definition.is_classifier
        step = self._compare_classes if classifies else self._compare_boxes
        difference = worst([tensors, *(step(batch) for batch in batches)])
        count = sum(len(batch) for batch in batches)
        return Parity(difference, self._tolerance, shapes, count, self._detections, self._unmatched)

    def _compare_classes(self, images: list[np.ndarray]) -> Difference:
        model, share = self._checkpoint.classifier, self._checkpoint.center_crop
        middles = np.stack([center_crop(image, self._size, share) for image in images])
        expected = run_classifier(model, torch.from_numpy(middles), CPU).softmax(dim=1).numpy()
        found = np.stack([self._runner.classify(_bgr(image)) for image in images])
        return compare_outputs(model, expected, found, self._tolerance)

    def _compare_boxes(self, images: list[np.ndarray]) -> Difference:
        model = self._checkpoint.detector
        placed = [letterbox(image, self._size) for image in images]
        fixed = None if self._options.dynamic else (self._size, self._size)
        batch = pad_batch([image for image, _ in placed], model.max_reduction, fixed)
        expected = run_network(model, torch.from_numpy(batch), CPU).numpy()
        tensor = self._runner.network_input([self._runner.scaled(_bgr(image))[0] for image in images])
        found = run(self._runner, tensor)
        difference = compare_outputs(model, expected, found, self._tolerance)
        if not difference.good:
            return difference
        for image, predictions, (_, placement) in zip(images, found, placed, strict=True):
            self._compare_detections(image, predictions, placement)
        return difference

    def _compare_detections(self, image: np.ndarray, predictions: np.ndarray, placement: Letterbox) -> None:
        """What the runner finds in an image, against what PyTorch makes of the same predictions (P, 5 + K)."""
        scores = np.sort((predictions[:, 4:5] * predictions[:, 5:]).max(axis=1))
        built_in = self._options.suppression or PredictSettings()
        settings = PredictSettings(
            float(scores[-min(CANDIDATES + 1, len(scores))]), built_in.iou_threshold, built_in.max_detections
        )
        (expected,) = postprocess(torch.from_numpy(predictions)[None], [placement], settings, self._checkpoint.names)
        found = self._runner.detect(
            _bgr(image), settings.score_threshold, settings.iou_threshold, settings.max_detections
        )
        rows = np.column_stack([expected.boxes_xyxy_px, expected.scores, expected.labels])
        self._detections += len(rows)
        self._unmatched += count_unmatched(rows, found) + count_unmatched(found, rows)


def gate_images() -> list[np.ndarray]:
    """Pictures of shapes, an image (H, W, 3) uint8 RGB for each of ``IMAGE_SHAPES``; always the same."""
    images = []
    for seed, (height, width) in enumerate(IMAGE_SHAPES):
        scene = draw_scene(max(height, width), np.random.default_rng(seed))[0]
        images.append(np.ascontiguousarray(scene[:height, :width]))
    return images


def count_unmatched(rows: np.ndarray, others: np.ndarray) -> int:
    """How many rows (N, 6), box, score and class, have no equal one, but for rounding, in ``others`` (n, 6)."""
    tolerance = np.array([0.01, 0.01, 0.01, 0.01, 1e-4, 0.1])
    same = (np.abs(rows[:, None] - others[None]) <= tolerance).all(axis=2)
    return int((~same.any(axis=1)).sum())


def _variant(image: np.ndarray, number: int) -> np.ndarray:
    """Another image of the same shape."""
    return np.ascontiguousarray(np.roll(image, 17 * number, axis=1))


def _bgr(image_rgb: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image_rgb[..., ::-1])
