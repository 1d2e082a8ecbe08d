"""The files that the evaluation of a classifier leaves."""

from __future__ import annotations

from typing import Any

import torch

from detect.evaluation.class_activation import draw_class_activation
from detect.evaluation.class_pictures import draw_class_confusion, draw_confused_pairs
from detect.evaluation.class_report import write_class_metrics
from detect.evaluation.classification import ClassEvaluation
from detect.evaluation.outputs import EvaluationOutputs
from detect.models.model import ClassificationModel
from detect.runtime.files import write_json


def write_class_outputs(
    wanted: EvaluationOutputs,
    evaluation: ClassEvaluation,
    model: ClassificationModel,
    device: torch.device,
    about: dict[str, Any],
) -> list[str]:
    """Write the wanted files.

    Args:
        wanted: the metrics; ``ClassEvaluation.results``; a folder for ``confusion_matrix.png``, ``confused_pairs.jpg``
            and ``class_activation.jpg``.
        evaluation: what to write.
        model: what was evaluated, on ``device``.
        device: where to compute.
        about: where the numbers come from, for the metrics file.

    Returns:
        One line for each file, and for the pictures.
    """
    lines = []
    if wanted.results_json is not None:
        write_json(wanted.results_json, evaluation.results, indent=None)
        lines.append(f"classes: {wanted.results_json}")
    if wanted.metrics_json is not None:
        write_class_metrics(wanted.metrics_json, evaluation, about)
        lines.append(f"metrics: {wanted.metrics_json}")
    if wanted.pictures is not None:
        draw_class_confusion(wanted.pictures / "confusion_matrix.png", evaluation)
        draw_confused_pairs(wanted.pictures / "confused_pairs.jpg", evaluation)
        draw_class_activation(wanted.pictures / "class_activation.jpg", evaluation, model, device)
        lines.append(f"pictures: {wanted.pictures}")
    return lines
