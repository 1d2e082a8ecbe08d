"""Evaluation of a classifier on a split: used by the tools, and by training after its epochs.

Letters: N images of the split, K classes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from detect.data.classification.loading import ClassEvaluationLoader
from detect.data.classification.table import ClassTable
from detect.evaluation.coco import ABSENT
from detect.evaluation.engine import Clock, check_ranges, match_classes
from detect.evaluation.predict import evaluation_mode, run_classifier
from detect.models.model import ClassificationModel
from detect.runtime.device import Precision
from detect.runtime.distributed import all_gather, all_reduce_sum
from detect.runtime.logs import LOGGER
from detect.runtime.progress import progress_bar
from detect.structures import Classification

TOP = 5
"""Of so many classes the true one must be one; all of them where there are fewer."""


@dataclass(frozen=True)
class ClassMetrics:
    """How well images were classified. -1 means that there is no such image.

    Args:
        values: ``top1`` and ``top5``, the shares of the images whose class is the most probable one, or among the
            ``TOP`` most probable; images without an answer count as wrong. ``loss``, the mean cross-entropy (natural
            logarithm) of the images with an answer whose class the model has.
        per_class: class name to its ``top1``, ``top5`` and ``images``, how many show it.
        confusion: (K, K) int64 counts of the images with an answer, rows true class, columns predicted class.
    """

    values: dict[str, float]
    per_class: dict[str, dict[str, float]]
    confusion: np.ndarray

    def __getitem__(self, key: str) -> float:
        return self.values[key]


@dataclass(frozen=True)
class ClassEvaluation:
    """What came out of an evaluation.

    Args:
        metrics: the metrics.
        probabilities: (N, K) float32, classes in the table's order; a row of zeros is an image without an answer: it
            could not be read, or the network gave no finite numbers.
        table: the split.
        label_of: (M,) int64, the table's class index of each of the model's M classes; -1 for those that it lacks.
        image_size: side of the network input in pixels.
        center_crop: the network looked at so much of the image's short side.
        speed_ms: milliseconds per image: ``preprocess`` (reading, cropping and scaling in one process; several share
            the work) and ``network``.
    """

    metrics: ClassMetrics
    probabilities: np.ndarray
    table: ClassTable
    label_of: np.ndarray
    image_size: int
    center_crop: float
    speed_ms: dict[str, float]

    @property
    def images(self) -> int:
        """How many images were looked at."""
        return len(self.table)

    @property
    def is_answered(self) -> np.ndarray:
        """(N,) bool: the image has probabilities."""
        return np.asarray(self.probabilities.any(axis=1))

    @property
    def predicted(self) -> np.ndarray:
        """(N,) int64, the most probable class; -1 for images without an answer."""
        return np.where(self.is_answered, self.probabilities.argmax(axis=1), -1)

    def classification(self, row: int) -> Classification:
        """What image ``row``, which must have an answer, was taken for."""
        return Classification(self.probabilities[row], self.table.names)

    @property
    def results(self) -> list[dict[str, Any]]:
        """An entry for each image.

        ``file_name``, ``category`` (name of the true class), ``label`` (its index) and ``top5``, the most probable
        classes as of ``top_entries``; none for an image without an answer.
        """
        answered = self.is_answered
        return [
            {
                "file_name": str(self.table.path(row)),
                "category": self.table.names[label],
                "label": label,
                "top5": top_entries(self.classification(row)) if answered[row] else [],
            }
            for row, label in enumerate(self.table.labels.tolist())
        ]


def evaluate_classifier(
    model: ClassificationModel,
    table: ClassTable,
    *,
    image_size: int,
    center_crop: float,
    batch_size: int,
    workers: int,
    device: torch.device,
    precision: Precision = "fp32",
    names: tuple[str, ...] | None = None,
    strict: bool = False,
    progress: bool = True,
) -> ClassEvaluation:
    """Classify all images of a split, and measure how well.

    Several processes share out the images; each gets all answers, and the same metrics.

    Args:
        model: on ``device``; its modules are put into evaluation mode and back.
        table: the split.
        image_size: side of the network input in pixels.
        center_crop: the network looks at so much of an image's short side, in (0, 1].
        batch_size: images per batch.
        workers: processes that load images; 0 loads in this one.
        device: where to compute.
        precision: number format of the network; probabilities are always float32.
        names: the model's class names, if they may be others than the table's, or in another order. The answer is
            chosen among the table's classes.
        strict: refuse an image that cannot be read. Otherwise it counts as wrong.
        progress: show a progress bar.

    Raises:
        InputError: none of ``names`` is a class of the table, a size or count is outside its range, or an image cannot
            be read and ``strict`` is set.
    """
    check_ranges(image_size, model.max_reduction, batch_size, workers)
    label_of = match_classes(names or table.names, table.names)
    assert model.num_classes == len(label_of), "the names are the model's"
    loader = ClassEvaluationLoader(table, image_size, center_crop, batch_size, workers, strict=strict)
    clock = Clock(device, ("preprocess", "network"))
    rows, outputs = [np.zeros(0, np.int64)], [np.zeros((0, len(label_of)), np.float32)]
    with evaluation_mode(model):
        for batch in progress_bar(loader, "evaluate", unit="batch", is_shown=progress):
            clock.start(batch.preprocess_seconds)
            found = run_classifier(model, batch.images, device, precision).cpu()
            clock.lap("network")
            rows.append(batch.rows.numpy())
            outputs.append(found.numpy())
    own_rows = np.concatenate(rows)
    logits = _gather_logits(own_rows, np.concatenate(outputs), len(table))
    scores = class_scores(torch.from_numpy(logits), label_of, len(table.names))
    metrics = class_metrics(scores.numpy(), table.labels, table.names)
    probabilities = scores.exp().nan_to_num(nan=0.0).numpy()
    evaluation = ClassEvaluation(
        metrics, probabilities, table, label_of, image_size, center_crop, clock.per_image_ms(len(own_rows))
    )
    _warn_of_silence(evaluation, int(all_reduce_sum([len(loader.unreadable)])[0]))
    return evaluation


def _gather_logits(rows: np.ndarray, outputs: np.ndarray, num_images: int) -> np.ndarray:
    """(N, K) float32 of all processes, in the model's order of classes; NaN for images without an answer.

    Args:
        rows: (n,) int64, this process's images.
        outputs: (n, K) float32 logits.
        num_images: N.
    """
    logits = np.full((num_images, outputs.shape[1]), np.nan, np.float32)
    for own_rows, found in zip(all_gather(rows), all_gather(outputs), strict=True):
        logits[own_rows] = found
    return logits


def class_scores(logits: torch.Tensor, label_of: np.ndarray, num_classes: int) -> torch.Tensor:
    """Logarithms of the probabilities of a table's classes. Classes that the table lacks are left out of the choice.

    Args:
        logits: (..., M), of the model's classes.
        label_of: (M,) int64, the table's class index of each class of the model; -1 for those that the table lacks.
        num_classes: K, of the table.

    Returns:
        (..., K) natural logarithms; minus infinity for classes that the model lacks; all of a row are NaN where a logit
        is not finite.
    """
    is_shared = torch.from_numpy(label_of >= 0)
    shared = logits[..., is_shared].log_softmax(dim=-1)
    scores = torch.full((*logits.shape[:-1], num_classes), -torch.inf)
    scores[..., torch.from_numpy(label_of)[is_shared]] = shared
    scores[~shared.isfinite().all(dim=-1)] = torch.nan
    return scores


def class_metrics(log_probabilities: np.ndarray, labels: np.ndarray, names: tuple[str, ...]) -> ClassMetrics:
    """Compare the classes that images were taken for with the true ones.

    Of equally probable classes the first counts as the more probable one.

    Args:
        log_probabilities: (N, K) natural logarithms; all of a row are NaN where there is no answer, minus infinity
            stands for a class that the model lacks. Not probabilities, because those of unlikely classes are all 0.
        labels: (N,) int64 true class, in [0, K).
        names: the K class names.
    """
    answered = ~np.isnan(log_probabilities).any(axis=1)
    own = np.take_along_axis(log_probabilities, labels[:, None], axis=1)
    earlier = np.arange(len(names)) < labels[:, None]
    rank = ((log_probabilities > own) | ((log_probabilities == own) & earlier)).sum(axis=1)
    is_known = answered & (own[:, 0] > -np.inf)
    hits = {"top1": is_known & (rank < 1), "top5": is_known & (rank < TOP)}
    confusion = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(confusion, (labels[answered], log_probabilities[answered].argmax(axis=1)), 1)
    values = {key: _mean(hit) for key, hit in hits.items()}
    per_class: dict[str, dict[str, float]] = {}
    for label, key in enumerate(_class_keys(names)):
        mine = labels == label
        per_class[key] = {**{name: _mean(hit[mine]) for name, hit in hits.items()}, "images": int(mine.sum())}
    # Not -own, because the loss of images that are certain would be -0.0.
    return ClassMetrics({**values, "loss": _mean(0.0 - own[is_known])}, per_class, confusion)


def most_confused(confusion: np.ndarray, count: int) -> list[tuple[int, int, int]]:
    """The pairs of classes that are mixed up most often.

    Args:
        confusion: (K, K) counts, rows true class, columns predicted class.
        count: most pairs.

    Returns:
        (true class, predicted class, images), most images first, of as many the first classes first; no pair without
        images.
    """
    wrong = confusion - np.diag(np.diag(confusion))
    order = np.argsort(-wrong, axis=None, kind="stable")[:count]
    rows, columns = np.unravel_index(order, wrong.shape)
    pairs = zip(rows.tolist(), columns.tolist(), strict=True)
    return [(true, taken_for, int(wrong[true, taken_for])) for true, taken_for in pairs if wrong[true, taken_for]]


def top_entries(found: Classification) -> list[dict[str, Any]]:
    """The ``TOP`` most probable classes for JSON, best first: ``category`` (class name) and ``score``."""
    return [{"category": name, "score": round(score, 5)} for name, score in found.top(TOP)]


def _mean(values: np.ndarray) -> float:
    return float(values.mean(dtype=np.float64)) if values.size else ABSENT


def _class_keys(names: tuple[str, ...]) -> list[str]:
    # Two classes may share a name; a report must not lose one of them.
    count = Counter(names)
    return [f"{name} (class {label})" if count[name] > 1 else name for label, name in enumerate(names)]


def _warn_of_silence(evaluation: ClassEvaluation, unreadable: int) -> None:
    """Tell about images that the network gave no finite numbers for; the loader has told about unreadable ones."""
    silent = int((~evaluation.is_answered).sum()) - unreadable
    if silent:
        LOGGER.warning("the network's output is not finite for %d images; they count as wrong", silent)
