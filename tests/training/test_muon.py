"""Muon's steps by hand, its groups, and its state."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from detect.config.model import Convolutions
from detect.config.recipe import OptimizerConfig
from detect.models.blocks.conv import replace_convolutions
from detect.training.muon import Muon, orthogonalise
from detect.training.optimizer import build_optimizer


def moved(singular_value):
    """The singular value of a matrix of norm 1 after the five iterations."""
    for _ in range(5):
        singular_value = 3.4445 * singular_value - 4.7750 * singular_value**3 + 2.0315 * singular_value**5
    return singular_value


def muon_of(*parameters, **settings):
    group = {"params": list(parameters), "name": "weights", "orthogonal": True, "filter_groups": 1, **settings}
    return Muon([group], lr=1.0, betas=(0.5, 0.999), dtype=torch.float32)


def test_singular_values_of_a_diagonal_matrix():
    """diag(3, 4) has norm 5: its singular values 0.6 and 0.8 move as the polynomial does, at any scale."""
    matrices = torch.stack([torch.diag(torch.tensor([3.0, 4.0])) * scale for scale in (1, 1e-6, 1e6)])
    expected = torch.diag(torch.tensor([moved(0.6), moved(0.8)]))
    torch.testing.assert_close(orthogonalise(matrices), expected.expand(3, 2, 2), rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 16, 64), (2, 64, 16), (1, 24, 24)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_singular_values_come_close_to_one(shape, dtype):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    values = torch.linalg.svdvals(orthogonalise(matrices, dtype))
    assert values[:, :-1].min() > 0.5  # of a square matrix the smallest may be close to 0
    assert values.max() < 1.3


def test_both_iterations_agree():
    """Wide matrices in float32 take the shorter way; turned into tall ones they take it too, square ones do not."""
    wide = torch.randn(2, 6, 20, generator=torch.Generator().manual_seed(2)) * torch.logspace(0, -3, 6)[:, None]
    padded = torch.cat([wide, torch.zeros(2, 14, 20)], dim=1)  # square: the same singular values, and zeros
    torch.testing.assert_close(orthogonalise(wide), orthogonalise(padded)[:, :6], rtol=0, atol=1e-4)
    torch.testing.assert_close(orthogonalise(wide.mT), orthogonalise(wide).mT, rtol=0, atol=1e-6)


def test_a_filter_without_a_gradient_comes_to_rest():
    """Its momentum halves with each step. As long as the norm is above 1e-7, steps are whole; 40 steps later they are
    near a thousandth, and 150 steps later, where the squares of the momentum are 0 in float32, nothing moves.
    """
    filters = nn.Parameter(torch.zeros(2, 2, 1, 1))
    optimizer = muon_of(filters, weight_decay=0.0)
    moves = []
    for number in range(240):
        before = filters.detach().clone()
        filters.grad = torch.diag(torch.tensor([3.0, 4.0])).view(2, 2, 1, 1) * (number == 0)
        optimizer.step()
        moves.append((filters.detach() - before).abs().max().item())
    assert min(moves[:20]) > 0.1
    assert 0 < max(moves[40:60]) < 2e-3
    assert max(moves[150:]) < 1e-12
    assert filters.isfinite().all()


def test_zeros_stay():
    assert not orthogonalise(torch.zeros(2, 3, 4)).any()


def test_two_steps_by_hand():
    """Filters diag(3, 4) / 5, as 2 x 2 x 1 x 1: a constant gradient gives two equal steps of 0.2 * sqrt(2) * moved."""
    filters = nn.Parameter(torch.zeros(2, 2, 1, 1))
    optimizer = muon_of(filters, weight_decay=0.0)
    step = 0.2 * math.sqrt(2) * torch.diag(torch.tensor([moved(0.6), moved(0.8)]))
    for count in (1, 2):
        filters.grad = torch.diag(torch.tensor([3.0, 4.0])).view(2, 2, 1, 1)
        optimizer.step()
        torch.testing.assert_close(filters.detach().view(2, 2), -step * count, rtol=0, atol=1e-5)
    assert filters.grad is not None


def test_momentum_looks_ahead():
    """Momentum 0.5: after gradients of (1, 0) and (0, 1) the momentum is (1/4, 1/2), and looking ahead (1/8, 3/4)."""
    filters = nn.Parameter(torch.zeros(1, 2, 1, 1))
    optimizer = muon_of(filters, weight_decay=0.0)
    for gradient in ([1.0, 0.0], [0.0, 1.0]):
        before = filters.detach().clone()
        filters.grad = torch.tensor(gradient).view(1, 2, 1, 1)
        optimizer.step()
    x, y = (before - filters.detach()).flatten().tolist()
    assert y / x == pytest.approx(6, rel=1e-4)


def test_decay_is_of_the_weight_alone():
    filters = nn.Parameter(torch.full((1, 1, 1, 1), 2.0))
    filters.grad = torch.zeros(1, 1, 1, 1)
    muon_of(filters, weight_decay=0.25).step()
    assert filters.item() == 1.5


def test_each_group_of_filters_is_a_matrix():
    filters = nn.Parameter(torch.zeros(4, 2, 1, 1))
    filters.grad = torch.cat([torch.diag(torch.tensor([3.0, 4.0])), 100 * torch.diag(torch.tensor([4.0, 3.0]))]).view(
        4, 2, 1, 1
    )
    muon_of(filters, weight_decay=0.0, filter_groups=2).step()
    low, high = (0.2 * math.sqrt(2) * moved(value) for value in (0.6, 0.8))
    expected = -torch.tensor([[low, 0], [0, high], [high, 0], [0, low]])
    torch.testing.assert_close(filters.detach().view(4, 2), expected, rtol=0, atol=1e-5)


def test_filters_and_what_adamw_keeps():
    """Outputs with a bias, depthwise filters, masks, norms and linear layers learn by AdamW."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.Conv2d(4, 6, 3, groups=2, bias=False), nn.BatchNorm2d(6), nn.Conv2d(6, 5, 1)
    )
    separable = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, 3, bias=False), nn.Conv2d(6, 5, 1))
    masks = copy.deepcopy(separable)
    replace_convolutions(separable, Convolutions("depthwise"))
    replace_convolutions(masks, Convolutions("bdsc"))
    model.extend([separable, masks, nn.Flatten(), nn.Linear(5, 2, bias=False)])
    groups = build_optimizer(model, OptimizerConfig(name="muon"), 4).param_groups
    names = {parameter: name for name, parameter in model.named_parameters()}
    orthogonal = {names[p]: group["filter_groups"] for group in groups if group["orthogonal"] for p in group["params"]}
    assert orthogonal.pop("1.weight") == 2
    pointwise = {name for name in names.values() if name.endswith(("pointwise.weight", "project.weight"))}
    assert len(pointwise) == 2
    assert orthogonal == dict.fromkeys({"0.weight", *pointwise}, 1)
    assert sum(len(group["params"]) for group in groups) == len(names)
    assert {group["weight_decay"] for group in groups if group["orthogonal"]} == {0.0005}


def test_others_learn_as_with_adamw():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    twin = copy.deepcopy(model)
    for network, name in ((model, "muon"), (twin, "adamw")):
        optimizer = build_optimizer(network, OptimizerConfig(name=name), 4)
        for step in range(3):
            for parameter in network.parameters():
                parameter.grad = torch.sin(torch.arange(float(parameter.numel())) + step).view_as(parameter)
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


def test_a_loaded_state_goes_on_alike():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 1))
    optimizer = build_optimizer(model, OptimizerConfig(name="muon", lr=0.1), 4)

    def update(network, optimizer, number):
        for parameter in network.parameters():
            parameter.grad = torch.sin(torch.arange(float(parameter.numel())) * (number + 1)).view_as(parameter)
        optimizer.step()

    for number in range(3):
        update(model, optimizer, number)
    twin = copy.deepcopy(model)
    resumed = build_optimizer(twin, OptimizerConfig(name="muon", lr=0.1), 4)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for number in range(3, 6):
        update(model, optimizer, number)
        update(twin, resumed, number)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))
