"""Norms in training, where a batch has one value per channel; several processes are in ``process_runs.py``."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from detect.models.build import build_classifier, build_model
from detect.models.catalog import find_definition
from detect.training import batch_norms
from detect.training.batch_norms import TrainingBatchNorm2d, prepare_norms
from detect.training.state import set_training_mode


@pytest.fixture
def norm():
    """Of one channel: (x - 2) / sqrt(4) * 3 + 1 in evaluation mode."""
    layer = nn.BatchNorm2d(1, eps=1e-9)
    for tensor, value in ((layer.running_mean, 2.0), (layer.running_var, 4.0), (layer.weight, 3.0), (layer.bias, 1.0)):
        nn.init.constant_(tensor, value)
    prepare_norms(layer)
    return layer


def test_one_value(norm):
    """x = 6 is 2 deviations above the mean: 2 * 3 + 1. The gradient of x is 3 / 2."""
    x = torch.full((1, 1, 1, 1), 6.0, requires_grad=True)
    y = norm(x)
    assert y.item() == 7
    y.sum().backward()
    assert (x.grad.item(), norm.weight.grad.item(), norm.bias.grad.item()) == (1.5, 2, 1)
    assert (norm.running_mean.item(), norm.running_var.item(), norm.num_batches_tracked.item()) == (2, 4, 0)


@pytest.mark.parametrize("shape", [(2, 1, 1, 1), (1, 1, 1, 2), (1, 1, 3, 3)])
def test_several_values_are_normalised_as_ever(norm, shape):
    plain = nn.BatchNorm2d(1, eps=1e-9)
    plain.load_state_dict(norm.state_dict())
    x = torch.randn(shape)
    assert torch.equal(norm(x), plain(x))
    assert torch.equal(norm.running_var, plain.running_var)


def test_it_is_said_once(norm, caplog):
    batch_norms._warn_of_single_value.cache_clear()
    caplog.set_level(logging.WARNING, logger="detect")
    for _ in range(2):
        norm(torch.zeros(1, 1, 1, 1))
    assert [message.partition(":")[0] for message in caplog.messages] == [
        "a training batch has one image and a map of 1 x 1, one value per channel"
    ]


@pytest.mark.parametrize("name", ["yolov5n", "csppeleenet-efm-sam", "peleenet"])
def test_batch_of_one_at_the_smallest_size(name):
    """Models with maps of 1 x 1 and with pools over the whole image learn from one image."""
    definition = find_definition(name)
    model = (build_classifier if definition.is_classifier else build_model)(definition, 2)
    prepare_norms(model)
    set_training_mode(model)
    outputs = model(torch.rand(1, 3, 32, 32))
    sum(output.float().square().mean() for output in outputs).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    assert any(type(layer) is TrainingBatchNorm2d for layer in model.modules())
