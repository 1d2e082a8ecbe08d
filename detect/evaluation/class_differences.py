"""Differences between two classifiers on a split: the images that one has right and the other wrong, as a list and as
a sheet of pictures.

Letters: N images.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from detect.data.images import write_image
from detect.drawing.sheets import Panel, heading, panel_sheet, sheet_width
from detect.evaluation.class_pictures import network_inputs
from detect.evaluation.classification import ClassEvaluation
from detect.evaluation.differences import MODELS, Model

COLUMNS = 8
"""Panels of a row."""


@dataclass(frozen=True)
class ClassifierPair:
    """Evaluations of two classifiers on one split."""

    evaluations: tuple[ClassEvaluation, ClassEvaluation]

    @property
    def is_right(self) -> tuple[np.ndarray, np.ndarray]:
        """(N,) bool of A and of B."""
        first, second = self.evaluations
        return first.predicted == first.table.labels, second.predicted == second.table.labels

    @property
    def margins(self) -> np.ndarray:
        """(N,) float32, the probability that A gives the true class, less that of B."""
        labels = self.evaluations[0].table.labels[:, None]
        first, second = (np.take_along_axis(one.probabilities, labels, axis=1)[:, 0] for one in self.evaluations)
        return np.asarray(first - second)

    def rows_of(self, model: Model) -> np.ndarray:
        """Images that this model alone has right, those first whose probabilities differ most."""
        first, second = self.is_right
        rows = np.flatnonzero(first & ~second if model == "A" else second & ~first)
        return rows[np.argsort(-np.abs(self.margins[rows]), kind="stable")]

    @property
    def totals(self) -> dict[str, int]:
        """Images that both models, one or none of them have right."""
        first, second = self.is_right
        return {
            "images": len(first),
            "right_by_both": int((first & second).sum()),
            "right_by_a_alone": int((first & ~second).sum()),
            "right_by_b_alone": int((second & ~first).sum()),
            "right_by_none": int((~first & ~second).sum()),
        }

    def records(self) -> list[dict[str, Any]]:
        """Return a line for each image that one model alone has right, the largest difference first."""
        rows = [(abs(self.margins[row]), row, model) for model in MODELS for row in self.rows_of(model).tolist()]
        return [self._record(row, model) for _, row, model in sorted(rows, key=lambda one: (-one[0], one[1]))]

    def _record(self, row: int, model: Model) -> dict[str, Any]:
        table = self.evaluations[0].table
        record = {"image": table.path(row).name, "right": model, "class": table.names[table.labels[row]]}
        for name, evaluation in zip(MODELS, self.evaluations, strict=True):
            is_answered = bool(evaluation.is_answered[row])
            found = evaluation.classification(row)
            record[f"predicted {name}"] = found.name if is_answered else ""
            record[f"score {name}"] = round(found.score, 5) if is_answered else 0.0
        return record


def draw_class_differences(path: Path, pair: ClassifierPair, count: int) -> int:
    """Draw at most ``count`` images, half of them right by A alone and half by B alone, with the answers of both;
    return their number.
    """
    width, parts, drawn = sheet_width(COLUMNS), [], 0
    for model in MODELS:
        rows = pair.rows_of(model)
        parts.append(heading(f"right by {model} alone: {len(rows)}", width))
        panels = _panels(pair, rows[: -(-count // 2)])
        drawn += len(panels)
        if panels:
            parts.append(panel_sheet(panels, COLUMNS))
    write_image(path, np.concatenate(parts))
    return drawn


def _panels(pair: ClassifierPair, rows: np.ndarray) -> list[Panel]:
    panels = []
    for row, image in network_inputs(pair.evaluations[0], rows):
        answers = zip(MODELS, pair.evaluations, strict=True)
        captions = tuple(
            f"{name}: {found.name} {found.score:.2f}"
            for name, evaluation in answers
            for found in (evaluation.classification(row),)
        )
        panels.append(Panel(image, captions))
    return panels


def summary_line(totals: dict[str, int]) -> str:
    return (
        f"of {totals['images']} images both have {totals['right_by_both']} right, A alone "
        f"{totals['right_by_a_alone']}, B alone {totals['right_by_b_alone']}, neither {totals['right_by_none']}"
    )
