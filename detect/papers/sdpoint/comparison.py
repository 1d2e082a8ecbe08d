"""The instances of a network (SDPoint) against each other, and against what anybody can do without them: the plain
network at lower image sizes.

Letters: S side of the network input in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from detect.errors import InputError
from detect.evaluation.loop import Conditions
from detect.models.checkpoint import Checkpoint
from detect.papers.sdpoint.instances import InstanceRecord, Instances, instances_in
from detect.papers.sdpoint.metrics import ClassificationSplit, DetectionSplit
from detect.papers.sdpoint.network_time import NetworkRun, network_ms
from detect.papers.sdpoint.transform import PLAIN, InstanceCosts

NO_INSTANCES = (
    "the checkpoint has no instances, because it was trained without SDPoint; "
    "tools/train.py --set 'sdpoint.ratios=[0.5, 0.75]' trains with it"
)
MAX_SIZES = 8
"""Image sizes of a baseline, at most."""


@dataclass(frozen=True)
class SizeRecord:
    """The plain network at an image size.

    Args:
        image_size: S.
        macs: multiply-adds of one image.
        ms: milliseconds of the network for one image.
        metrics: by name, as an evaluation gives them.
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
        """Model and run, for pictures: never a path of the machine."""
        return f"{self.model} ({run_name(Path(self.source))})"

    def at(self, macs: int, metric: str) -> float | None:
        """The metric at so many multiply-adds, linear between two sizes; None beyond the cheapest or costliest."""
        costs = [size.macs for size in self.sizes]
        if not costs[0] <= macs <= costs[-1]:
            return None
        return float(np.interp(macs, costs, [size.metrics[metric] for size in self.sizes]))


@dataclass(frozen=True)
class Comparison:
    """What came out.

    Args:
        metric: what instances are compared by.
        shown: metrics that a table has room for.
        records: of all instances, the plain network first.
        baselines: the checkpoint's own plain network, and perhaps one that was trained without SDPoint.
        has_own_norms: whether each instance has norms' statistics of its own.
        measured: how: data, split, image size, and where.
    """

    metric: str
    shown: tuple[str, ...]
    records: tuple[InstanceRecord, ...]
    baselines: tuple[Baseline, ...]
    has_own_norms: bool
    measured: dict[str, Any]

    @property
    def full_macs(self) -> int:
        """Multiply-adds of the plain network."""
        return self.records[0].macs

    @property
    def front(self) -> list[InstanceRecord]:
        """See ``pareto_front``."""
        return pareto_front(self.records, self.metric)


def run_name(weights: Path) -> str:
    """Name of the run that a checkpoint comes from: of ``runs/a/best.pt`` its folder, of ``weights/a.pt`` the file."""
    is_of_run = weights.stem.split("_")[0] in {"best", "last"}
    return weights.resolve().parent.name if is_of_run else weights.stem


def pareto_front(records: Sequence[InstanceRecord], metric: str) -> list[InstanceRecord]:
    """The records to which no other is at least as good and cheaper, or as cheap and better; cheapest first.

    Of several that are equal in both, the first counts.
    """
    front: list[InstanceRecord] = []
    for record in sorted(records, key=lambda record: (record.macs, -record.metrics[metric])):
        if not front or record.metrics[metric] > front[-1].metrics[metric]:
            front.append(record)
    return front


def baseline_sizes(costs: InstanceCosts, multiple: int, image_size: int, cheapest: int) -> list[int]:
    """Image sizes whose costs span those of the instances.

    Args:
        costs: of the plain network.
        multiple: what image sizes must be multiples of.
        image_size: S, one of them; the largest.
        cheapest: multiply-adds that the smallest one must not exceed, where there is one that small.

    Returns:
        Ascending; at most ``MAX_SIZES``, evenly spread over the costs.
    """
    macs = {size: costs.macs(PLAIN, (size, size)) for size in range(multiple, image_size + 1, multiple)}
    smallest = max((size for size in macs if macs[size] <= cheapest), default=multiple)
    sizes = [size for size in macs if size >= smallest]
    if len(sizes) <= MAX_SIZES:
        return sizes
    wanted = np.linspace(macs[smallest], macs[image_size], MAX_SIZES).tolist()
    return sorted({min(sizes, key=lambda size: abs(macs[size] - target)) for target in wanted})


def instances_of(checkpoint: Checkpoint, where: str) -> Instances:
    """The instances of a checkpoint.

    Args:
        checkpoint: perhaps of a network that was trained with SDPoint.
        where: its file, for the error.

    Raises:
        InputError: it was not.
    """
    instances = instances_in(checkpoint)
    if instances is None:
        raise InputError(f"{where}: {NO_INSTANCES}")
    return instances


def compare_instances(
    weights: tuple[str, Checkpoint],
    split: DetectionSplit | ClassificationSplit,
    conditions: Conditions,
    baseline: tuple[str, Checkpoint] | None,
    about: dict[str, Any],
) -> Comparison:
    """Measure all instances of a checkpoint, and its plain network at lower image sizes.

    Args:
        weights: file and content of a network that was trained with SDPoint.
        split: what is looked at.
        conditions: how.
        baseline: file and content of a network that was trained without it and is compared too.
        about: where the numbers come from, for ``Comparison.measured``.

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
    metrics = split.measure(weights[1], members, conditions, f"{len(members)} instances")
    runs = [NetworkRun(model, member, (size, size)) for member in members]
    times = network_ms([*runs, *(run for plan in plans for run in plan.runs)], conditions.device, conditions.precision)
    records = [InstanceRecord(*found) for found in zip(members, macs, times[: len(members)], metrics, strict=True)]
    times, baselines = times[len(members) :], []
    for plan in plans:
        known = {size: metrics[0]} if plan.checkpoint is weights[1] else {}
        baselines.append(plan.measure(split, conditions, times[: len(plan.macs)], known))
        times = times[len(plan.macs) :]
    return Comparison(split.metric, split.shown, tuple(records), tuple(baselines), bool(instances.statistics), about)


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
        """What is timed."""
        return [NetworkRun(self.checkpoint.model, PLAIN, (size, size)) for size in self.macs]

    def measure(
        self,
        split: DetectionSplit | ClassificationSplit,
        conditions: Conditions,
        times_ms: Sequence[float],
        known: dict[int, dict[str, float]],
    ) -> Baseline:
        """Measure those image sizes whose metrics are not known."""
        records = []
        for (size, macs), ms in zip(self.macs.items(), times_ms, strict=True):
            metrics = known.get(size)
            if metrics is None:
                at_size = replace(conditions, image_size=size)
                (metrics,) = split.measure(self.checkpoint, [PLAIN], at_size, f"baseline at {size} px")
            records.append(SizeRecord(size, macs, ms, metrics))
        return Baseline(self.source, self.checkpoint.model.definition.name, tuple(records))


def _plan_sizes(source: str, checkpoint: Checkpoint, costs: InstanceCosts, image_size: int, cheapest: int) -> _Plan:
    sizes = baseline_sizes(costs, checkpoint.model.max_reduction, image_size, cheapest)
    return _Plan(source, checkpoint, {size: costs.macs(PLAIN, (size, size)) for size in sizes})
