"""Instances of a trained network (SDPoint) as a checkpoint saves them: norms of their own and measured records."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from detect.errors import InputError
from detect.inference.instances import FixedCostError, InstanceEntry, InstanceMenu
from detect.inference.instances import pareto_front as front_of
from detect.models.checkpoint import Checkpoint
from detect.models.graph import Graph
from detect.models.model import Model
from detect.models.norms import Affine, Statistics, named_norms
from detect.papers.sdpoint.transform import PLAIN, Instance, Way, find_points, set_way, use_instance

NO_INSTANCES = (
    "the checkpoint has no instances, because it was trained without SDPoint; "
    "detect train --set 'sdpoint.ratios=[0.5, 0.75]' trains with it"
)
EXTRA = "instances"
"""Name of the checkpoint's entry."""


@dataclass(frozen=True)
class InstanceRecord:
    """Cost and metrics of an instance.

    Args:
        instance: point, ratio and scale.
        macs: multiply-adds of one image.
        ms: milliseconds of the network for one image, on the machine that measured.
        metrics: by name, as of an evaluation.
    """

    instance: Instance
    macs: int
    ms: float
    metrics: dict[str, float]


@dataclass(frozen=True)
class Instances:
    """The instances of a trained network; scales and shifts of their own are in its model (``InstanceNorms``).

    Args:
        members: instances of the training, the plain network first.
        way: treatment of a detector's levels behind a point.
        statistics: of the norms that differ from the plain network's, for each instance; empty where all share the
            statistics of the training.
        records: of a measurement on a split; empty without one.
        measured: data, split, image size, device and versions of the measurement.
    """

    members: tuple[Instance, ...]
    way: Way
    statistics: dict[Instance, Statistics] = field(default_factory=dict)
    records: tuple[InstanceRecord, ...] = ()
    measured: dict[str, Any] = field(default_factory=dict)

    def to_plain(self, model: Model) -> dict[str, Any]:
        """Plain values and tensors, for a checkpoint of the model."""
        return {
            "members": [_to_list(member) for member in self.members],
            "way": self.way,
            "statistics": [
                [_to_list(member), {path: [mean.cpu(), variance.cpu()] for path, (mean, variance) in norms.items()}]
                for member, norms in self.statistics.items()
            ],
            "affine": [
                [_to_list(member), {path: [value.detach().cpu() for value in pair] for path, pair in norms.items()}]
                for member, norms in affine_in(model).items()
                if member in self.members
            ],
            "records": [
                {"instance": _to_list(r.instance), "macs": r.macs, "ms": r.ms, "metrics": dict(r.metrics)}
                for r in self.records
            ],
            "measured": dict(self.measured),
        }


def read_extra(content: Mapping[str, Any], model: Model) -> Instances:
    """Read the instances of a checkpoint and install them in its model."""
    instances = read_instances(content, model.graph)
    install(model, instances, _read_affine(content, model.graph))
    return instances


def install(model: Model, instances: Instances, affine: Mapping[Instance, Affine] | None = None) -> None:
    """Give a model the way and the norms of instances; its plain network is active."""
    use_instance(model, PLAIN)
    set_way(model, instances.way)
    model.extras[EXTRA] = InstanceNorms(instances.statistics, affine or {})


def give_own_affine(model: Model, instances: Iterable[Instance], paths: Iterable[str]) -> None:
    """Give each instance but the plain network scales and shifts of its own, equal to the plain network's at first.

    Args:
        model: whose plain network is active; nothing changes if it has them, as in a resumed training.
        instances: of the model.
        paths: norms that learn.
    """
    if not affine_in(model):
        norms = dict(named_norms(model.graph))
        none = {path: (torch.zeros_like(norms[path].weight), torch.zeros_like(norms[path].bias)) for path in paths}
        model.extras[EXTRA] = InstanceNorms({}, {instance: none for instance in instances if instance != PLAIN})


def affine_in(model: Model) -> dict[Instance, Affine]:
    """Differences of scales and shifts from the plain network's, of the instances of a model that have their own."""
    return next((norms.affine for norms in model.extras.values() if isinstance(norms, InstanceNorms)), {})


def instances_in(checkpoint: Checkpoint) -> Instances | None:
    """The instances of a checkpoint; None if it was trained without SDPoint."""
    found = checkpoint.extras.get(EXTRA)
    return found if isinstance(found, Instances) else None


def instances_of(checkpoint: Checkpoint, where: str) -> Instances:
    """The instances of a checkpoint; an ``InputError`` with its place ``where`` if it was trained without SDPoint."""
    instances = instances_in(checkpoint)
    if instances is None:
        raise InputError(f"{where}: {NO_INSTANCES}")
    return instances


def pareto_front(
    records: Sequence[InstanceRecord], metric: str, cost: Literal["macs", "ms"] = "macs"
) -> list[InstanceRecord]:
    """The Pareto front of a metric over a cost, cheapest first; see ``detect.inference.instances.pareto_front``."""
    return front_of(records, lambda record: getattr(record, cost), lambda record: record.metrics[metric])


def menu_of(checkpoint: Checkpoint) -> InstanceMenu:
    """The measured instances of a checkpoint; errors as of ``InferenceNetwork.menu``."""
    instances = instances_in(checkpoint)
    if instances is None:
        raise FixedCostError(f"the cost cannot be chosen: {NO_INSTANCES}")
    if not instances.records:
        raise FixedCostError(
            "the cost cannot be chosen before the checkpoint's instances are measured: "
            "detect val --weights FILE --data DATA --instances"
        )
    metric = "top1" if checkpoint.model.definition.is_classifier else "AP"
    records, measured = instances.records, instances.measured
    is_whole = {"data", "split", "image_size"} <= measured.keys() and records[0].macs > 0
    values = [value for record in records for value in (record.ms, record.metrics.get(metric))]
    if not is_whole or not all(isinstance(value, (int, float)) and math.isfinite(value) for value in values):
        raise InputError("the cost cannot be chosen: the records of the instances are damaged; measure them again")
    full = records[0].macs
    entries = (InstanceEntry(r.instance.name, r.macs / full, r.macs, r.ms, r.metrics[metric]) for r in records)
    return InstanceMenu(tuple(entries), metric, f"{measured['data']} {measured['split']}, {measured['image_size']} px")


def with_instances(checkpoint: Checkpoint, instances: Instances) -> Checkpoint:
    return replace(checkpoint, extras={**checkpoint.extras, EXTRA: instances})


def read_instances(content: Mapping[str, Any], graph: Graph) -> Instances:
    """Read and check the content of ``Instances.to_plain``.

    Args:
        content: of a checkpoint.
        graph: whose points and norms the content names.

    Raises:
        InputError: the graph has no such point or norm, or a value is out of range.
    """
    members = tuple(_from_list(values, graph) for values in content["members"])
    if content["way"] not in get_args(Way) or members[:1] != (PLAIN,):
        raise InputError(
            f"instances: way must be one of {', '.join(get_args(Way))}, the first member the plain network"
        )
    norms = dict(named_norms(graph))
    statistics = {
        _from_list(member, graph): {path: _checked(path, values, norms) for path, values in found.items()}
        for member, found in content["statistics"]
    }
    records = tuple(
        InstanceRecord(_from_list(r["instance"], graph), int(r["macs"]), float(r["ms"]), dict(r["metrics"]))
        for r in content["records"]
    )
    return Instances(members, content["way"], statistics, records, dict(content["measured"]))


def _read_affine(content: Mapping[str, Any], graph: Graph) -> dict[Instance, Affine]:
    """Read and check scales and shifts; files of older versions have none."""
    norms = dict(named_norms(graph))
    return {
        _from_list(member, graph): {path: _of_channels(path, values, norms) for path, values in found.items()}
        for member, found in content.get("affine", ())
    }


class _AffineDifference(nn.Module):
    """Differences (C,) of an instance's weight and bias of a norm from the plain network's; no part of the state."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight.detach().clone()), nn.Parameter(bias.detach().clone())

    def exchange(self, norm: nn.Module) -> None:
        """Add the differences to a norm's weight and bias, which are kept here; a second call undoes it."""
        for name in ("weight", "bias"):
            kept: Any = self._parameters.pop(f"plain_{name}", None)
            if kept is None:
                self._parameters[f"plain_{name}"] = plain = norm.get_parameter(name)
                total = plain + self.get_parameter(name)
                # Only a training needs gradients; without them it can be copied, cast and moved as any parameter.
                is_learning = norm.training and total.requires_grad
                kept = total if is_learning else nn.Parameter(total.detach(), requires_grad=False)
            norm._parameters[name] = kept

    def _save_to_state_dict(self, *_: Any) -> None: ...
    def _load_from_state_dict(self, *_: Any) -> None: ...


class InstanceNorms(nn.Module):
    """Norms of each instance, which take the place of the plain network's while the instance is active.

    Statistics are buffers that change places. Of scales and shifts the differences from the plain network's are
    parameters: these move with those, which all instances train. Both move with the model, but are no part of its
    state: ``Instances`` saves them.

    Args:
        statistics: of the norms that differ from the plain network's.
        affine: differences of the instances that have scales and shifts of their own.
    """

    def __init__(self, statistics: Mapping[Instance, Statistics], affine: Mapping[Instance, Affine]) -> None:
        super().__init__()
        self._own: dict[Instance, dict[str, _AffineDifference]] = {
            instance: {path: _AffineDifference(*values) for path, values in norms.items()}
            for instance, norms in affine.items()
        }
        self._learning = nn.ModuleList(own for norms in self._own.values() for own in norms.values())
        self._slots: dict[Instance, dict[str, int]] = {}
        for instance, norms in statistics.items():
            slots = self._slots[instance] = {}
            for path, (mean, variance) in norms.items():
                slots[path] = number = len(self._buffers) // 2
                self.register_buffer(f"mean{number}", mean.clone(), persistent=False)
                self.register_buffer(f"variance{number}", variance.clone(), persistent=False)

    @property
    def affine(self) -> dict[Instance, Affine]:
        """Differences of the instances that have scales and shifts of their own."""
        return {
            instance: {path: (own.weight, own.bias) for path, own in norms.items()}
            for instance, norms in self._own.items()
        }

    def exchange(self, graph: Graph, instance: Instance) -> None:
        """Exchange the values of an instance with those in the graph; a second call undoes it."""
        differences, slots = self._own.get(instance, {}), self._slots.get(instance, {})
        for path in differences | slots:
            norm = graph.get_submodule(path)  # most of the time that this takes
            if path in differences:
                differences[path].exchange(norm)
            if path in slots:
                self._exchange_statistics(norm, slots[path])

    def _exchange_statistics(self, norm: nn.Module, number: int) -> None:
        for own, other in (("running_mean", f"mean{number}"), ("running_var", f"variance{number}")):
            norm._buffers[own], self._buffers[other] = self._buffers[other], norm._buffers[own]


def _to_list(instance: Instance) -> list[Any]:
    return [instance.point, instance.ratio, instance.scale]


def _from_list(values: Any, graph: Graph) -> Instance:
    """An instance; files of older versions have no scale."""
    point, ratio, scale = int(values[0]), float(values[1]), float(values[2]) if len(values) > 2 else 1.0
    count = len(find_points(graph))
    if not 0 <= point <= count or not 0 < ratio <= 1 or not 0 < scale <= 1:
        raise InputError(
            f"instances: {graph.definition.name} has {count} points, found {point}@{ratio:g} at scale {scale:g}"
        )
    return Instance(point, ratio, scale)


def _checked(path: str, values: Any, norms: dict[str, nn.BatchNorm2d]) -> tuple[Tensor, Tensor]:
    mean, variance = _of_channels(path, values, norms)
    if (variance < 0).any():
        raise InputError(f"instances: {path}: has a negative variance")
    return mean, variance


def _of_channels(path: str, values: Any, norms: dict[str, nn.BatchNorm2d]) -> tuple[Tensor, Tensor]:
    """Two finite values for each channel of a norm."""
    if path not in norms:
        raise InputError(f"instances: there is no norm {path}")
    first, second = values
    shape = (norms[path].num_features,)
    if first.shape != shape or second.shape != shape:
        raise InputError(f"instances: {path}: must hold two tensors {shape}")
    if not (torch.isfinite(first).all() and torch.isfinite(second).all()):
        raise InputError(f"instances: {path}: holds a value that is not finite")
    return first.float(), second.float()
