"""Metrics of several instances of a network (SDPoint) on a split, whose images are read once for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, TypeVar

import torch

from detect.data.annotations import AnnotationTable
from detect.data.classification.table import ClassTable
from detect.evaluation import classification, detection
from detect.evaluation.coco import Engine, coco_metrics, collect
from detect.evaluation.forward import COCO_SETTINGS, evaluation_mode, run_network
from detect.evaluation.loop import Clock, Conditions, Step, match_classes, run_evaluation, shared_classes
from detect.models.checkpoint import Checkpoint
from detect.models.model import Model
from detect.papers.sdpoint.transform import PLAIN, Instance, use_instance
from detect.runtime.progress import progress_bar
from detect.structures import Batch

Output = TypeVar("Output")


@dataclass(frozen=True)
class DetectionSplit:
    """Images with boxes.

    Args:
        table: a labelled split.
        engine: what computes AP.
    """

    table: AnnotationTable
    engine: Engine = "pycocotools"
    metric: ClassVar[str] = "AP"
    """Instances are compared by it."""
    shown: ClassVar[tuple[str, ...]] = ("AP", "AP50", "AP_S", "AP_M", "AP_L")
    """Columns of the table."""

    def check(self, checkpoint: Checkpoint, conditions: Conditions) -> None:
        """Check, before the evaluation, that a checkpoint can be evaluated on the split.

        Raises:
            InputError: it is of another task or has no class of the table, or the conditions do not suit it.
        """
        _check(checkpoint.detector, checkpoint.names, self.table.names, conditions)

    def measure(
        self, checkpoint: Checkpoint, instances: Sequence[Instance], conditions: Conditions, label: str
    ) -> list[dict[str, float]]:
        """Compute the COCO metrics of each instance, those of ``detect.evaluation.detection.evaluate``.

        Args:
            checkpoint: one that ``check`` accepts, on the device of the conditions; the plain network is in use
                afterwards.
            instances: of the checkpoint.
            conditions: image size, batch size, device, ...
            label: of the progress bar.
        """
        model, clock = checkpoint.detector, Clock(conditions.device, detection.PARTS)
        label_of = match_classes(checkpoint.names, self.table.names)
        settings = replace(COCO_SETTINGS, classes=shared_classes(label_of))
        network = partial(run_network, model, device=conditions.device, precision=conditions.precision)
        step = partial(detection.detect_batch, network, settings, checkpoint.names, clock)
        loader = detection.open_loader(self.table, conditions, model.max_reduction)
        found = _outputs_of_instances(model, instances, loader, step, clock, label)
        bar = progress_bar(found, f"{label}: AP")
        return [coco_metrics(self.table, collect(outputs, label_of), self.engine).values for outputs in bar]


@dataclass(frozen=True)
class ClassificationSplit:
    """Images of one class each.

    Args:
        table: the split.
        center_crop: share of the image's short side that the network sees, in (0, 1].
    """

    table: ClassTable
    center_crop: float = 1.0
    metric: ClassVar[str] = "top1"
    """Instances are compared by it."""
    shown: ClassVar[tuple[str, ...]] = ("top1", "top5", "loss")
    """Columns of the table."""

    def check(self, checkpoint: Checkpoint, conditions: Conditions) -> None:
        """Check as ``DetectionSplit.check``."""
        _check(checkpoint.classifier, checkpoint.names, self.table.names, conditions)

    def measure(
        self, checkpoint: Checkpoint, instances: Sequence[Instance], conditions: Conditions, label: str
    ) -> list[dict[str, float]]:
        """Compute accuracy and loss of each instance; arguments as for ``DetectionSplit``."""
        model, clock = checkpoint.classifier, Clock(conditions.device, classification.PARTS)
        label_of = match_classes(checkpoint.names, self.table.names)
        loader = classification.open_class_loader(self.table, conditions, self.center_crop)
        step = partial(classification.classify_batch, model, conditions, clock)
        metrics = []
        for outputs in _outputs_of_instances(model, instances, loader, step, clock, label):
            logits = classification.gather_logits(outputs, len(self.table), len(label_of))
            scores = classification.class_scores(torch.from_numpy(logits), label_of, len(self.table.names))
            found = classification.class_metrics(scores.numpy(), self.table.labels, self.table.names)
            metrics.append(found.values)
        return metrics


def _outputs_of_instances(
    model: Model, instances: Sequence[Instance], loader: Iterable[Batch], step: Step[Output], clock: Clock, label: str
) -> list[dict[int, Output]]:
    """The outputs of ``run_evaluation`` for each instance, each batch through all of them."""

    def run_instances(batch: Batch) -> list[tuple[Output, ...]]:
        outputs = []
        for instance in instances:
            use_instance(model, instance)
            outputs.append(step(batch))
        return list(zip(*outputs, strict=True))

    with evaluation_mode(model):
        found = run_evaluation(loader, run_instances, clock, label)
    use_instance(model, PLAIN)
    return [{row: outputs[number] for row, outputs in found.items()} for number in range(len(instances))]


def _check(model: Model, names: tuple[str, ...], data_names: tuple[str, ...], conditions: Conditions) -> None:
    conditions.check(model.max_reduction)
    match_classes(names, data_names)
