"""Evaluation of a classifier on a split: used by ``detect val``, and by training after its epochs.

Letters: N images of the split, K classes of the split, M classes of the model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from detect.data.classification.loading import ClassEvaluationLoader
from detect.data.classification.table import ClassTable
from detect.evaluation.coco import ABSENT
from detect.evaluation.forward import evaluation_mode, run_classifier
from detect.evaluation.loop import Clock, Conditions, match_classes, run_evaluation
from detect.models.model import ClassificationModel
from detect.runtime.distributed import all_gather, all_reduce_sum
from detect.runtime.logs import LOGGER
from detect.structures import Batch, Classification

TOP = 5
"""k of top-k accuracy; all classes where there are fewer."""

PARTS = ("preprocess", "network")

ClassForward = Callable[[torch.Tensor], torch.Tensor]
"""(B, H, W, 3) uint8 RGB to logits (B, M), but for a constant of each image."""


@dataclass(frozen=True)
class ClassMetrics:
    """Accuracy and loss of a classifier on a split; -1 where there is no such image.

    Args:
        values: ``top1`` and ``top5``, the share of the images whose class is the most probable one, or among the
            ``TOP`` most probable; images without an answer count as wrong. ``loss``, the mean cross-entropy (natural
            logarithm) of the images with an answer whose class the model has.
        per_class: class name to its ``top1``, ``top5`` and ``images``, the number of its images.
        confusion: (K, K) int64 counts of the images with an answer, rows true class, columns predicted class.
    """

    values: dict[str, float]
    per_class: dict[str, dict[str, float]]
    confusion: np.ndarray

    def __getitem__(self, key: str) -> float:
        return self.values[key]


@dataclass(frozen=True)
class ClassEvaluation:
    """Probabilities of a split's images and their metrics.

    Args:
        metrics: of the split.
        probabilities: (N, K) float32, classes in the table's order; a row of zeros is an image without an answer: it
            could not be read, or the network's output was not finite.
        table: the split.
        label_of: (M,) int64, the table's class index of each of the model's classes; -1 for those that it lacks.
        image_size: side of the network input in pixels.
        center_crop: share of the image's short side that the network sees.
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
        """Number of images of the split."""
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
        """Answer for image ``row``, which must have one."""
        return Classification(self.probabilities[row], self.table.names)

    @property
    def results(self) -> list[dict[str, Any]]:
        """An entry for each image: ``file_name``, ``category`` (true class), ``label`` (its index) and ``top5``.

        ``top5`` is that of ``Classification.to_entries``, empty for an image without an answer.
        """
        answered = self.is_answered
        return [
            {
                "file_name": str(self.table.path(row)),
                "category": self.table.names[label],
                "label": label,
                "top5": self.classification(row).to_entries() if answered[row] else [],
            }
            for row, label in enumerate(self.table.labels.tolist())
        ]


def evaluate_classifier(
    model: ClassificationModel, table: ClassTable, conditions: Conditions, center_crop: float = 1.0, crops: int = 1
) -> ClassEvaluation:
    """Evaluate a classifier on all images of a split.

    Several processes share out the images; each returns all probabilities, and the same metrics.

    Args:
        model: on the device of ``conditions``; its modules are put into evaluation mode and back.
        table: the split.
        conditions: image size, batch size, device, ...
        center_crop: share of the image's short side that the network sees, in (0, 1].
        crops: of an image: 1, or 10, whose probabilities are averaged (``ten_crops``).

    Raises:
        InputError: no class in common with the table, a size or count outside its range, or, if ``strict``, an image
            that cannot be read.
    """
    assert model.num_classes == len(conditions.names or table.names), "the names are the model's"
    with evaluation_mode(model):
        network = logits_of(model, conditions)
        return evaluate_class_network(network, model.max_reduction, table, conditions, center_crop, crops)


def evaluate_class_network(
    network: ClassForward,
    multiple: int,
    table: ClassTable,
    conditions: Conditions,
    center_crop: float = 1.0,
    crops: int = 1,
) -> ClassEvaluation:
    """Evaluate any function from images to logits, an exported file for example; see ``evaluate_classifier``.
    ``multiple`` divides the side of its input.
    """
    conditions.check(multiple)
    label_of = match_classes(conditions.names or table.names, table.names)
    loader = open_class_loader(table, conditions, center_crop, crops)
    clock = Clock(conditions.device, PARTS)
    outputs = run_evaluation(loader, partial(classify_batch, network, clock), clock, progress=conditions.progress)
    scores = class_scores(
        torch.from_numpy(gather_logits(outputs, len(table), len(label_of))), label_of, len(table.names)
    )
    metrics = class_metrics(scores.numpy(), table.labels, table.names)
    probabilities = scores.exp().nan_to_num(nan=0.0).numpy()
    speed_ms = clock.per_image_ms(len(outputs))
    evaluation = ClassEvaluation(metrics, probabilities, table, label_of, conditions.image_size, center_crop, speed_ms)
    _warn_of_infinite(evaluation, int(all_reduce_sum([len(loader.unreadable)])[0]))
    return evaluation


def open_class_loader(
    table: ClassTable, conditions: Conditions, center_crop: float, crops: int = 1
) -> ClassEvaluationLoader:
    """Cropped and scaled images of a split."""
    return ClassEvaluationLoader(
        table,
        conditions.image_size,
        center_crop,
        conditions.batch_size,
        conditions.workers,
        crops=crops,
        strict=conditions.strict,
    )


def logits_of(model: ClassificationModel, conditions: Conditions) -> ClassForward:
    """Return ``run_classifier`` of a model as a function of images."""
    return partial(run_classifier, model, device=conditions.device, precision=conditions.precision)


def logits_of_probabilities(probabilities: Callable[[np.ndarray], np.ndarray]) -> ClassForward:
    """Turn a function from images (B, H, W, 3) uint8 to probabilities (B, M) into one to logits."""

    def forward(images: torch.Tensor) -> torch.Tensor:
        return _finite_log(torch.from_numpy(probabilities(images.numpy())))

    return forward


def classify_batch(network: ClassForward, clock: Clock, batch: Batch) -> list[np.ndarray]:
    """(M,) logits of each image of a batch; of several crops, the logarithms of their mean probabilities."""
    logits = network(batch.images).cpu()
    if len(logits) > len(batch.rows):
        of_crops = logits.view(len(batch.rows), -1, logits.shape[1])  # (B, crops, M)
        logits = _finite_log(of_crops.softmax(dim=2).mean(dim=1))
    clock.lap("network")
    return list(logits.numpy())


def _finite_log(probabilities: torch.Tensor) -> torch.Tensor:
    # An unlikely class may round to 0, the sooner the fewer bits a file has: an answer, unlike NaN, which stays.
    return probabilities.clamp(min=torch.finfo().tiny).log()


def gather_logits(outputs: Mapping[int, np.ndarray], num_images: int, num_classes: int) -> np.ndarray:
    """Gather (M,) logits by row from all processes as (N, M) float32; NaN for images without an answer."""
    own_rows = np.array(list(outputs), np.int64)
    own_logits = np.array(list(outputs.values()), np.float32).reshape(-1, num_classes)  # (n, M), also of no image
    logits = np.full((num_images, num_classes), np.nan, np.float32)
    for rows, found in zip(all_gather(own_rows), all_gather(own_logits), strict=True):
        logits[rows] = found
    return logits


def class_scores(logits: torch.Tensor, label_of: np.ndarray, num_classes: int) -> torch.Tensor:
    """Log-softmax of (..., M) logits over the classes that model and table share, (..., K) in the table's order.

    ``label_of`` is that of ``match_classes``. Classes that the model lacks have minus infinity; a row is NaN where a
    logit is not finite.
    """
    is_shared = torch.from_numpy(label_of >= 0)
    shared = logits[..., is_shared].log_softmax(dim=-1)
    scores = torch.full((*logits.shape[:-1], num_classes), -torch.inf)
    scores[..., torch.from_numpy(label_of)[is_shared]] = shared
    scores[~shared.isfinite().all(dim=-1)] = torch.nan
    return scores


def class_metrics(log_probabilities: np.ndarray, labels: np.ndarray, names: tuple[str, ...]) -> ClassMetrics:
    """Compute accuracy, loss and the confusion matrix.

    Of equally probable classes the first ranks higher.

    Args:
        log_probabilities: (N, K) natural logarithms; a row of NaN is an image without an answer, minus infinity a class
            that the model lacks. Not probabilities, because those of unlikely classes all round to 0.
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
    """Find the ``count`` most frequent errors in (K, K) counts, rows true class, columns predicted class.

    Returns:
        (true class, predicted class, images), most images first, ties by class index; no pair without images.
    """
    wrong = confusion - np.diag(np.diag(confusion))
    order = np.argsort(-wrong, axis=None, kind="stable")[:count]
    rows, columns = np.unravel_index(order, wrong.shape)
    pairs = zip(rows.tolist(), columns.tolist(), strict=True)
    return [(true, predicted, int(wrong[true, predicted])) for true, predicted in pairs if wrong[true, predicted]]


def _mean(values: np.ndarray) -> float:
    return float(values.mean(dtype=np.float64)) if values.size else ABSENT


def _class_keys(names: tuple[str, ...]) -> list[str]:
    # Two classes may share a name; a report must not lose one of them.
    count = Counter(names)
    return [f"{name} (class {label})" if count[name] > 1 else name for label, name in enumerate(names)]


def _warn_of_infinite(evaluation: ClassEvaluation, unreadable: int) -> None:
    """Warn of images whose output is not finite; the loader has warned of unreadable ones."""
    count = int((~evaluation.is_answered).sum()) - unreadable
    if count:
        LOGGER.warning("the network's output is not finite for %d images; they count as wrong", count)
