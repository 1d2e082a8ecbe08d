"""The groups of parameters, and the rates by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from detect.config.model import Convolutions
from detect.config.recipe import OptimizerConfig
from detect.models.blocks.conv import replace_convolutions
from detect.models.build import build_model
from detect.training.optimizer import Schedule, build_optimizer
from tests.training.small import write_model


def groups_of(optimizer):
    """Each parameter group by its name."""
    return {group["name"]: group for group in optimizer.param_groups}


# ---------------------------------------------------------------------------------------------- groups


def test_every_parameter_is_in_the_group_of_its_kind(tmp_path):
    model = build_model(write_model(tmp_path), num_classes=2)
    groups = groups_of(build_optimizer(model, OptimizerConfig(), 64))
    expected = {"weights": set(), "norms": set(), "biases": set()}
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            expected["weights"].add(layer.weight)
            expected["biases"] |= {layer.bias} - {None}
        elif isinstance(layer, nn.BatchNorm2d):
            expected["norms"].add(layer.weight)
            expected["biases"].add(layer.bias)
    assert {name: set(group["params"]) for name, group in groups.items()} == expected
    assert sum(len(group["params"]) for group in groups.values()) == len(list(model.parameters()))


# SGD's decay is stated for 64 images per update: 0.0005 * 64 / 64, * 16 / 64, * 128 / 64. AdamW's is decoupled from
# the gradient, so it does not grow with the number of images.
@pytest.mark.parametrize(
    ("name", "images_per_update", "decay"),
    [("sgd", 64, 0.0005), ("sgd", 16, 0.000125), ("sgd", 128, 0.001), ("adamw", 16, 0.0005), ("adamw", 128, 0.0005)],
)
def test_only_weights_decay(name, images_per_update, decay):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    config = OptimizerConfig(name=name, weight_decay=0.0005)
    groups = groups_of(build_optimizer(model, config, images_per_update))
    assert {key: group["weight_decay"] for key, group in groups.items()} == {"weights": decay, "norms": 0, "biases": 0}


@pytest.mark.parametrize("nesterov", [True, False])
def test_nesterov(nesterov):
    """Two gradients of 1: the plain steps are 1 and 1.5, Nesterov's look ahead, 1 + 1 / 2 and 1 + 1.5 / 2."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    config = OptimizerConfig(lr=1, momentum=0.5, weight_decay=0, nesterov=nesterov)
    optimizer = build_optimizer(model, config, 64)
    for _ in range(2):
        model.weight.grad = torch.ones(1, 1)
        optimizer.step()
    assert model.weight.item() == (-3.25 if nesterov else -2.5)


def test_all_but_listed_filters_decay():
    model = decoupled("depthwise")
    groups = groups_of(build_optimizer(model, OptimizerConfig(norm_decay=True), 64))
    assert {name: group["weight_decay"] for name, group in groups.items()} == {
        "weights": 0.0005,
        "norms": 0,
        "biases": 0.0005,
    }
    assert groups["norms"]["params"] == [model.get_parameter("1.depthwise.weight")]
    assert any(parameter is model.get_parameter("1.norm.weight") for parameter in groups["weights"]["params"])


def decoupled(kind):
    """One convolution of that kind between two ordinary ones."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, 3), nn.Conv2d(6, 5, 1))
    replace_convolutions(model, Convolutions(kind))
    return model


@pytest.mark.parametrize(
    ("kind", "mask_decay", "without"),
    [
        ("depthwise", True, ["1.depthwise.weight"]),
        ("depthwise", False, ["1.depthwise.weight"]),
        ("bdsc", True, []),
        ("bdsc", False, ["1.spatial.weight"]),
        ("bdsc-float", False, []),  # ordinary weights
    ],
)
def test_convolutions_without_decay(kind, mask_decay, without):
    """They learn with the norms, whose rate is that of the weights."""
    model = decoupled(kind)
    groups = groups_of(build_optimizer(model, OptimizerConfig(mask_decay=mask_decay), 64))
    parameters = dict(model.named_parameters())
    moved = {parameters[name] for name in without}
    assert set(groups["norms"]["params"]) == {parameters["1.norm.weight"]} | moved
    assert set(groups["weights"]["params"]) == {p for p in parameters.values() if p.ndim > 1} - moved
    assert groups["norms"]["weight_decay"] == 0
    rates = schedule(warmup_epochs=2)
    assert [rates.rate(i, "norms") for i in range(100)] == [rates.rate(i, "weights") for i in range(100)]


def test_what_is_frozen_is_in_no_group():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    model[1].requires_grad_(False)
    groups = groups_of(build_optimizer(model, OptimizerConfig(), 64))
    assert {name: len(group["params"]) for name, group in groups.items()} == {"weights": 1, "biases": 1}


def test_the_optimizers():
    model = nn.Conv2d(3, 4, 1)
    sgd = build_optimizer(model, OptimizerConfig(momentum=0.9), 64)
    assert isinstance(sgd, torch.optim.SGD)
    assert [(group["momentum"], group["nesterov"]) for group in sgd.param_groups] == [(0.9, True)] * 2
    plain = build_optimizer(model, OptimizerConfig(momentum=0), 64)  # Nesterov without momentum is refused by PyTorch
    assert not plain.param_groups[0]["nesterov"]
    adamw = build_optimizer(model, OptimizerConfig(name="adamw", momentum=0.9), 64)
    assert isinstance(adamw, torch.optim.AdamW)
    assert adamw.param_groups[0]["betas"] == (0.9, 0.999)


# --------------------------------------------------------------------------------------------- schedule


def schedule(updates_per_epoch=10, epochs=10, **changes):
    return Schedule(OptimizerConfig(**({"warmup_min_steps": 0} | changes)), updates_per_epoch, epochs)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"warmup_epochs": 0, "warmup_min_steps": 100}, 0),  # none asked for
        ({"warmup_epochs": 3}, 30),
        ({"warmup_epochs": 0.25}, 2),  # 2.5 updates, to the even neighbour
        ({"warmup_epochs": 1, "warmup_min_steps": 40}, 40),
        ({"warmup_epochs": 3, "warmup_min_steps": 100}, 50),  # at most half of the 100 updates
        ({"warmup_epochs": 30}, 50),
    ],
)
def test_length_of_the_warm_up(changes, expected):
    assert schedule(**changes).warmup_updates == expected


def test_cosine_ends_exactly_at_the_last_update():
    rates = schedule(updates_per_epoch=3, epochs=3, lr=0.2, final_lr_factor=0.1, warmup_epochs=0)
    # 9 updates: 0 is the peak, 8 the end, 4 the middle between 0.2 and 0.02; at 2 the cosine has fallen to
    # (1 + cos(pi / 4)) / 2 = (2 + sqrt(2)) / 4.
    assert rates.rate(0, "weights") == 0.2
    assert rates.rate(4, "weights") == pytest.approx(0.11, rel=1e-12)
    assert rates.rate(2, "weights") == pytest.approx(0.02 + 0.18 * (2 + math.sqrt(2)) / 4, rel=1e-12)
    assert rates.rate(8, "weights") == pytest.approx(0.02, rel=1e-12)
    assert rates.rate(9, "weights") == pytest.approx(0.02, rel=1e-12)


def test_linear_and_constant():
    linear = schedule(updates_per_epoch=5, epochs=1, lr=1.0, final_lr_factor=0.2, warmup_epochs=0, schedule="linear")
    assert [linear.rate(i, "norms") for i in range(5)] == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])
    constant = schedule(lr=0.3, warmup_epochs=0, schedule="constant")
    assert [constant.rate(i, "weights") for i in (0, 50, 99)] == [0.3, 0.3, 0.3]


def test_step():
    """0.1 from update 8 of 10 on and 0.01 from 9 on; the final factor is of the other schedules."""
    rates = schedule(updates_per_epoch=5, epochs=2, lr=0.2, warmup_epochs=0, schedule="step", final_lr_factor=0.5)
    assert [rates.rate(i, "weights") for i in range(7, 10)] == pytest.approx([0.2, 0.02, 0.002])
    halved = schedule(warmup_epochs=0, lr=1.0, schedule="step", milestones=(0.5, 0.25), step_factor=0.5)
    assert [halved.rate(i, "norms") for i in (0, 24, 25, 49, 50, 99)] == [1, 1, 0.5, 0.5, 0.25, 0.25]
    assert schedule(warmup_epochs=0, lr=1.0, schedule="step", milestones=()).rate(99, "norms") == 1


def test_poly():
    """(1 - progress) ** power between the peak and the end: at 3 of 0 to 4 (1/4)^2 = 1/16 of the way is left."""
    rates = schedule(
        updates_per_epoch=5, epochs=1, warmup_epochs=0, lr=1.0, final_lr_factor=0, schedule="poly", power=2
    )
    assert [rates.rate(i, "weights") for i in range(5)] == pytest.approx([1, 9 / 16, 1 / 4, 1 / 16, 0])
    above = schedule(updates_per_epoch=5, epochs=1, warmup_epochs=0, lr=1.0, final_lr_factor=0.2, schedule="poly")
    assert above.rate(2, "weights") == pytest.approx(0.2 + 0.8 / 16)  # the power is 4
    assert above.rate(4, "weights") == pytest.approx(0.2)


def test_one_update_in_all():
    assert schedule(updates_per_epoch=1, epochs=1, lr=0.1, warmup_epochs=3).rate(0, "weights") == 0.1


def test_warm_up_is_linear():
    # 4 warm-up updates take 1/5, 2/5, 3/5, 4/5 of the way; the fifth has arrived. Biases come from above.
    rates = schedule(lr=0.1, schedule="constant", warmup_epochs=0.4, warmup_bias_lr=0.6, momentum=0.9)
    for group in ("weights", "norms"):
        assert [rates.rate(i, group) for i in range(5)] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1])
    assert [rates.rate(i, "biases") for i in range(5)] == pytest.approx([0.5, 0.4, 0.3, 0.2, 0.1])
    assert [rates.momentum(i) for i in range(5)] == pytest.approx([0.82, 0.84, 0.86, 0.88, 0.9])


def test_momentum_never_starts_above_its_goal():
    rates = schedule(momentum=0.5, warmup_momentum=0.8, warmup_epochs=1)
    assert [rates.momentum(i) for i in (0, 5, 10)] == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(("name", "found"), [("sgd", "momentum"), ("adamw", "betas")])
def test_apply(name, found):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    rates = schedule(name=name, lr=0.1, schedule="constant", warmup_epochs=0.4, warmup_bias_lr=0.6, momentum=0.9)
    optimizer = build_optimizer(model, rates.config, 64)
    rates.apply(optimizer, 0)
    groups = groups_of(optimizer)
    assert {key: group["lr"] for key, group in groups.items()} == pytest.approx(
        {"weights": 0.02, "norms": 0.02, "biases": 0.5}
    )
    for group in groups.values():
        assert group[found] == pytest.approx(0.82 if name == "sgd" else (0.82, 0.999))
