"""How well several instances of a network (SDPoint) do on a split. Its images are read once for all of them.

Letters: N images of the split, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from detect.data.annotations import AnnotationTable
from detect.data.classification.loading import ClassEvaluationLoader
from detect.data.classification.table import ClassTable
from detect.data.detection.loading import EvaluationLoader
from detect.evaluation.classification import class_metrics, class_scores
from detect.evaluation.coco import Engine, coco_metrics, collect
from detect.evaluation.engine import check_ranges, match_classes, shared_classes
from detect.evaluation.predict import COCO_SETTINGS, evaluation_mode, postprocess, run_classifier, run_network
from detect.models.checkpoint import Checkpoint
from detect.models.model import Model
from detect.papers.sdpoint.transform import PLAIN, Instance, use_instance
from detect.runtime.device import Precision
from detect.runtime.progress import progress_bar
from detect.structures import Detections


@dataclass(frozen=True)
class Conditions:
    """How a split is looked at.

    Args:
        image_size: side of the network input in pixels; of a detector the long one.
        batch_size: images per batch.
        workers: processes that load images; 0 loads in this one.
        device: where to compute.
        precision: number format of the network.
        strict: refuse an image that cannot be read. Otherwise it counts as one in which nothing was found.
    """

    image_size: int
    batch_size: int
    workers: int
    device: torch.device
    precision: Precision = "fp32"
    strict: bool = False


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
    """What instances are compared by."""
    shown: ClassVar[tuple[str, ...]] = ("AP", "AP50", "AP_S", "AP_M", "AP_L")
    """Metrics that a table has room for."""

    def check(self, checkpoint: Checkpoint, conditions: Conditions) -> None:
        """Whether a checkpoint can be measured; to be asked before the work.

        Raises:
            InputError: it is of another task or has no class of the table, or the conditions do not suit it.
        """
        _check(checkpoint.detector, checkpoint.names, self.table.names, conditions)

    @torch.inference_mode()
    def measure(
        self, checkpoint: Checkpoint, instances: Sequence[Instance], conditions: Conditions, label: str
    ) -> list[dict[str, float]]:
        """The COCO metrics of each instance, as ``detect.evaluation.engine.evaluate`` gives them.

        Args:
            checkpoint: one that ``check`` does not refuse, on the conditions' device; runs the plain network
                afterwards.
            instances: of it.
            conditions: how the split is looked at.
            label: of the progress bar.
        """
        model, device = checkpoint.detector, conditions.device
        label_of = match_classes(checkpoint.names, self.table.names)
        settings = replace(COCO_SETTINGS, classes=shared_classes(label_of))
        loader = EvaluationLoader(
            self.table,
            conditions.image_size,
            conditions.batch_size,
            conditions.workers,
            multiple=model.max_reduction,
            strict=conditions.strict,
        )
        found: list[dict[int, Detections]] = [{} for _ in instances]
        with evaluation_mode(model):
            for batch in progress_bar(loader, label, unit="batch"):
                for instance, mine in zip(instances, found, strict=True):
                    use_instance(model, instance)
                    predictions = run_network(model, batch.images, device, conditions.precision)
                    detections = postprocess(predictions, batch.letterboxes, settings, checkpoint.names)
                    mine.update(zip(batch.rows.tolist(), detections, strict=True))
        use_instance(model, PLAIN)
        bar = progress_bar(found, f"{label}: AP")
        return [coco_metrics(self.table, collect(mine, label_of), self.engine).values for mine in bar]


@dataclass(frozen=True)
class ClassificationSplit:
    """Images of one class each.

    Args:
        table: the split.
        center_crop: the network looks at so much of an image's short side, in (0, 1].
    """

    table: ClassTable
    center_crop: float = 1.0
    metric: ClassVar[str] = "top1"
    """What instances are compared by."""
    shown: ClassVar[tuple[str, ...]] = ("top1", "top5", "loss")
    """Metrics that a table has room for."""

    def check(self, checkpoint: Checkpoint, conditions: Conditions) -> None:
        """See ``DetectionSplit``."""
        _check(checkpoint.classifier, checkpoint.names, self.table.names, conditions)

    @torch.inference_mode()
    def measure(
        self, checkpoint: Checkpoint, instances: Sequence[Instance], conditions: Conditions, label: str
    ) -> list[dict[str, float]]:
        """The metrics of each instance, as ``evaluate_classifier`` gives them; arguments as for ``DetectionSplit``."""
        model, device = checkpoint.classifier, conditions.device
        label_of = match_classes(checkpoint.names, self.table.names)
        loader = ClassEvaluationLoader(
            self.table,
            conditions.image_size,
            self.center_crop,
            conditions.batch_size,
            conditions.workers,
            strict=conditions.strict,
        )
        logits = torch.full((len(instances), len(self.table), len(label_of)), torch.nan)
        with evaluation_mode(model):
            for batch in progress_bar(loader, label, unit="batch"):
                for instance, mine in zip(instances, logits, strict=True):
                    use_instance(model, instance)
                    found = run_classifier(model, batch.images, device, conditions.precision)
                    mine[batch.rows] = found.cpu()
        use_instance(model, PLAIN)
        scores = class_scores(logits, label_of, len(self.table.names))
        return [class_metrics(mine.numpy(), self.table.labels, self.table.names).values for mine in scores]


def _check(model: Model, names: tuple[str, ...], data_names: tuple[str, ...], conditions: Conditions) -> None:
    check_ranges(conditions.image_size, model.max_reduction, conditions.batch_size, conditions.workers)
    match_classes(names, data_names)
