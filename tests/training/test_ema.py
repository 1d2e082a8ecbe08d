from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from detect.config.recipe import EmaConfig
from detect.training.optimizer import build_ema


def one_norm(weight=0.0, mean=0.0, batches=0):
    """A batch norm of one channel: a parameter, a floating-point buffer and a counter."""
    norm = nn.BatchNorm2d(1)
    with torch.no_grad():
        norm.weight.fill_(weight)
    norm.running_mean.fill_(mean)
    norm.num_batches_tracked.fill_(batches)
    return norm


def test_the_first_update_copies():
    ema = build_ema(one_norm(), EmaConfig(decay=0.9, ramp_steps=10))
    ema.update_parameters(one_norm(weight=4.0, mean=2.0, batches=7))
    assert (ema.module.weight.item(), ema.module.running_mean.item()) == (4.0, 2.0)
    assert ema.module.num_batches_tracked.item() == 7


def test_the_decay_ramps_up():
    """After the first update, update t keeps 0.9 * (1 - exp(-t / 10)) of the average; statistics like weights."""
    ema = build_ema(one_norm(), EmaConfig(decay=0.9, ramp_steps=10))
    expected = 1.0
    for t, value in enumerate([1.0, 0.0, 2.0, 0.0]):
        ema.update_parameters(one_norm(weight=value, mean=-value, batches=t))
        if t > 0:
            decay = 0.9 * (1 - math.exp(-t / 10))
            expected = decay * expected + (1 - decay) * value
        assert ema.module.weight.item() == pytest.approx(expected, rel=1e-6)
        assert ema.module.running_mean.item() == pytest.approx(-expected, rel=1e-6)
        assert ema.module.num_batches_tracked.item() == t  # counted, not averaged


def test_the_end_of_the_ramp():
    ema = build_ema(one_norm(), EmaConfig(decay=0.75, ramp_steps=1))
    ema.update_parameters(one_norm(weight=4.0))
    ema.n_averaged.fill_(1000)  # exp(-1000) is 0
    ema.update_parameters(one_norm(weight=0.0))
    assert ema.module.weight.item() == 3.0


def test_the_average_does_not_learn_and_the_model_does():
    model = one_norm()
    ema = build_ema(model, EmaConfig())
    assert not any(parameter.requires_grad for parameter in ema.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert ema.module.weight.data_ptr() != model.weight.data_ptr()
