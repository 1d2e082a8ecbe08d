"""Whether an exported file computes what its checkpoint does: both run on the same inputs, of many sizes.

Letters: B images, H W pixels, P predictions of an image, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from detect.errors import InputError
from detect.export.wrappers import Wrapper, wrapped
from detect.models.classifier import ClassificationModel
from detect.models.model import Model

BOX_TOLERANCE_PX = 0.05
"""Largest difference of a centre, width or height. Rounding makes less than a thousandth in trained models; a fault of
the graph makes whole cells."""
BOX_TOLERANCE_SHARE = 1e-3
"""Or this share of the box's larger side, if that is more: sides grow with the square of what the network says, and so
does rounding (0.5 px of 1500 px in an untrained network, where PyTorch is as far from float64)."""
SCORE_TOLERANCE = 1e-3
"""Largest difference of a detector's probability."""
CLASS_TOLERANCE_SHARE = 1e-3
"""Largest difference of a class probability, as a share of the image's largest one: of a thousand classes each may have
a thousandth."""


class ExportError(RuntimeError):
    """The exported file does not compute what the model does, or cannot be run. It is not the user's mistake."""


@dataclass(frozen=True)
class Parity:
    """How far an exported file is from its model.

    Args:
        box_px: largest difference of a box's centre, width or height, in network-input pixels; None of a classifier.
        score: largest difference of a probability: of an object or a class.
        shapes: the compared inputs, (B, H, W) each.
        good: whether every difference is within tolerance; NaN never is.
    """

    box_px: float | None
    score: float
    shapes: tuple[tuple[int, int, int], ...]
    good: bool

    def line(self) -> str:
        """The differences in words."""
        start = f"largest difference from PyTorch on {len(self.shapes)} input shapes: "
        if self.box_px is None:
            allowed = f"{CLASS_TOLERANCE_SHARE:.1%} of the image's largest"
            return f"{start}probability {self.score:.2g} (at most {allowed})"
        return (
            f"{start}{self.box_px:.2g} px (at most {BOX_TOLERANCE_PX:g} px or {BOX_TOLERANCE_SHARE:.1%} of the box), "
            f"score {self.score:.2g} (at most {SCORE_TOLERANCE:g})"
        )


def compare_onnx(model: Model, path: Path, image_size: int) -> Parity:
    """Run a model in PyTorch and its export in ONNX Runtime, both on the CPU, and compare the outputs.

    Args:
        model: in evaluation mode, float32 on the CPU.
        path: the ONNX file.
        image_size: side in pixels that the model was trained with; one of the compared inputs has this size.

    Raises:
        ExportError: ONNX Runtime cannot load or run the file, or gives an output of another shape.
        InputError: ONNX Runtime is not installed.
    """
    session = _open_session(path)
    shapes = comparison_shapes(model.max_reduction, image_size)
    batches = [_noise(shape, seed=number) for number, shape in enumerate(shapes)]
    reference = wrapped(model)
    outputs = [_outputs(reference, session, images) for images in batches]
    # NumPy's max hands on NaN, which the built-in one may drop.
    if isinstance(model, ClassificationModel):
        score, good = zip(*(_compare_classes(*both) for both in outputs), strict=True)
        return Parity(None, float(np.max(score)), shapes, all(good))
    box_px, score, good = zip(*(_compare_boxes(*both) for both in outputs), strict=True)
    return Parity(float(np.max(box_px)), float(np.max(score)), shapes, all(good))


def _outputs(reference: Wrapper, session: Any, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What PyTorch and what ONNX Runtime give for images (B, 3, H, W)."""
    with torch.inference_mode():
        expected = reference(torch.from_numpy(images)).numpy()
    found = _run(session, images)
    if found.shape != expected.shape:
        raise ExportError(
            f"the exported graph gives {found.shape} for an input of {images.shape}, must be {expected.shape}"
        )
    return expected, found


def _compare_classes(expected: np.ndarray, found: np.ndarray) -> tuple[float, bool]:
    """Largest difference of probabilities (B, K), and whether all are within tolerance."""
    difference = np.abs(found - expected)
    good = difference <= CLASS_TOLERANCE_SHARE * expected.max(axis=1, keepdims=True)
    return difference.max(), bool(good.all())


def _compare_boxes(expected: np.ndarray, found: np.ndarray) -> tuple[float, float, bool]:
    """Largest difference of boxes and of scores (B, P, 5 + K), and whether all are within tolerance."""
    difference = np.abs(found - expected)
    sides = expected[..., 2:4].max(axis=-1, keepdims=True)
    boxes_good = difference[..., :4] <= np.maximum(BOX_TOLERANCE_PX, BOX_TOLERANCE_SHARE * sides)
    scores_good = difference[..., 4:] <= SCORE_TOLERANCE
    return difference[..., :4].max(), difference[..., 4:].max(), bool(boxes_good.all() and scores_good.all())


def comparison_shapes(multiple: int, image_size: int) -> tuple[tuple[int, int, int], ...]:
    """(B, H, W) of the compared inputs: a single cell, wide, tall, square, batches, and the size of the training.

    Args:
        multiple: of it all heights and widths are multiples.
        image_size: long side of the training.
    """
    in_cells = ((1, 1, 1), (2, 3, 2), (1, 2, 7), (3, 5, 1), (1, 4, 5), (5, 2, 2), (2, 6, 3))
    small = tuple((batch, multiple * rows, multiple * columns) for batch, rows, columns in in_cells)
    side = -(-image_size // multiple) * multiple
    return (*small, (1, side, side))


def _noise(shape: tuple[int, int, int], seed: int) -> np.ndarray:
    """(B, 3, H, W) float32 in [0, 1], as 8-bit images: blocks of noise, so that there is more than one scale in it."""
    batch, height, width = shape
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (batch, 3, -(-height // 8), -(-width // 8)))
    fine = rng.integers(-32, 33, (batch, 3, height, width))
    blocks = coarse.repeat(8, axis=2).repeat(8, axis=3)[:, :, :height, :width]
    return np.clip(blocks + fine, 0, 255).astype(np.float32) / np.float32(255)


def _open_session(path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError:
        hint = "pip install onnxruntime"
        raise InputError(f"onnxruntime is not installed, which checks the exported file: {hint}") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only; warnings about unused initialisers are not for the user
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except _runtime_errors() as error:
        raise ExportError(f"ONNX Runtime cannot load the exported graph: {_first_line(error)}") from None


def _run(session: Any, images: np.ndarray) -> np.ndarray:
    try:
        return session.run(None, {session.get_inputs()[0].name: images})[0]
    except _runtime_errors() as error:
        raise ExportError(f"ONNX Runtime fails on an input of {images.shape}: {_first_line(error)}") from None


def _runtime_errors() -> tuple[type[BaseException], ...]:
    """What ONNX Runtime raises; its exceptions have no base class of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NotImplemented", "RuntimeException")
    return tuple(getattr(state, name) for name in names)


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:200]
