"""Accuracy of an exported file beside that of its model, both on the CPU.

Letters: B images, H W pixels, P predictions of an image, K classes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from detect.data.annotations import AnnotationTable
from detect.data.classification.table import ClassTable
from detect.data.letterbox import pad_batch
from detect.evaluation.classification import evaluate_class_network, evaluate_classifier, logits_of_probabilities
from detect.evaluation.detection import DetectionOptions, evaluate_network
from detect.evaluation.forward import run_network
from detect.evaluation.loop import Conditions
from detect.evaluation.postprocess import COCO_SETTINGS, Forward
from detect.exporting.options import ExportOptions
from detect.inference.network import InferenceNetwork
from detect.models.checkpoint import Checkpoint

CPU = torch.device("cpu")

AP_TOLERANCES = {"fp32": 0.001, "fp16": 0.01}
"""Largest difference of AP, by the precision of the file."""


def compare_ap(
    checkpoint: Checkpoint, path: Path, options: ExportOptions, table: AnnotationTable
) -> tuple[float, float, float]:
    """AP by PyTorch, AP by the file, and their largest allowed difference."""
    network = options.format.open_network(path, "cpu")
    expected = measure_model(checkpoint, network, options, table)
    return (
        expected["AP"],
        measure_file(network, options, table)["AP"],
        AP_TOLERANCES["fp16" if options.half else "fp32"],
    )


def measure_model(
    checkpoint: Checkpoint, network: InferenceNetwork, options: ExportOptions, table: AnnotationTable | ClassTable
) -> dict[str, float]:
    """Metrics of a checkpoint in PyTorch, on inputs that are padded as for its exported file ``network``."""
    if isinstance(table, ClassTable):
        conditions = _conditions(network)
        return evaluate_classifier(checkpoint.classifier, table, conditions, network.center_crop).metrics.values

    def forward(images: np.ndarray) -> Tensor:
        padded = pad_batch(list(images), shape_hw=network.padded_hw((images.shape[1], images.shape[2])))
        return run_network(checkpoint.detector, torch.from_numpy(padded), CPU)

    return _detector_metrics(forward, network, options, table)


def measure_file(
    network: InferenceNetwork, options: ExportOptions, table: AnnotationTable | ClassTable
) -> dict[str, float]:
    """Metrics of an exported file."""
    if isinstance(table, ClassTable):
        conditions, logits = _conditions(network), logits_of_probabilities(network.probabilities)
        evaluation = evaluate_class_network(logits, network.multiple, table, conditions, network.center_crop)
        return evaluation.metrics.values
    return _detector_metrics(network.predictions, network, options, table)


def _detector_metrics(
    forward: Forward, network: InferenceNetwork, options: ExportOptions, table: AnnotationTable
) -> dict[str, float]:
    measured = DetectionOptions(options.suppression or COCO_SETTINGS)
    metrics = evaluate_network(forward, network.multiple, table, _conditions(network), measured).metrics
    assert metrics is not None, "the split is labelled"
    return metrics.values


def _conditions(network: InferenceNetwork) -> Conditions:
    return Conditions(network.image_size, batch_size=8, workers=0, device=CPU, names=network.names)
