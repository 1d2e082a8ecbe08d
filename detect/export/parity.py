"""Whether an exported file computes what the checkpoint does: both run on the same inputs, at sizes unlike the export's.

Letters: B images, H W pixels, P predictions of an image, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from detect.errors import InputError
from detect.models.detector import DetectionModel

BOX_TOLERANCE_PX = 0.05
"""Largest difference of a centre, width or height. Rounding gives a thousandth; a fault of the graph, half a cell."""
SCORE_TOLERANCE = 1e-3
"""Largest difference of a probability."""


class ExportError(RuntimeError):
    """The exported file does not compute what the model does, or cannot be run. It is not the user's mistake."""


@dataclass(frozen=True)
class Parity:
    """How far an exported file is from its model.

    Args:
        box_px: largest difference of a box's centre, width or height, in network-input pixels.
        score: largest difference of an objectness or class probability.
        shapes: the compared inputs, (B, H, W) each.
    """

    box_px: float
    score: float
    shapes: tuple[tuple[int, int, int], ...]

    @property
    def good(self) -> bool:
        """Whether both differences are within tolerance; NaN is not."""
        return self.box_px <= BOX_TOLERANCE_PX and self.score <= SCORE_TOLERANCE

    def line(self) -> str:
        """The differences in words."""
        return (
            f"largest difference from PyTorch on {len(self.shapes)} input shapes: "
            f"{self.box_px:.2g} px (at most {BOX_TOLERANCE_PX:g}), score {self.score:.2g} (at most {SCORE_TOLERANCE:g})"
        )


def compare_onnx(model: DetectionModel, path: Path, image_size: int) -> Parity:
    """Run a model in PyTorch and its export in ONNX Runtime, both on the CPU, and compare the predictions.

    Args:
        model: in evaluation mode, float32 on the CPU.
        path: the ONNX file.
        image_size: long side in pixels that the model was trained with; one of the compared inputs has this size.

    Raises:
        ExportError: ONNX Runtime cannot load or run the file, or gives another number of predictions.
        InputError: ONNX Runtime is not installed.
    """
    session = _open_session(path)
    shapes = comparison_shapes(model.max_reduction, image_size)
    box_px, score = 0.0, 0.0
    for number, shape in enumerate(shapes):
        images = _noise(shape, seed=number)
        with torch.inference_mode():
            expected = model.decode(model(torch.from_numpy(images))).numpy()
        found = _run(session, images)
        if found.shape != expected.shape:
            raise ExportError(f"{path.name}: gives {found.shape} for an input of {images.shape}, must be {expected.shape}")
        difference = np.abs(found - expected)
        # np.maximum hands on NaN, which the built-in max may drop.
        box_px = float(np.maximum(box_px, difference[..., :4].max()))
        score = float(np.maximum(score, difference[..., 4:].max()))
    return Parity(box_px, score, shapes)


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
        raise InputError("onnxruntime is not installed, which checks the exported file: pip install 'detect[export]'") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only; warnings about unused initialisers are not for the user
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except _runtime_errors() as error:
        raise ExportError(f"{path.name}: ONNX Runtime cannot load it: {_first_line(error)}") from None


def _run(session: Any, images: np.ndarray) -> np.ndarray:
    try:
        return session.run(None, {session.get_inputs()[0].name: images})[0]
    except _runtime_errors() as error:
        raise ExportError(f"ONNX Runtime fails on an input of {images.shape}: {_first_line(error)}") from None


def _runtime_errors() -> tuple[type[BaseException], ...]:
    """What ONNX Runtime raises; its exceptions have no base class of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return (state.Fail, state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf, state.NotImplemented, state.RuntimeException)


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:200]
