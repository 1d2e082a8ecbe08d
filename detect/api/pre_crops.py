"""The scale sensitivity of a classifier: how alike its answers are where the same objects are larger or smaller.

Letters: N images, C sizes before the crop, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detect.api.evaluation import EvaluationRequest, Lines, open_class_evaluation
from detect.errors import InputError
from detect.evaluation.classification import evaluate_classifier
from detect.runtime.files import write_json


def measure_pre_crops(request: EvaluationRequest, sizes: Sequence[int]) -> Lines:
    """Evaluate a classifier on crops of one size from images whose short side is brought to each of several sizes.

    Returns, after its lines, the accuracy of each size under ``pre_crops``, and the ``mean_cosine`` of each two sizes'
    probabilities: 1 where the size makes no difference.

    Source: SDPoint (Kuen et al., 2018), section 6.2.3, with crops of 224 px from 256, 272, ... 352 px.

    Raises:
        InputError: fewer than two sizes, a duplicate, one below the crop, or the weights are a detector's.
    """
    if len(set(sizes)) < max(len(sizes), 2):
        raise InputError(f"--pre-crop: must be at least two different sizes, found {' '.join(map(str, sizes))}")
    options = {"--results-json": request.results_json, "--out": request.out, "--crops": request.crops}
    for option, value in options.items():
        if value is not None:
            raise InputError(f"{option}: does not go with --pre-crop")
    checkpoint, table, conditions = open_class_evaluation(request)
    if min(sizes) < conditions.image_size:
        raise InputError(f"--pre-crop: must be at least the crop of {conditions.image_size} px, found {min(sizes)}")
    probabilities, accuracy = [], {}
    for size in sorted(sizes):
        share = conditions.image_size / size
        evaluation = evaluate_classifier(checkpoint.classifier, table, conditions, share)
        probabilities.append(evaluation.probabilities)
        accuracy[size] = dict(evaluation.metrics.values)
        yield f"{size:>5} px  " + "  ".join(f"{name} {value:.3f}" for name, value in accuracy[size].items())
    cosine = mean_cosine(np.stack(probabilities))
    pairs = len(sizes) * (len(sizes) - 1) // 2
    yield f"mean cosine of the probabilities of {pairs} pairs of sizes: {cosine:.3f}"
    record = {
        "weights": str(request.weights),
        "image_size": conditions.image_size,
        "pre_crops": accuracy,
        "mean_cosine": cosine,
    }
    if request.metrics_json is not None:
        write_json(request.metrics_json, record)
        yield f"metrics: {request.metrics_json}"
    return record


def mean_cosine(probabilities: np.ndarray) -> float:
    """Return the mean cosine of each two of (C, N, K) probabilities, over images that have an answer at all sizes; 1
    without such images.
    """
    lengths = np.linalg.norm(probabilities.astype(np.float64), axis=2, keepdims=True)  # (C, N, 1)
    answered = (lengths > 0).all(axis=(0, 2))
    unit = probabilities[:, answered] / lengths[:, answered]
    count = len(unit)
    # The square of the sum of C unit vectors is C, and twice the cosine of each pair.
    squares = (unit.sum(axis=0) ** 2).sum(axis=1)
    return float(((squares - count) / (count * (count - 1))).mean()) if answered.any() else 1.0
