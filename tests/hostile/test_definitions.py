"""Models that ask for more than there is: refused before the memory or the time is taken."""

from __future__ import annotations

import pytest
import torch
import yaml

from detect.errors import InputError
from detect.models.build import build_graph, build_model
from detect.models.definition import parse_definition
from detect.safety.untrusted import AllocationLimit
from tests.training.small import TINY


def definition(change):
    content = yaml.safe_load(TINY)
    change(content)
    return parse_definition(content, "tiny.yaml")


def wide(content):
    content["backbone"][0]["args"]["out_channels"] = 10**9


def wider_than_numbers(content):
    content["backbone"][0]["args"]["out_channels"] = 10**30


def wide_in_the_middle(content):
    content["backbone"][2]["args"]["out_channels"] = 10**6


def large_kernel(content):
    content["backbone"].insert(
        1, {"name": "big", "module": "Conv", "args": {"out_channels": 8, "kernel_size": 10**5 + 1}}
    )


def many_anchors(content):
    content["head"][0]["args"]["anchors_px"] = [[[1, 1]] * 10_000] * 3


@pytest.mark.parametrize(
    ("change", "num_classes"),
    [
        (wide, 3),
        (wider_than_numbers, 3),
        (wide_in_the_middle, 3),
        (large_kernel, 3),
        (many_anchors, 10_000),
        (lambda content: None, 10**9),
    ],
)
def test_too_many_values(change, num_classes):
    """The machine has not so much memory: taking it would end the process."""
    message = r"tiny\.yaml: \w+\.\w+: args: the model would have more than 536,870,912 values"
    with pytest.raises(InputError, match=message):
        build_graph(definition(change), num_classes)


def test_too_many_repeats(monkeypatch):
    monkeypatch.setattr("detect.safety.untrusted.MAX_TENSORS", 500)

    def repeated(content):
        content["backbone"][2]["repeats"] = 10**9

    with pytest.raises(InputError, match=r"backbone\.c2: args: the model would have more than 500 tensors"):
        build_model(definition(repeated), 3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.empty(2, 50),
        lambda: torch.empty((2, 50)),
        lambda: torch.empty(size=(2, 50)),
        lambda: torch.zeros(100),
        lambda: torch.ones([100]),
        lambda: torch.full((10, 10), 3.0),
        lambda: torch.nn.Linear(99, 1),
    ],
)
def test_what_is_counted(make):
    with AllocationLimit(100):
        make()
    with AllocationLimit(99), pytest.raises(InputError, match="the model would have more than 99 values"):
        make()


def test_scalars_are_one_value():
    with AllocationLimit(1):
        torch.empty(())


@pytest.mark.parametrize("name", [{}, ["a"], 3, None])
def test_names_that_are_none(tmp_path, name):
    """Found by fuzzing: a list cannot be looked for among the names of variants."""
    (tmp_path / "model.yaml").write_text(yaml.safe_dump({**yaml.safe_load(TINY), "name": name}))
    with pytest.raises(InputError, match=r"model\.yaml: name: must be text, found"):
        build_graph(str(tmp_path / "model.yaml"), 3)
