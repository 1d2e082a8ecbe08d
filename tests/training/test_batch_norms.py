"""Norms in training: one value per channel, folded norms; several processes are in ``process_runs.py``."""

from __future__ import annotations

import copy
import dataclasses
import logging

import pytest
import torch
from torch import nn

from detect.data.datasets import open_split
from detect.data.detection.loading import TrainingLoader
from detect.data.recognition import open_data
from detect.models.build import build_classifier, build_model
from detect.models.catalog import find_definition
from detect.models.checkpoint import load_checkpoint, save_checkpoint
from detect.models.foreign.onnx_weights import read_convolutions
from detect.models.foreign.yolox import load_yolox_export
from detect.models.model import network_input
from detect.training import batch_norms
from detect.training.batch_norms import TrainingBatchNorm2d, measure_folded_norms, prepare_norms
from detect.training.loop import train
from detect.training.state import set_training_mode
from tests.training.small import TINY, fold_norms, make_recipe, make_settings, make_shapes, write_model


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


# ---------------------------------------------------------------------------------------------- folded norms

CPU = torch.device("cpu")


@pytest.fixture
def said(caplog):
    """What is logged."""
    caplog.set_level(logging.INFO, logger="detect")
    return caplog


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_shapes(tmp_path_factory.mktemp("data") / "shapes")


@pytest.fixture
def model(tmp_path):
    """As imported from an exported file."""
    torch.manual_seed(0)
    made = build_model(write_model(tmp_path), 3).eval()
    fold_norms(made)
    return made


def open_loader(data, **changes):
    return TrainingLoader(open_split(data, "train"), make_recipe(**changes))


def outputs(model, batches):
    """Raw predictions for batches, as one vector."""
    images = torch.cat([network_input(batch.images, CPU) for batch in batches])
    with torch.no_grad():
        return torch.cat([level.flatten() for level in model(images)])


def test_a_training_begins_as_the_same_function(data, model, said):
    """Of the batch that gave the statistics, in training mode too; of others in evaluation mode."""
    loader = open_loader(data, batch_size=8)
    first, other = list(loader.epoch(0)), list(loader.epoch(1))
    before = outputs(model, other)
    expected = outputs(model, first)
    assert (outputs(copy.deepcopy(model).train(), first) - expected).abs().max() > 0.1
    measure_folded_norms(model, loader, 8, CPU)
    assert not model.training
    torch.testing.assert_close(outputs(model, other), before, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(outputs(model.train(), first), expected, rtol=1e-4, atol=1e-4)
    count = sum(isinstance(layer, nn.BatchNorm2d) for layer in model.modules())
    assert said.messages[-1] == (
        f"{count} norms are folded into their convolutions: they get the statistics of 8 training images, and the "
        "network stays the same function"
    )


def test_the_statistics_are_those_of_all_values(data, tmp_path):
    """Two batches of 4, as one of 8: mean and variance of the first convolution's outputs, and what keeps its norm."""
    loader = open_loader(data)
    model = build_model(write_model(tmp_path, TINY.replace("downsample: spd", "downsample: stride")), 3)
    fold_norms(model)
    stem = model.graph.layers["stem"].conv
    images = torch.cat([network_input(batch.images, CPU) for batch in loader.epoch(0)])
    shift = stem.norm.bias.detach().clone()
    with torch.no_grad():
        y = stem.conv(images)
    measure_folded_norms(model, loader, 4, CPU)
    variance, mean = torch.var_mean(y, dim=(0, 2, 3), correction=0)
    torch.testing.assert_close(stem.norm.running_mean, mean)
    torch.testing.assert_close(stem.norm.running_var, variance)
    # y / sqrt(1 + eps) + shift = (y - mean) / sqrt(variance + eps) * weight + bias
    scale = (1 + stem.norm.eps) ** -0.5
    torch.testing.assert_close(stem.norm.weight.detach(), scale * (variance + stem.norm.eps).sqrt())
    torch.testing.assert_close(stem.norm.bias.detach(), shift + scale * mean)


def test_new_and_measured_norms_stay(data, model, said):
    """A new norm has no shift; of a model with both kinds of norms the folded ones alone change."""
    loader = open_loader(data)
    new = build_model(model.definition, 3)
    nn.init.constant_(new.graph.layers["c2"].fuse.norm.running_mean, 0.5)
    nn.init.constant_(new.graph.layers["c2"].fuse.norm.bias, 0.5)
    before = copy.deepcopy(new.state_dict())
    measure_folded_norms(new, loader, 4, CPU)
    assert "norms" not in said.text
    new.graph.layers["stem"].load_state_dict(model.graph.layers["stem"].state_dict())
    measure_folded_norms(new, loader, 4, CPU)
    after = new.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    words = ("conv.weight", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var")
    assert changed == {f"graph.layers.stem.conv.{word}" for word in words}


def test_a_run_measures_them_once(data, model, tmp_path, said):
    """A resumed run does not; without given weights there are none."""
    facts = {"names": ("circle", "square", "triangle"), "category_ids": (1, 2, 3), "image_size": 64, "metrics": {}}
    save_checkpoint(tmp_path / "w.pt", model, **facts, provenance={})
    settings = make_settings(tmp_path, data, epochs=1, optimizer={"name": "sgd", "lr": 1e-9})
    train(dataclasses.replace(settings, weights=tmp_path / "w.pt"))
    train(dataclasses.replace(settings, resume=True))
    assert sum("norms are folded" in message for message in said.messages) == 1
    found = load_checkpoint(settings.out / "best.pt").model.graph.layers["stem"].conv.norm
    assert found.running_mean.abs().min() > 0


@pytest.mark.slow
def test_the_published_yolox_on_photographs(real_data):
    """Objectness of batches that gave no statistics: norms of batches disagree with the file's network far less."""
    path = real_data / "yolox" / "yolox_nano.onnx"
    model = load_yolox_export(read_convolutions(path), path).eval()
    loader = open_loader(open_data(str(real_data / "tiny_coco"), None), image_size=224, batch_size=8)
    images = network_input(next(loader.epoch(1)).images, CPU)

    def objectness(net):
        with torch.no_grad():
            return torch.cat([level[..., 4].flatten() for level in net(images)]).sigmoid()

    expected, imported = objectness(model), objectness(copy.deepcopy(model).train())
    measure_folded_norms(model, loader, 8, CPU)
    torch.testing.assert_close(objectness(model), expected, rtol=1e-3, atol=1e-4)
    measured = objectness(copy.deepcopy(model).train())
    assert (measured - expected).abs().mean() < 0.5 * (imported - expected).abs().mean()
