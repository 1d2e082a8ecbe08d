"""The review of a data set's labels by a trained detector."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from detect.api.evaluation import EvaluationRequest, evaluate_split
from detect.curation.review import find_disagreements, write_review
from detect.errors import InputError


def review(request: EvaluationRequest, out: Path, min_score: float, count: int) -> Iterator[str]:
    """Compare a detector's predictions with the labels of a split, and write list and sheet.

    Args:
        request: weights, data, split and the conditions of prediction.
        out: folder of the files.
        min_score: of a prediction that speaks against a label.
        count: pictures on the sheet.

    Raises:
        InputError: the weights are a classifier's, the split has no annotations, or a value is outside its range.
    """
    if not 0 < min_score <= 1:
        raise InputError(f"--conf: must be above 0 and at most 1, found {min_score:g}")
    evaluation, names = evaluate_split(request)
    places = find_disagreements(evaluation.table, evaluation.found, min_score, names)
    yield from write_review(out, evaluation.table, places, count)
