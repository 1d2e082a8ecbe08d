"""Comparison of the instances of a network (SDPoint), and of the plain network at lower image sizes as their baseline.

Letters: N images of the split, K classes, S side of the network input in pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
import torch

from detect.data.annotations import AnnotationTable
from detect.data.classification.table import ClassTable
from detect.evaluation import classification, detection
from detect.evaluation.coco import Engine, coco_metrics, collect
from detect.evaluation.forward import evaluation_mode, forward_of
from detect.evaluation.loop import Clock, Conditions, Step, match_classes, run_evaluation, shared_classes
from detect.evaluation.postprocess import COCO_SETTINGS
from detect.models.checkpoint import Checkpoint
from detect.models.model import Model
from detect.papers.sdpoint.instances import InstanceRecord, instances_of, pareto_front
from detect.papers.sdpoint.network import NetworkRun, network_ms
from detect.papers.sdpoint.transform import PLAIN, Instance, InstanceCosts, use_instance
from detect.runtime.progress import progress_bar
from detect.structures import Batch

Output = TypeVar("Output")

MAX_SIZES = 8
"""Maximum image sizes of a baseline."""


class Measured(NamedTuple):
    """Measurement of an instance on a split.

    Args:
        metrics: by name, as of an evaluation.
        is_right: (N,) bool of a classifier, its most probable class is the true one; None of a detector.
    """

    metrics: dict[str, float]
    is_right: np.ndarray | None = None


@dataclass(frozen=True)
class DetectionSplit:
    """Images with boxes.

    Args:
        table: a labelled split.
        engine: implementation of AP.
    """

    table: AnnotationTable
    engine: Engine = "pycocotools"
    metric: ClassVar[str] = "AP"
    """Metric of the comparison."""
    shown: ClassVar[tuple[str, ...]] = ("AP", "AP50", "AP_S", "AP_M", "AP_L")
    """Metrics of the table."""

    def check(self, checkpoint: Checkpoint, conditions: Conditions) -> None:
        """Raise ``InputError`` for another task, no class of the table, or conditions that do not suit it."""
        _check(checkpoint.detector, checkpoint.names, self.table.names, conditions)

    def measure(
        self, checkpoint: Checkpoint, instances: Sequence[Instance], conditions: Conditions, label: str
    ) -> list[Measured]:
        """The COCO metrics of each instance, as of ``detect.evaluation.detection.evaluate``.

        Args:
            checkpoint: accepted by ``check``, on the conditions' device; afterwards its plain network is active.
            instances: of it.
            conditions: of the measurement.
            label: of the progress bar.
        """
        model, clock = checkpoint.detector, Clock(conditions.device, detection.PARTS)
        label_of = match_classes(checkpoint.names, self.table.names)
        settings = replace(COCO_SETTINGS, classes=shared_classes(label_of))
        network = forward_of(model, conditions.device, conditions.precision)
        step = partial(detection.detect_batch, network, settings, checkpoint.names, clock)
        loader = detection.open_loader(self.table, conditions, model.max_reduction)
        found = _outputs_of_instances(model, instances, loader, step, clock, label)
        bar = progress_bar(found, f"{label}: AP")
        tables = (coco_metrics(self.table, collect(outputs, label_of), self.engine) for outputs in bar)
        return [Measured(table.values) for table in tables]


@dataclass(frozen=True)
class ClassificationSplit:
    """Images of one class each.

    Args:
        table: the split.
        center_crop: share of an image's short side that the network sees, in (0, 1].
    """

    table: ClassTable
    center_crop: float = 1.0
    metric: ClassVar[str] = "top1"
    """Metric of the comparison."""
    shown: ClassVar[tuple[str, ...]] = ("top1", "top5", "loss")
    """Metrics of the table."""

    def check(self, checkpoint: Checkpoint, conditions: Conditions) -> None:
        _check(checkpoint.classifier, checkpoint.names, self.table.names, conditions)

    def measure(
        self, checkpoint: Checkpoint, instances: Sequence[Instance], conditions: Conditions, label: str
    ) -> list[Measured]:
        """The metrics of each instance, as of ``evaluate_classifier``; arguments as of ``DetectionSplit``."""
        model, clock = checkpoint.classifier, Clock(conditions.device, classification.PARTS)
        label_of = match_classes(checkpoint.names, self.table.names)
        loader = classification.open_class_loader(self.table, conditions, self.center_crop)
        step = partial(classification.classify_batch, classification.logits_of(model, conditions), clock)
        metrics = []
        for outputs in _outputs_of_instances(model, instances, loader, step, clock, label):
            logits = classification.gather_logits(outputs, len(self.table), len(label_of))
            scores = classification.class_scores(torch.from_numpy(logits), label_of, len(self.table.names))
            found = classification.class_metrics(scores.numpy(), self.table.labels, self.table.names)
            answers = scores.nan_to_num(nan=-torch.inf).argmax(dim=1).numpy()
            is_right = (answers == self.table.labels) & ~scores.isnan().any(dim=1).numpy()
            metrics.append(Measured(found.values, is_right))
        return metrics


def _outputs_of_instances(
    model: Model, instances: Sequence[Instance], loader: Iterable[Batch], step: Step[Output], clock: Clock, label: str
) -> list[dict[int, Output]]:
    """The outputs of ``run_evaluation`` for each instance; each batch is read once for all of them."""

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


@dataclass(frozen=True)
class SizeRecord:
    """The plain network at an image size.

    Args:
        image_size: S.
        macs: multiply-adds of one image.
        ms: milliseconds of the network for one image.
        metrics: by name, as of an evaluation.
    """

    image_size: int
    macs: int
    ms: float
    metrics: dict[str, float]


@dataclass(frozen=True)
class Baseline:
    """A plain network at several image sizes.

    Args:
        source: the checkpoint's file.
        model: its model's name.
        sizes: cheapest first.
    """

    source: str
    model: str
    sizes: tuple[SizeRecord, ...]

    @property
    def title(self) -> str:
        """Model and run, for pictures, without a path of the machine."""
        return f"{self.model} ({run_name(Path(self.source))})"

    def at(self, macs: int, metric: str) -> float | None:
        """Interpolate the metric linearly at a number of multiply-adds; None outside the range of the sizes."""
        costs = [size.macs for size in self.sizes]
        if not costs[0] <= macs <= costs[-1]:
            return None
        return float(np.interp(macs, costs, [size.metrics[metric] for size in self.sizes]))


@dataclass(frozen=True)
class Comparison:
    """Result of a comparison.

    Args:
        metric: of the comparison.
        shown: metrics of the table.
        records: of all instances, the plain network first.
        baselines: the checkpoint's own plain network, and the given one that was trained without SDPoint.
        has_own_norms: each instance has norm statistics of its own.
        measured: data, split, image size, device and versions.
        is_right: of a classifier, (N,) bool of each instance: its most probable class is the true one.
    """

    metric: str
    shown: tuple[str, ...]
    records: tuple[InstanceRecord, ...]
    baselines: tuple[Baseline, ...]
    has_own_norms: bool
    measured: dict[str, Any]
    is_right: dict[Instance, np.ndarray] = field(default_factory=dict)

    @property
    def full_macs(self) -> int:
        """Multiply-adds of the plain network."""
        return self.records[0].macs

    @property
    def front(self) -> list[InstanceRecord]:
        """The Pareto front by multiply-adds."""
        return pareto_front(self.records, self.metric)

    @property
    def front_ms(self) -> list[InstanceRecord]:
        """The Pareto front by milliseconds."""
        return pareto_front(self.records, self.metric, "ms")


def run_name(weights: Path) -> str:
    """Name of the run that a checkpoint comes from: of ``runs/a/best.pt`` its folder, of ``weights/a.pt`` the file."""
    is_of_run = weights.stem.split("_")[0] in {"best", "last"}
    return weights.resolve().parent.name if is_of_run else weights.stem


def baseline_sizes(costs: InstanceCosts, multiple: int, image_size: int, cheapest: int) -> list[int]:
    """Image sizes at which the plain network's costs span those of the instances.

    They are multiples of ``multiple``, ascending, at most ``MAX_SIZES``, evenly spread over the costs. ``image_size``
    is the largest; the smallest has at most ``cheapest`` multiply-adds, if any size is that small.
    """
    macs = {size: costs.macs(PLAIN, (size, size)) for size in range(multiple, image_size + 1, multiple)}
    smallest = max((size for size in macs if macs[size] <= cheapest), default=multiple)
    sizes = [size for size in macs if size >= smallest]
    if len(sizes) <= MAX_SIZES:
        return sizes
    wanted = np.linspace(macs[smallest], macs[image_size], MAX_SIZES).tolist()
    return sorted({min(sizes, key=lambda size: abs(macs[size] - target)) for target in wanted})


def compare_instances(
    weights: tuple[str, Checkpoint],
    split: DetectionSplit | ClassificationSplit,
    conditions: Conditions,
    baseline: tuple[str, Checkpoint] | None,
    about: dict[str, Any],
) -> Comparison:
    """Measure all instances of a checkpoint, and its plain network at lower image sizes.

    Args:
        weights: file and content of a checkpoint that was trained with SDPoint.
        split: the images.
        conditions: of the measurement.
        baseline: file and content of a checkpoint that was trained without SDPoint.
        about: origin of the numbers, for ``Comparison.measured``.

    Raises:
        InputError: there are no instances, or the task, the classes or the image size do not fit.
    """
    instances = instances_of(weights[1], weights[0])
    members, size = instances.members, conditions.image_size
    networks = [weights] if baseline is None else [weights, baseline]
    for _, checkpoint in networks:
        split.check(checkpoint, conditions)
    for _, checkpoint in networks:
        checkpoint.model.to(conditions.device).to(memory_format=torch.channels_last)
    model = weights[1].model
    costs = [InstanceCosts(network.model.graph, network.model.num_classes) for _, network in networks]
    macs = [costs[0].macs(member, (size, size)) for member in members]
    plans = [_plan_sizes(*network, count, size, min(macs)) for network, count in zip(networks, costs, strict=True)]
    measured = _measure_instances(split, weights[1], members, conditions)
    metrics = [one.metrics for one in measured]
    runs = [NetworkRun(model, member, (size, size)) for member in members]
    times = network_ms([*runs, *(run for plan in plans for run in plan.runs)], conditions.device, conditions.precision)
    records = [InstanceRecord(*found) for found in zip(members, macs, times[: len(members)], metrics, strict=True)]
    times, baselines = times[len(members) :], []
    for plan in plans:
        known = {size: metrics[0]} if plan.checkpoint is weights[1] else {}
        baselines.append(plan.measure(split, conditions, times[: len(plan.macs)], known))
        times = times[len(plan.macs) :]
    is_right = {member: one.is_right for member, one in zip(members, measured, strict=True) if one.is_right is not None}
    has_own_norms = bool(instances.statistics)
    return Comparison(split.metric, split.shown, tuple(records), tuple(baselines), has_own_norms, about, is_right)


def _measure_instances(
    split: DetectionSplit | ClassificationSplit,
    checkpoint: Checkpoint,
    members: Sequence[Instance],
    conditions: Conditions,
) -> list[Measured]:
    """The measurement of each instance, at its image size."""
    found: dict[Instance, Measured] = {}
    full_hw, multiple = (conditions.image_size, conditions.image_size), checkpoint.model.max_reduction
    for scale in dict.fromkeys(member.scale for member in members):
        of_scale = [member for member in members if member.scale == scale]
        size, _ = of_scale[0].network_hw(full_hw, multiple)
        label = f"{len(of_scale)} instances at {size} px"
        metrics = split.measure(checkpoint, of_scale, replace(conditions, image_size=size), label)
        found.update(zip(of_scale, metrics, strict=True))
    return [found[member] for member in members]


@dataclass(frozen=True)
class _Plan:
    """The image sizes of a baseline, before they are measured.

    Args:
        source: the checkpoint's file.
        checkpoint: its content, on the device.
        macs: image size to multiply-adds, cheapest first.
    """

    source: str
    checkpoint: Checkpoint
    macs: dict[int, int]

    @property
    def runs(self) -> list[NetworkRun]:
        return [NetworkRun(self.checkpoint.model, PLAIN, (size, size)) for size in self.macs]

    def measure(
        self,
        split: DetectionSplit | ClassificationSplit,
        conditions: Conditions,
        times_ms: Sequence[float],
        known: dict[int, dict[str, float]],
    ) -> Baseline:
        records = []
        for (size, macs), ms in zip(self.macs.items(), times_ms, strict=True):
            metrics = known.get(size)
            if metrics is None:
                at_size = replace(conditions, image_size=size)
                (measured,) = split.measure(self.checkpoint, [PLAIN], at_size, f"baseline at {size} px")
                metrics = measured.metrics
            records.append(SizeRecord(size, macs, ms, metrics))
        return Baseline(self.source, self.checkpoint.model.definition.name, tuple(records))


def _plan_sizes(source: str, checkpoint: Checkpoint, costs: InstanceCosts, image_size: int, cheapest: int) -> _Plan:
    sizes = baseline_sizes(costs, checkpoint.model.max_reduction, image_size, cheapest)
    return _Plan(source, checkpoint, {size: costs.macs(PLAIN, (size, size)) for size in sizes})
