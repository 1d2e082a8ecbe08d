"""Files that an evaluation writes: metrics, results, pictures."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from detect.data.annotations import AnnotationTable
from detect.errors import InputError
from detect.evaluation.class_pictures import draw_class_activation, draw_class_confusion, draw_confused_pairs
from detect.evaluation.classification import ClassEvaluation
from detect.evaluation.confusion import confusion_matrix
from detect.evaluation.detection import Evaluation
from detect.evaluation.examples import draw_example_sheets, match_and_show
from detect.evaluation.pictures import draw_confusion_matrix, draw_precision_recall
from detect.evaluation.report import class_metrics_record, metrics_record
from detect.models.model import ClassificationModel
from detect.runtime.files import write_json
from detect.runtime.logs import LOGGER


@dataclass(frozen=True)
class EvaluationOutputs:
    """Places of the requested files; None: not requested.

    Args:
        metrics_json: the metrics.
        results_json: the detections in the COCO results format, or ``ClassEvaluation.results``.
        pictures: folder for ``precision_recall.png``, ``confusion_matrix.png`` and the sheets of
            ``draw_example_sheets``; for a classifier, ``confusion_matrix.png``, ``confused_pairs.jpg`` and
            ``class_activation.jpg``.
        report: folder for a detector's report.

    Raises:
        InputError: a file's place is a folder, or a folder's place a file.
    """

    metrics_json: Path | None = None
    results_json: Path | None = None
    pictures: Path | None = None
    report: Path | None = None

    def __post_init__(self) -> None:
        for option, path in (("--metrics-json", self.metrics_json), ("--results-json", self.results_json)):
            if path is not None and path.is_dir():
                raise InputError(f"{option} {path}: is a folder; name a file in it")
        for option, path in (("--out", self.pictures), ("--report", self.report)):
            if path is not None and path.exists() and not path.is_dir():
                raise InputError(f"{option} {path}: is a file; name a folder")

    def check(self, table: AnnotationTable) -> None:
        """Check, before the evaluation, that the files can be made from the split.

        Raises:
            InputError: the split has no annotations, and no results file is requested.
        """
        if table.is_labelled:
            return
        if self.results_json is None:
            raise InputError(
                "the split has no annotations, so that there is nothing to measure; ask for --results-json FILE"
            )
        places = {"--metrics-json": self.metrics_json, "--out": self.pictures, "--report": self.report}
        for option, path in places.items():
            if path is not None:
                LOGGER.warning("%s is ignored: the split has no annotations", option)

    def write(self, evaluation: Evaluation, about: dict[str, Any]) -> list[str]:
        """Write the files of a detector's evaluation.

        Args:
            evaluation: of a split.
            about: weights, data, split, for the metrics file.

        Returns:
            One line for each file.
        """
        lines = []
        if self.results_json is not None:
            write_json(self.results_json, evaluation.results, indent=None)
            lines.append(f"detections: {self.results_json}")
        if evaluation.metrics is None:
            return lines
        if self.metrics_json is not None:
            about = {**about, "settings": dataclasses.asdict(evaluation.settings)}
            write_json(self.metrics_json, metrics_record(evaluation, about))
            lines.append(f"metrics: {self.metrics_json}")
        if self.pictures is not None:
            draw_precision_recall(self.pictures / "precision_recall.png", evaluation.metrics)
            matrix = confusion_matrix(evaluation.table, evaluation.found)
            draw_confusion_matrix(self.pictures / "confusion_matrix.png", matrix, evaluation.table.names)
            draw_example_sheets(self.pictures, match_and_show(evaluation))
            lines.append(f"pictures: {self.pictures}")
        return lines

    def write_classes(
        self,
        evaluation: ClassEvaluation,
        model: ClassificationModel | None,
        device: torch.device,
        about: dict[str, Any],
    ) -> list[str]:
        """Write the files of a classifier's evaluation.

        Args:
            evaluation: of a split, by ``model``.
            model: on ``device``, for the class activation maps; None, as of an exported file: none are drawn.
            device: device of the model.
            about: weights, data, split, for the metrics file.

        Returns:
            One line for each file, and one for the pictures.
        """
        lines = []
        if self.results_json is not None:
            write_json(self.results_json, evaluation.results, indent=None)
            lines.append(f"classes: {self.results_json}")
        if self.metrics_json is not None:
            write_json(self.metrics_json, class_metrics_record(evaluation, about))
            lines.append(f"metrics: {self.metrics_json}")
        if self.pictures is not None:
            draw_class_confusion(self.pictures / "confusion_matrix.png", evaluation)
            draw_confused_pairs(self.pictures / "confused_pairs.jpg", evaluation)
            if model is not None:
                draw_class_activation(self.pictures / "class_activation.jpg", evaluation, model, device)
            lines.append(f"pictures: {self.pictures}")
        return lines
