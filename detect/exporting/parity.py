"""Whether an exported file computes what its checkpoint does: both get the same tensors, of many sizes.

Letters: B images, H W pixels, P predictions of an image, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from detect.exporting.wrappers import wrapped
from detect.inference.onnx_network import runtime_errors
from detect.models.model import ClassificationModel, Model

if TYPE_CHECKING:
    from detect.exporting.onnx_runner import OnnxModel  # it needs ONNX Runtime

Shape = tuple[int, int, int]
"""B, H, W."""


@dataclass(frozen=True)
class Tolerance:
    """The largest differences that rounding explains.

    Args:
        box_px: of a box's centre, width or height.
        box_share: or this share of the box's larger side, if that is more: sides grow with the square of what the
            network says, and so does rounding (0.5 px of 1500 px in an untrained network, where PyTorch is as far from
            float64).
        score: of a detector's probability; of a classifier's, as a share of the image's largest one: of a thousand
            classes each may have a thousandth.
    """

    box_px: float
    box_share: float
    score: float


TOLERANCES = {"fp32": Tolerance(0.01, 1e-3, 1e-4), "fp16": Tolerance(0.5, 0.03, 0.03)}
"""By the precision that the file's metadata name. In trained models rounding makes a hundredth of the first; a fault of
the graph makes whole cells."""


class ExportError(RuntimeError):
    """The exported file does not compute what the model does, or cannot be run. It is not the user's mistake."""


@dataclass(frozen=True)
class Difference:
    """How far outputs are from what they must be.

    Args:
        box_px: largest difference of a box's centre, width or height, in network-input pixels; None of a classifier.
        score: largest difference of a probability: of an object or a class.
        good: whether every difference is within tolerance; NaN never is.
    """

    box_px: float | None
    score: float
    good: bool


def worst(differences: Sequence[Difference]) -> Difference:
    """The largest of several differences of one model."""
    # NumPy's max hands on NaN, which the built-in one may drop.
    boxes = [difference.box_px for difference in differences if difference.box_px is not None]
    scores = [difference.score for difference in differences]
    return Difference(
        float(np.max(boxes)) if boxes else None,
        float(np.max(scores)),
        all(difference.good for difference in differences),
    )


def compare_tensors(
    model: Model, runner: OnnxModel, image_size: int, tolerance: Tolerance
) -> tuple[Difference, list[Shape]]:
    """Run a model in PyTorch and its export in ONNX Runtime, both on the CPU, and compare the outputs.

    Args:
        model: in evaluation mode, float32 on the CPU.
        runner: the file, with the output of ``wrapped(model)`` or what becomes that by the runner's decoding.
        image_size: side in pixels that the model was trained with; one of the compared inputs has this size, and all of
            them if the file takes no other.
        tolerance: what is good.

    Returns:
        The largest difference, and the shapes of the inputs.

    Raises:
        ExportError: ONNX Runtime cannot run the file, or gives an output of another shape.
    """
    shapes = comparison_shapes(model.max_reduction, image_size)
    if runner.fixed_hw:
        shapes = [(1, image_size, image_size)]
    reference = wrapped(model)
    differences = []
    for number, shape in enumerate(shapes):
        images = _noise(shape, seed=number)
        with torch.inference_mode():
            expected = reference(torch.from_numpy(images)).numpy()
        differences.append(compare_outputs(model, expected, run(runner, images), tolerance))
    return worst(differences), shapes


def compare_outputs(model: Model, expected: np.ndarray, found: np.ndarray, tolerance: Tolerance) -> Difference:
    """Compare predictions (B, P, 5 + K) of a detector or probabilities (B, K) of a classifier.

    Raises:
        ExportError: they have different shapes.
    """
    if found.shape != expected.shape:
        raise ExportError(f"the exported graph gives {found.shape}, must be {expected.shape}")
    difference = np.abs(found - expected)
    if isinstance(model, ClassificationModel):
        good = difference <= tolerance.score * expected.max(axis=1, keepdims=True)
        return Difference(None, float(difference.max()), bool(good.all()))
    sides = expected[..., 2:4].max(axis=-1, keepdims=True)
    boxes_good = difference[..., :4] <= np.maximum(tolerance.box_px, tolerance.box_share * sides)
    scores_good = difference[..., 4:] <= tolerance.score
    box_px, score = float(difference[..., :4].max()), float(difference[..., 4:].max())
    return Difference(box_px, score, bool(boxes_good.all() and scores_good.all()))


def comparison_shapes(multiple: int, image_size: int) -> list[Shape]:
    """(B, H, W) of the compared inputs: a single cell, wide, tall, square, batches, and the size of the training.

    Args:
        multiple: of it all heights and widths are multiples.
        image_size: long side of the training.
    """
    in_cells = ((1, 1, 1), (2, 3, 2), (1, 2, 7), (3, 5, 1), (1, 4, 5), (5, 2, 2), (2, 6, 3))
    small = [(batch, multiple * rows, multiple * columns) for batch, rows, columns in in_cells]
    side = -(-image_size // multiple) * multiple
    return [*small, (1, side, side)]


def _noise(shape: Shape, seed: int) -> np.ndarray:
    """(B, 3, H, W) float32 in [0, 1], as 8-bit images: blocks of noise, so that there is more than one scale in it."""
    batch, height, width = shape
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (batch, 3, -(-height // 8), -(-width // 8)))
    fine = rng.integers(-32, 33, (batch, 3, height, width))
    blocks = coarse.repeat(8, axis=2).repeat(8, axis=3)[:, :, :height, :width]
    return np.clip(blocks + fine, 0, 255).astype(np.float32) / np.float32(255)


# ------------------------------------------------------------------------------------------- ONNX Runtime


def run(runner: OnnxModel, images: np.ndarray) -> np.ndarray:
    """Predictions (B, P, 5 + K) or probabilities (B, K) for images (B, 3, H, W); a raw file's maps are decoded.

    Raises:
        ExportError: ONNX Runtime cannot compute them.
    """
    outputs = None if "levels" in runner.output else ["probabilities" if runner.is_classifier else "predictions"]
    try:
        return runner.decoded(runner.session.run(outputs, {"images": images}), images.shape[2:])
    except runtime_errors() as error:
        raise ExportError(f"ONNX Runtime fails on an input of {images.shape}: {first_line(error)}") from None


def first_line(error: BaseException) -> str:
    """What an error says first."""
    return str(error).strip().splitlines()[0][:200]
