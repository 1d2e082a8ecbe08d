"""What a checkpoint keeps of the instances of a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from detect.errors import InputError
from detect.models.build import build_model
from detect.models.checkpoint import load_checkpoint, save_checkpoint
from detect.models.model import DetectionModel
from detect.papers.sdpoint.instances import (
    InstanceRecord,
    Instances,
    install,
    instances_in,
    named_norms,
    read_instances,
)
from detect.papers.sdpoint.transform import PLAIN, Instance, use_instance, way_of
from tests.models.yamls import TWO_POINTS, TWO_POINTS_BOXES, read_model, write_model

HALF = Instance(1, 0.5)


@pytest.fixture
def model(tmp_path: Path) -> DetectionModel:
    torch.manual_seed(0)
    return build_model(read_model(write_model(tmp_path, TWO_POINTS + TWO_POINTS_BOXES)), 2).eval()


def statistics_of(model: DetectionModel, paths: list[str]) -> dict[str, Any]:
    """Means of 0.5 and variances of 2."""
    norms = dict(named_norms(model.graph))
    return {p: (torch.full((norms[p].num_features,), 0.5), torch.full((norms[p].num_features,), 2.0)) for p in paths}


@pytest.fixture
def instances(model: DetectionModel) -> Instances:
    statistics = {HALF: statistics_of(model, ["layers.down.conv.norm", "layers.c2.fuse.norm"])}
    records = (InstanceRecord(PLAIN, 100, 2.0, {"AP": 0.5}), InstanceRecord(HALF, 40, 1.0, {"AP": 0.25}))
    return Instances((PLAIN, HALF), "shrink", statistics, records, {"split": "val"})


def test_round_trip_through_a_checkpoint(tmp_path: Path, model: DetectionModel, instances: Instances) -> None:
    facts: dict[str, Any] = {"names": ("a", "b"), "category_ids": (0, 1), "image_size": 64, "metrics": {}}
    save_checkpoint(tmp_path / "a.pt", model, **facts, provenance={}, extras={"instances": instances})
    found = load_checkpoint(tmp_path / "a.pt")
    assert instances_in(found) is not None
    assert instances_in(found).members == instances.members
    assert instances_in(found).records == instances.records
    assert instances_in(found).measured == {"split": "val"}
    assert way_of(found.model) == "shrink"
    assert list(instances_in(found).statistics) == [HALF]
    assert list(instances_in(found).statistics[HALF]) == ["layers.down.conv.norm", "layers.c2.fuse.norm"]
    x = torch.rand(1, 3, 32, 32)
    install(model, instances)
    for instance in (PLAIN, HALF, PLAIN):
        use_instance(model, instance)
        use_instance(found.model, instance)
        assert all(torch.equal(a, b) for a, b in zip(model(x), found.model(x), strict=True))


def test_statistics_change_places(model: DetectionModel, instances: Instances) -> None:
    norms = dict(named_norms(model.graph))
    own = {path: norm.running_mean for path, norm in norms.items()}
    install(model, instances)
    use_instance(model, HALF)
    changed = [path for path, norm in norms.items() if norm.running_mean is not own[path]]
    assert changed == ["layers.down.conv.norm", "layers.c2.fuse.norm"]
    assert all((norms[path].running_var == 2).all() for path in changed)
    use_instance(model, HALF)  # no change
    assert all((norms[path].running_var == 2).all() for path in changed)
    use_instance(model, PLAIN)
    assert all(norm.running_mean is own[path] for path, norm in norms.items())


def test_statistics_move_with_the_model_and_are_no_part_of_its_state(
    model: DetectionModel, instances: Instances
) -> None:
    keys = set(model.state_dict())
    install(model, instances)
    assert set(model.state_dict()) == keys
    model.double()
    use_instance(model, HALF)
    assert {norm.running_mean.dtype for _, norm in named_norms(model.graph)} == {torch.float64}
    model.half()
    use_instance(model, PLAIN)
    assert {norm.running_mean.dtype for _, norm in named_norms(model.graph)} == {torch.float16}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"way": "widen"}, "way must be one of restore, shrink"),
        ({"members": [[1, 0.5]]}, "the first member the plain network"),
        ({"members": [[0, 1.0], [3, 0.5]]}, "two-points has 2 points, found 3@0.5"),
        ({"members": [[0, 1.0], [1, 1.5]]}, "two-points has 2 points, found 1@1.5"),
        ({"statistics": [[[1, 0.5], {"layers.no": [torch.zeros(8), torch.ones(8)]}]]}, "there is no norm layers.no"),
        ({"statistics": [[[1, 0.5], {"layers.down.conv.norm": [torch.zeros(7), torch.ones(8)]}]]}, r"two tensors \(8,"),
        (
            {"statistics": [[[1, 0.5], {"layers.down.conv.norm": [torch.zeros(8), -torch.ones(8)]}]]},
            "has a negative variance",
        ),
        (
            {"statistics": [[[1, 0.5], {"layers.down.conv.norm": [torch.full((8,), torch.nan), torch.ones(8)]}]]},
            "a value that is not finite",
        ),
    ],
)
def test_what_no_network_has(
    model: DetectionModel, instances: Instances, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read_instances(instances.to_plain(model) | changes, model.graph)
