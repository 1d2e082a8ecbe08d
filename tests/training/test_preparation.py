"""What is done to a model before it learns."""

from __future__ import annotations

import hashlib

import pytest
import torch
from torch import nn

from detect.config.base import build
from detect.config.recipe import ClassificationRecipe, DetectionRecipe
from detect.errors import InputError
from detect.models.build import build_model
from detect.models.rows import set_norms
from detect.training.checks import warn_of_ignored
from detect.training.state import freeze, set_training_mode
from tests.training.small import write_model

# ---------------------------------------------------------------------------------------------- freezing


def learning(model):
    """The rows with a parameter that learns."""
    rows = model.graph.layers.items()
    return {name for name, layer in rows if any(parameter.requires_grad for parameter in layer.parameters())}


@pytest.fixture
def model(tmp_path):
    return build_model(write_model(tmp_path), 2)


def test_freeze(model):
    freeze(model, ())
    assert len(learning(model)) == 10
    freeze(model, ("backbone", "c4"))
    assert learning(model) == {"down4", "down5", "c5", "detect"}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("backbon",), "freeze: unknown section or row 'backbon'; did you mean 'backbone'?"),
        (("stem", "c9"), "freeze: unknown section or row 'c9'"),
        (("backbone", "neck", "head"), "freeze: backbone, neck, head is the whole model; nothing would learn"),
    ],
)
def test_what_cannot_be_frozen(model, names, message):
    with pytest.raises(InputError, match=f"^{message.replace('?', '[?]')}"):
        freeze(model, names)


def digest(model, rows):
    """A hash of the whole state of some rows, statistics and counters too."""
    state = model.graph.layers.state_dict()
    hashed = hashlib.sha256()
    for name in sorted(state):
        if name.split(".")[0] in rows:
            hashed.update(state[name].numpy().tobytes())
    return hashed.hexdigest()


def test_what_is_frozen_does_not_move(model):
    backbone, rest = {"stem", "down2", "c2", "down3", "c3"}, {"down4", "c4", "down5", "c5"}
    freeze(model, ("backbone",))
    model.eval()
    set_training_mode(model)
    before = digest(model, backbone), digest(model, rest)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    for _ in range(2):
        sum(level.square().mean() for level in model(torch.rand(2, 3, 64, 64))).backward()
        optimizer.step()
    assert digest(model, backbone) == before[0]
    assert digest(model, rest) != before[1]
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert {norm.training for norm in norms} == {True, False}


def test_norms_follow_the_batches_as_quickly_as_asked(model):
    set_norms(model, {"momentum": 0.5})
    norm = model.graph.layers["stem"].conv.norm
    seen = []
    norm.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].mean(dim=(0, 2, 3))))
    model.train()(torch.rand(2, 3, 64, 64))
    # The running mean starts at 0 and goes half the way to the batch's.
    torch.testing.assert_close(norm.running_mean, 0.5 * seen[0])


# ------------------------------------------------------------------------------------- what has no effect


@pytest.mark.parametrize(
    ("kind", "sdpoint", "message"),
    [
        (
            DetectionRecipe,
            {"points": [1], "way": "shrink"},
            "no effect: sdpoint.points (sdpoint.ratios is empty, not a",
        ),
        (ClassificationRecipe, {"ratios": [0.5], "way": "shrink"}, "sdpoint.way (the model is a classifier, not a det"),
        (DetectionRecipe, {"ratios": [0.5], "way": "shrink", "points": [1]}, ""),
        (ClassificationRecipe, {"ratios": [0.5], "norm_batches": 3}, ""),
    ],
)
def test_words_of_sdpoint_without_an_effect(kind, sdpoint, message, caplog):
    warn_of_ignored(build(kind, {"sdpoint": sdpoint}, "here"))
    assert message in caplog.text
    assert bool(message) == bool(caplog.records)
