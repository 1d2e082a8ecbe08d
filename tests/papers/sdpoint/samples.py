"""Checkpoints with instances, and a comparison whose numbers are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from detect.models.build import build_classifier, build_model
from detect.models.checkpoint import Checkpoint
from detect.models.model import Model
from detect.models.norms import Statistics, named_norms
from detect.papers.sdpoint.comparison import Baseline, Comparison, SizeRecord
from detect.papers.sdpoint.instances import InstanceRecord, Instances, install
from detect.papers.sdpoint.transform import Instance, Way, list_instances
from tests.models.yamls import TWO_POINTS, TWO_POINTS_BOXES, TWO_POINTS_CLASSES, read_model, write_model

MEASURED = {"data": "shapes", "split": "val", "image_size": 32, "precision": "fp32", "device": "cpu"}


def record(point: int, ratio: float, macs: int, metric: float, name: str = "AP") -> InstanceRecord:
    """What is known of an instance; it takes a millisecond for 100 multiply-adds."""
    return InstanceRecord(Instance(point, ratio), macs, macs / 100, {name: metric})


RECORDS = (
    record(0, 1.0, 1000, 0.50),
    record(1, 0.5, 250, 0.30),
    record(1, 0.75, 600, 0.45),
    record(2, 0.5, 650, 0.40),  # 1@0.75 is cheaper and better
    record(2, 0.75, 900, 0.52),  # better than the plain network, which it so keeps off the front
)


def detector(folder: Path, records: tuple[InstanceRecord, ...] = RECORDS, way: Way = "restore") -> Checkpoint:
    """An untrained detector of two classes with two points; its instances have norms of their own."""
    torch.manual_seed(0)
    return _checkpoint(
        build_model(read_model(write_model(folder, TWO_POINTS + TWO_POINTS_BOXES)), 2).eval(), records, way
    )


def classifier(folder: Path, records: tuple[InstanceRecord, ...] = ()) -> Checkpoint:
    """An untrained classifier of three classes with two points; its instances have norms of their own."""
    torch.manual_seed(0)
    model = build_classifier(read_model(write_model(folder, TWO_POINTS + TWO_POINTS_CLASSES)), 3)
    return _checkpoint(model.eval(), records, "restore")


def comparison(**changes: Any) -> Comparison:
    """``RECORDS`` beside the plain network at three image sizes and a better network at two."""
    own = Baseline("sd.pt", "tiny", (size(16, 200, 0.1), size(24, 600, 0.3), size(32, 1000, 0.5)))
    other = Baseline("plain.pt", "tiny", (size(24, 600, 0.5), size(32, 1000, 0.6)))
    facts = {
        "metric": "AP",
        "shown": ("AP",),
        "records": RECORDS,
        "baselines": (own, other),
        "has_own_norms": True,
        "measured": MEASURED,
    }
    return Comparison(**(facts | changes))


def size(image_size: int, macs: int, metric: float) -> SizeRecord:
    """What is known of the plain network at an image size."""
    return SizeRecord(image_size, macs, macs / 100, {"AP": metric})


def _checkpoint(model: Model, records: tuple[InstanceRecord, ...], way: Way) -> Checkpoint:
    members = tuple(list_instances((1, 2), (0.5, 0.75)))
    statistics = {member: _statistics(model) for member in members[1:]}
    instances = Instances(members, way, statistics, records, MEASURED)
    install(model, instances)
    names = ("a", "b", "c")[: model.num_classes]
    return Checkpoint(model, names, tuple(range(len(names))), 32, {}, {}, None, 1.0, {"instances": instances})


def _statistics(model: Model) -> Statistics:
    """Of the last norm: means and variances that are not the start's."""
    path, norm = list(named_norms(model.graph))[-1]
    return {path: (torch.full((norm.num_features,), 0.5), torch.full((norm.num_features,), 2.0))}
