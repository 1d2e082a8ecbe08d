"""Calibration: the scores of detections against the share of them that is right."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from detect.evaluation.matches import Matches

BINS = 10
"""Ranges of the score."""


class ScoreRange(NamedTuple):
    """Detections of a range of scores.

    Args:
        low: smallest score.
        high: score that is too large, but for 1.
        detections: number of them.
        score: their mean score.
        right: share of them that has an object of its class at IoU 0.5.
    """

    low: float
    high: float
    detections: int
    score: float
    right: float


def calibration(matches: Matches) -> list[ScoreRange]:
    """Return the ranges of scores that have detections; ignored detections do not count."""
    counted = ~matches.ignored[0]
    scores, hits = matches.scores[counted], matches.hits[0, counted]
    # Scores have five decimals, so that 0.3 * 10 must not fall below 3.
    index = np.minimum(np.round(scores * BINS, 6).astype(np.int64), BINS - 1)
    rows = []
    for number in range(BINS):
        here = index == number
        if here.any():
            means = float(scores[here].mean()), float(hits[here].mean())
            rows.append(ScoreRange(number / BINS, (number + 1) / BINS, int(here.sum()), *means))
    return rows


def calibration_error(rows: list[ScoreRange]) -> float:
    """Return the mean distance of score and share, weighted by detections, of all ranges but the first; 0 for none.

    The first holds the many detections that only the end of the precision-recall curve sees.
    """
    shown = [row for row in rows if row.low > 0]
    total = sum(row.detections for row in shown)
    return sum(row.detections * abs(row.score - row.right) for row in shown) / max(total, 1)
