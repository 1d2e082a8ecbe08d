"""Precision and recall at scores that ``--conf`` may have."""

from __future__ import annotations

from typing import NamedTuple

from detect.evaluation.matches import Matches

THRESHOLDS = (0.05, *(tenth / 10 for tenth in range(1, 10)))
"""Values of ``--conf``."""


class ThresholdRow(NamedTuple):
    """Detections of at least a score, at IoU 0.5 and of all classes together.

    Args:
        score: the threshold.
        precision: share of the detections that are right.
        recall: share of the objects that are found.
        f1: harmonic mean of both.
        wrong: wrong detections per image.
    """

    score: float
    precision: float
    recall: float
    f1: float
    wrong: float


def at_thresholds(matches: Matches) -> list[ThresholdRow]:
    """Return a row for each of ``THRESHOLDS`` that leaves detections; without objects none."""
    objects, rows = int(matches.objects.sum()), []
    for score in THRESHOLDS:
        kept = matches.from_score(score)
        counted = kept.hits[0, ~kept.ignored[0]]
        if not objects or not len(counted):
            break
        right = int(counted.sum())
        f1 = 2 * right / (len(counted) + objects)
        wrong = (len(counted) - right) / len(matches.objects)
        rows.append(ThresholdRow(score, right / len(counted), right / objects, f1, wrong))
    return rows
