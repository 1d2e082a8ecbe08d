"""From a checkpoint to what can predict with it: its head decides the task."""

from __future__ import annotations

from pathlib import Path

from detect.inference.classifier import Classifier
from detect.inference.detector import Detector
from detect.models.checkpoint import load_checkpoint
from detect.models.classifier import ClassificationModel
from detect.runtime.precision import Precision


def open_predictor(weights: Path, device: str, precision: Precision) -> Detector | Classifier:
    """A detector or a classifier.

    Args:
        weights: a checkpoint's file.
        device: as of ``Detector``.
        precision: number format of the network.

    Raises:
        InputError: the checkpoint or the device is not usable.
    """
    checkpoint = load_checkpoint(weights)
    kind = Classifier if isinstance(checkpoint.model, ClassificationModel) else Detector
    return kind(checkpoint, device, precision)
