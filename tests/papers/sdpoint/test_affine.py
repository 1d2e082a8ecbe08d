"""Scales and shifts of the norms that each instance trains for itself."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from detect.errors import InputError
from detect.models.build import build_model
from detect.models.checkpoint import load_checkpoint, save_checkpoint
from detect.models.model import DetectionModel, affine_norms, fuse_conv_bn
from detect.models.norms import named_norms
from detect.papers.sdpoint.instances import Instances, affine_in, give_own_affine, install, read_extra
from detect.papers.sdpoint.strategy import SDPoint
from detect.papers.sdpoint.transform import PLAIN, Instance, use_instance
from detect.training.loop import train
from tests.models.yamls import TWO_POINTS, TWO_POINTS_BOXES, read_model, write_model
from tests.training.small import make_recipe, make_settings, make_shapes

CPU = torch.device("cpu")
HALF, THREE_QUARTERS = Instance(1, 0.5), Instance(1, 0.75)
NORM = "layers.c2.fuse.norm"


@pytest.fixture
def model(tmp_path: Path) -> DetectionModel:
    torch.manual_seed(0)
    return build_model(read_model(write_model(tmp_path, TWO_POINTS + TWO_POINTS_BOXES)), 2)


def strategy_of(model: DetectionModel, **changes: Any) -> SDPoint:
    return SDPoint(make_recipe(sdpoint={"ratios": [0.5], "affine": "own", **changes}), model, (), CPU, "fp32")  # type: ignore[arg-type]


def test_an_instance_learns_its_own(model: DetectionModel) -> None:
    """A gradient reaches the instance's differences and the values that all have, and no other instance's."""
    strategy = strategy_of(model, ratios=[0.5, 0.75])
    strategy._plan = [HALF]
    strategy.on_part(0)
    images = torch.rand(2, 3, 32, 32)
    sum(level.square().mean() for level in model(images)).backward()  # type: ignore[union-attr]
    strategy.on_batch_end(ends_update=True)
    own = affine_in(model)
    assert set(own) == set(strategy.instances) - {PLAIN}
    assert all(value.grad is not None for value in own[HALF][NORM])
    assert all(value.grad is None for value in own[THREE_QUARTERS][NORM])
    norm = dict(named_norms(model.graph))[NORM]
    assert torch.equal(norm.weight.grad, own[HALF][NORM][0].grad)
    assert model.graph.get_parameter(NORM.replace("norm", "conv.weight")).grad is not None


def test_they_begin_as_the_plain_network_and_are_no_part_of_its_state(model: DetectionModel) -> None:
    keys, before = set(model.state_dict()), [p for _, norm in named_norms(model.graph) for p in norm.parameters()]
    give_own_affine(model, (PLAIN, HALF), [NORM])
    assert set(model.state_dict()) == keys
    norm = dict(named_norms(model.graph))[NORM]
    weight = norm.weight.detach().clone()
    difference, _ = affine_in(model)[HALF][NORM]
    assert torch.equal(difference, torch.zeros(8))
    with torch.no_grad():
        difference += torch.arange(8)
    use_instance(model, HALF)
    assert torch.equal(norm.weight, weight + torch.arange(8))
    use_instance(model, PLAIN)
    assert all(
        a is b for a, b in zip([p for _, n in named_norms(model.graph) for p in n.parameters()], before, strict=True)
    )


def test_they_move_with_the_model(model: DetectionModel) -> None:
    install(model, Instances((PLAIN, HALF), "restore"), {HALF: {NORM: (torch.ones(8), torch.ones(8))}})
    norm = dict(named_norms(model.graph))[NORM]
    with torch.no_grad():
        use_instance(model, HALF)
    assert (norm.weight == 2).all()
    for dtype in (torch.float64, torch.float16):
        model.to(dtype)
        for instance in (PLAIN, HALF):
            with torch.no_grad():
                use_instance(model, instance)
            assert {norm.weight.dtype, norm.bias.dtype} == {dtype}
            assert (norm.weight == (1 if instance == PLAIN else 2)).all()


def test_a_checkpoint_keeps_those_of_its_members(tmp_path: Path, model: DetectionModel) -> None:
    own = {member: {NORM: (torch.rand(8), torch.rand(8))} for member in (HALF, THREE_QUARTERS)}
    instances = Instances((PLAIN, HALF), "restore")
    install(model, instances, own)
    facts: dict[str, Any] = {"names": ("a", "b"), "category_ids": (0, 1), "image_size": 32, "metrics": {}}
    save_checkpoint(tmp_path / "a.pt", model, **facts, provenance={}, extras={"instances": instances})
    found = load_checkpoint(tmp_path / "a.pt")
    assert list(affine_in(found.model)) == [HALF]
    x = torch.rand(1, 3, 32, 32)
    model.eval()
    for instance in (PLAIN, HALF, PLAIN):
        use_instance(model, instance)
        use_instance(found.model, instance)
        assert all(torch.equal(a, b) for a, b in zip(model(x), found.model(x), strict=True))


def test_an_active_instance_is_copied_for_an_export(model: DetectionModel) -> None:
    instances = Instances((PLAIN, HALF), "restore")
    install(model, instances, {HALF: {NORM: (torch.rand(8), torch.rand(8))}})
    x = torch.rand(1, 3, 32, 32)
    model.eval()
    plain = model(x)
    use_instance(model, HALF)
    expected = model(x)
    assert not torch.equal(plain[0], expected[0])
    for copied in (affine_norms(model), fuse_conv_bn(model)):
        for found, level in zip(copied(x), expected, strict=True):
            torch.testing.assert_close(found, level, rtol=1e-5, atol=1e-5)


def test_values_that_no_norm_has(model: DetectionModel) -> None:
    install(model, Instances((PLAIN, HALF), "restore"))
    content = Instances((PLAIN, HALF), "restore").to_plain(model)
    for values, message in (
        ({"layers.no": [torch.ones(8), torch.ones(8)]}, "there is no norm layers.no"),
        ({NORM: [torch.ones(7), torch.ones(8)]}, rf"{NORM}: must hold two tensors \(8,"),
        ({NORM: [torch.full((8,), torch.inf), torch.ones(8)]}, "a value that is not finite"),
    ):
        with pytest.raises(InputError, match=message):
            read_extra(content | {"affine": [[[1, 0.5], values]]}, model)
    without = {key: value for key, value in content.items() if key != "affine"}  # as of older versions
    read_extra(without, model)
    assert affine_in(model) == {}


def test_a_run(tmp_path: Path) -> None:
    """Each instance of the best checkpoint has differences that have learnt."""
    data = make_shapes(tmp_path / "data")
    settings = make_settings(
        tmp_path,
        data,
        epochs=2,
        seed=1,  # draws the instance
        sdpoint={"ratios": [0.5], "affine": "own", "norm_batches": 1},
        evaluation={"every": 2},
    )
    train(settings)
    found = load_checkpoint(settings.out / "best.pt")
    (own,) = affine_in(found.model).values()
    plain = dict(named_norms(found.model.graph))
    assert own.keys() == plain.keys()
    assert [path for path, (weight, bias) in own.items() if not (weight.any() and bias.any())] == []
    resumed = dataclasses.replace(settings, resume=True)
    before = (settings.out / "best.pt").read_bytes()
    train(resumed)
    assert (settings.out / "best.pt").read_bytes() == before
