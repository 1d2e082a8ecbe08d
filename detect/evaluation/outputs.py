"""The files that an evaluation leaves."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detect.data.annotations import AnnotationTable
from detect.errors import InputError
from detect.evaluation.confusion import confusion_matrix
from detect.evaluation.engine import Evaluation
from detect.evaluation.pictures import draw_confusion_matrix, draw_precision_recall
from detect.evaluation.report import write_metrics_json
from detect.runtime.files import write_json
from detect.runtime.logs import LOGGER


@dataclass(frozen=True)
class EvaluationOutputs:
    """Which files are wanted.

    Args:
        metrics_json: the metrics.
        results_json: the detections in the COCO results format.
        pictures: folder for ``precision_recall.png`` and ``confusion_matrix.png``; for a classifier,
            ``confusion_matrix.png``, ``confused_pairs.jpg`` and ``class_activation.jpg``.

    Raises:
        InputError: a file is to be written where a folder is, or the other way round.
    """

    metrics_json: Path | None = None
    results_json: Path | None = None
    pictures: Path | None = None

    def __post_init__(self) -> None:
        for option, path in (("--metrics-json", self.metrics_json), ("--results-json", self.results_json)):
            if path is not None and path.is_dir():
                raise InputError(f"{option} {path}: is a folder; name a file in it")
        if self.pictures is not None and self.pictures.exists() and not self.pictures.is_dir():
            raise InputError(f"--out {self.pictures}: is a file; name a folder")

    def check(self, table: AnnotationTable) -> None:
        """Whether the wanted files can be made from the split; to be asked before the work.

        Raises:
            InputError: the split has no annotations, and no results file is wanted.
        """
        if table.is_labelled:
            return
        if self.results_json is None:
            raise InputError(
                "the split has no annotations, so that there is nothing to measure; ask for --results-json FILE"
            )
        for option, wanted in (("--metrics-json", self.metrics_json), ("--out", self.pictures)):
            if wanted is not None:
                LOGGER.warning("%s is ignored: the split has no annotations", option)

    def write(self, evaluation: Evaluation, about: dict[str, Any]) -> list[str]:
        """Write the wanted files.

        Args:
            evaluation: what to write.
            about: where the numbers come from, for the metrics file.

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
            write_metrics_json(self.metrics_json, evaluation, about)
            lines.append(f"metrics: {self.metrics_json}")
        if self.pictures is not None:
            draw_precision_recall(self.pictures / "precision_recall.png", evaluation.metrics)
            matrix = confusion_matrix(evaluation.table, evaluation.found)
            draw_confusion_matrix(self.pictures / "confusion_matrix.png", matrix, evaluation.table.names)
            lines.append(f"pictures: {self.pictures}")
        return lines
