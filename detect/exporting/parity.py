"""Comparison of an exported file with its model: every export passes it, or leaves no file.

The first part gives PyTorch and ONNX Runtime the same tensors, of many sizes. The second starts from images of odd
shapes: PyTorch does what ``detect.Detector`` does, and ``onnx_runner.py`` runs the file with what it reads in its
metadata. A wrong entry in the metadata, or a wrong step in the program that users get, fails the export as a wrong
graph does.

Letters: B images, H W pixels, P predictions of an image, K classes, N detections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx
import torch

from detect.data.annotations import AnnotationTable
from detect.data.classification.geometry import center_crop
from detect.data.letterbox import letterbox, pad_batch
from detect.errors import InputError
from detect.evaluation.forward import run_classifier, run_network
from detect.evaluation.postprocess import PredictSettings, postprocess
from detect.exporting.accuracy import compare_ap
from detect.exporting.comparison_inputs import Shape, comparison_batches, comparison_shapes, noise
from detect.exporting.onnx_graph import with_predictions
from detect.exporting.options import ExportOptions
from detect.exporting.wrappers import wrapped
from detect.inference.runtimes.exported import ExportedNetwork, Session
from detect.inference.runtimes.formats import ONNX, Format
from detect.inference.runtimes.onnx_runtime import runtime_errors
from detect.models.checkpoint import Checkpoint
from detect.models.model import ClassificationModel, Model
from detect.structures import Letterbox

if TYPE_CHECKING:
    from detect.exporting.onnx_runner import OnnxModel  # it needs ONNX Runtime

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Tolerance:
    """The largest differences that rounding explains.

    Args:
        box_px: of a box's centre, width or height.
        box_share: or this share of the box's larger side, if that is more: sides grow with the square of the network's
            output, and rounding with them (0.5 px of 1500 px in an untrained network, where PyTorch is as far from
            float64).
        score: of a detector's probability; of a classifier's, as a share of the image's largest one: of a thousand
            classes each may have a thousandth.
        unlikely_share: share of a tensor's predictions whose boxes may differ by more where the score is below
            ``UNLIKELY_SCORE``: the box of a cell without an object may hang on a difference of large numbers.
    """

    box_px: float
    box_share: float
    score: float
    unlikely_share: float = 0.0


TOLERANCES = {"fp32": Tolerance(0.01, 1e-3, 1e-4), "fp16": Tolerance(0.5, 0.03, 0.03, 1e-4)}
"""By the precision in the file's metadata. In trained models rounding makes a hundredth of the first; a fault of the
graph makes whole cells."""

UNLIKELY_SCORE = 1e-3
"""Score below which nothing in the toolkit takes a prediction, not even an evaluation."""

MAX_UNMATCHED = 0.01
"""Share of the detections that only one side may have: where the IoU of two boxes is the threshold but for rounding,
the sides may decide differently."""

CANDIDATES = 50
"""Predictions of an image, the best ones, that enter the compared suppression, whatever their scores."""


class ExportError(RuntimeError):
    """The exported file does not compute what the model does, or cannot be run. It is not the user's mistake."""


@dataclass(frozen=True)
class Difference:
    """Distance of outputs from the expected ones.

    Args:
        box_px: largest difference of a box's centre, width or height, in network-input pixels; None of a classifier.
        score: largest difference of a probability: of an object or a class.
        good: every difference is within tolerance; NaN never is.
        unlikely: number of boxes that differ by more and are not counted, see ``Tolerance``.
    """

    box_px: float | None
    score: float
    good: bool
    unlikely: int = 0


@dataclass(frozen=True)
class Parity:
    """Distance of an exported file from its model.

    Args:
        difference: the largest, of tensors and of images.
        tolerance: the allowed difference.
        shapes: of the compared tensors, (B, H, W) each.
        images: number of images that were compared from reading to detections.
        detections: number of detections in them, by PyTorch; 0 of a classifier.
        unmatched: number of detections that only one side has.
        ap: on a split, AP of the model in PyTorch, AP of the file, and their largest allowed difference; None without
            a split.
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
        """True where every difference is within tolerance."""
        expected, found, allowed = self.ap or (0.0, 0.0, 0.0)
        same = self.unmatched <= MAX_UNMATCHED * self.detections
        return self.difference.good and same and abs(expected - found) <= allowed

    def line(self) -> str:
        """The differences as text."""
        start = f"largest difference from PyTorch on {len(self.shapes)} input shapes and {self.images} images: "
        tolerance, box_px, score = self.tolerance, self.difference.box_px, self.difference.score
        unlikely = self.difference.unlikely
        if box_px is None:
            return f"{start}probability {score:.2g} (at most {tolerance.score:.2%} of the image's largest)"
        same = self.detections - min(self.unmatched, self.detections)
        ap = ""
        if self.ap is not None:
            ap = f", AP {self.ap[1]:.4f} and in PyTorch {self.ap[0]:.4f} (at most {self.ap[2]:g} apart)"
        more = f"; not counted, as their scores are below {UNLIKELY_SCORE:g}: {unlikely}" if unlikely else ""
        return (
            f"{start}{box_px:.2g} px (at most {tolerance.box_px:g} px or {tolerance.box_share:.1%} of the box{more}), "
            f"score {score:.2g} (at most {tolerance.score:g}), {same} of {self.detections} detections the same{ap}"
        )


def compare_file(
    checkpoint: Checkpoint, path: Path, options: ExportOptions, table: AnnotationTable | None = None
) -> Parity:
    """Compare an exported file with its checkpoint, both on the CPU; on ``table``, a labelled split, also by AP.

    The checkpoint's model is in evaluation mode, float32, and runs the instance that was exported; the image size of
    the options is resolved.

    Raises:
        ExportError: the runtime cannot load or run the file, or its outputs have other shapes, or it other classes.
        InputError: ONNX Runtime is not installed.
    """
    model, tolerance = checkpoint.model, TOLERANCES["fp16" if options.half else "fp32"]
    assert options.image_size is not None, "it is resolved"
    runner = open_file(path, options)
    tensors, shapes = _compare_tensors(model, runner, options.image_size, tolerance)
    if list(checkpoint.names) != runner.names:
        raise ExportError(f"the exported file's classes are {runner.names[:3]} ..., must be {checkpoint.names[:3]} ...")
    parity = _ImageComparison(checkpoint, runner, options, tolerance).compare(tensors, shapes)
    return parity if table is None else replace(parity, ap=compare_ap(checkpoint, path, options, table))


def open_file(exported: Path | onnx.ModelProto, options: ExportOptions) -> OnnxModel:
    """Open an exported file in the program that users get; of one with suppression the predictions are outputs too.

    Raises:
        ExportError: ONNX Runtime cannot load it.
        InputError: ONNX Runtime is not installed.
    """
    if options.suppression is not None:
        exported = with_predictions(onnx.load(exported) if isinstance(exported, Path) else exported)
    content: Any = str(exported) if isinstance(exported, Path) else exported.SerializeToString()
    if options.format is not ONNX:
        assert isinstance(exported, Path), "other formats have no suppression inside"
        content = _session(exported, options.format)
    try:
        from detect.exporting.onnx_runner import OnnxModel
    except ImportError:
        hint = "pip install 'detect-small[export]'"
        raise InputError(f"onnxruntime is not installed, which checks the exported file: {hint}") from None
    try:
        return OnnxModel(content)
    except runtime_errors() as error:
        raise ExportError(f"ONNX Runtime cannot load the exported graph: {_first_line(error)}") from None


class _AsOnnx:
    """A session of another format as ``OnnxModel`` has those of ONNX Runtime."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.custom_metadata_map = session.metadata | {"format": ONNX.version}

    def get_modelmeta(self) -> _AsOnnx:
        return self

    def get_inputs(self) -> list[_Input]:
        return [_Input([None, 3, *(self._session.input_hw or (None, None))])]

    def run(self, names: list[str] | None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        """All outputs, in their order; without suppression ``names`` ask for no others."""
        return self._session.run(inputs["images"])


class _Input(NamedTuple):
    shape: list[int | None]


def _session(path: Path, file_format: Format) -> _AsOnnx:
    """Open a file of another format than ONNX; ``ExportError`` where its runtime, or the toolkit, cannot."""
    try:
        network = file_format.open_network(path, "cpu")
    except InputError as error:
        raise ExportError(f"the exported file is not usable: {error}") from None
    assert isinstance(network, ExportedNetwork), "only ONNX has instances"
    return _AsOnnx(network.session)


# ---------------------------------------------------------------------------------------------- the same tensors


def _compare_tensors(
    model: Model, runner: OnnxModel, image_size: int, tolerance: Tolerance
) -> tuple[Difference, list[Shape]]:
    """Run a model in PyTorch and its export in ONNX Runtime.

    Returns:
        The largest difference, and the shapes of the inputs: ``comparison_shapes``, or the one that the file takes.
    """
    shapes = comparison_shapes(model.max_reduction, image_size)
    if runner.fixed_hw:
        shapes = [(1, image_size, image_size)]
    reference = wrapped(model)
    differences = []
    for number, shape in enumerate(shapes):
        images = noise(shape, seed=number)
        with torch.inference_mode():
            expected = reference(torch.from_numpy(images)).numpy()
        differences.append(compare_outputs(model, expected, run_file(runner, images), tolerance))
    return largest(differences), shapes


def run_file(runner: OnnxModel, images: np.ndarray) -> np.ndarray:
    """Predictions (B, P, 5 + K) or probabilities (B, K) for images (B, 3, H, W); a raw file's maps are decoded."""
    outputs = None if "levels" in runner.output else ["probabilities" if runner.is_classifier else "predictions"]
    try:
        return runner.decoded(runner.session.run(outputs, {"images": images}), images.shape[2:])
    except InputError as error:
        raise ExportError(f"the exported file fails on an input of {images.shape}: {error}") from None
    except ValueError as error:  # maps of another number of axes
        raise ExportError(f"the outputs of the exported file cannot be decoded: {_first_line(error)}") from None
    except runtime_errors() as error:
        raise ExportError(f"ONNX Runtime fails on an input of {images.shape}: {_first_line(error)}") from None


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:200]


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
    boxes, scores = difference[..., :4], difference[..., 4:]
    are_good = (boxes <= np.maximum(tolerance.box_px, tolerance.box_share * sides)).all(axis=-1)  # (B, P)
    unlikely = (expected[..., 4:5] * expected[..., 5:]).max(axis=-1) < UNLIKELY_SCORE
    left_out = ~are_good & unlikely & np.isfinite(boxes).all(axis=-1)
    if left_out.sum() > tolerance.unlikely_share * left_out.size:
        left_out[:] = False
    good = bool(are_good[~left_out].all() and (scores <= tolerance.score).all())
    return Difference(float(boxes[~left_out].max()), float(scores.max()), good, int(left_out.sum()))


def largest(differences: Sequence[Difference]) -> Difference:
    """The largest of several differences of one model."""
    # NumPy's max hands on NaN, which the built-in one may drop.
    boxes = [difference.box_px for difference in differences if difference.box_px is not None]
    scores = [difference.score for difference in differences]
    return Difference(
        float(np.max(boxes)) if boxes else None,
        float(np.max(scores)),
        all(difference.good for difference in differences),
        sum(difference.unlikely for difference in differences),
    )


# ------------------------------------------------------------------------------------- images, from file to result


class _ImageComparison:
    def __init__(self, checkpoint: Checkpoint, runner: OnnxModel, options: ExportOptions, tolerance: Tolerance) -> None:
        assert options.image_size is not None, "it is resolved"
        self._checkpoint, self._runner, self._options, self._tolerance = checkpoint, runner, options, tolerance
        self._size: int = options.image_size
        self._detections = self._unmatched = 0

    def compare(self, tensors: Difference, shapes: list[Shape]) -> Parity:
        """The result for all images, joined with that of the tensors."""
        batches = comparison_batches(same_shape=self._options.dynamic)
        classifies = self._checkpoint.model.definition.is_classifier
        step = self._compare_classes if classifies else self._compare_boxes
        difference = largest([tensors, *(step(batch) for batch in batches)])
        count = sum(len(batch) for batch in batches)
        return Parity(difference, self._tolerance, shapes, count, self._detections, self._unmatched)

    def _compare_classes(self, images: list[np.ndarray]) -> Difference:
        model, share = self._checkpoint.classifier, self._checkpoint.center_crop
        crops = np.stack([center_crop(image, self._size, share) for image in images])
        expected = run_classifier(model, torch.from_numpy(crops), CPU).softmax(dim=1).numpy()
        found = np.stack([self._runner.classify(_bgr(image)) for image in images])
        return compare_outputs(model, expected, found, self._tolerance)

    def _compare_boxes(self, images: list[np.ndarray]) -> Difference:
        model = self._checkpoint.detector
        placed = [letterbox(image, self._size) for image in images]
        fixed = None if self._options.dynamic else (self._size, self._size)
        batch = pad_batch([image for image, _ in placed], model.max_reduction, fixed)
        expected = run_network(model, torch.from_numpy(batch), CPU).numpy()
        tensor = self._runner.network_input([self._runner.scaled(_bgr(image))[0] for image in images])
        found = run_file(self._runner, tensor)
        difference = compare_outputs(model, expected, found, self._tolerance)
        if not difference.good:
            return difference
        for image, predictions, (_, placement) in zip(images, found, placed, strict=True):
            self._compare_detections(image, predictions, placement)
        return difference

    def _compare_detections(self, image: np.ndarray, predictions: np.ndarray, placement: Letterbox) -> None:
        """Count detections of the runner that differ from PyTorch's for the same predictions (P, 5 + K)."""
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


def count_unmatched(rows: np.ndarray, others: np.ndarray) -> int:
    """Number of rows (N, 6), box, score and class, that ``others`` (n, 6) do not have, but for rounding."""
    tolerance = np.array([0.01, 0.01, 0.01, 0.01, 1e-4, 0.1])
    same = (np.abs(rows[:, None] - others[None]) <= tolerance).all(axis=2)  # (N, n)
    return int((~same.any(axis=1)).sum())


def _bgr(image_rgb: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image_rgb[..., ::-1])
