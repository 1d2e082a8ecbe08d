"""What training keeps. Maps are counted in values of four bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from detect.analysis.layers import kept_bytes
from detect.models.build import build_graph
from tests.models.thin import thin
from tests.models.yamls import write_rows


def kept_values(path: Path, side: int = 32) -> dict[str, float]:
    """Values that the rows keep, for an image of that side."""
    with torch.device("meta"):
        graph = build_graph(str(path), 3)
    return {row: count / 4 for row, count in kept_bytes(graph, (side, side)).items()}


def test_nothing(tmp_path: Path) -> None:
    """A space-to-depth and an enlargement need nothing for their backward pass."""
    fold, enlarge = "name: fold, module: SpaceToDepth", "name: up, module: Upsample"
    assert kept_values(write_rows(tmp_path, fold, enlarge)) == {"fold": 0, "up": 0}


@pytest.mark.parametrize(("activation", "maps"), [("none", 1), ("relu", 2), ("leaky", 2), ("silu", 2), ("mish", 2)])
def test_one_convolution(tmp_path: Path, activation: str, maps: int) -> None:
    """8 channels at 32x32. The norm keeps the convolution's output; relu its result; silu a copy of its input.

    The result of silu is of no use to its own backward pass, and nothing else reads it here.
    """
    row = f"name: conv, module: Conv, args: {{out_channels: 8, activation: {activation}}}"
    assert kept_values(write_rows(tmp_path, row)) == {"conv": maps * 8 * 32 * 32}


@pytest.mark.parametrize(("activation", "maps"), [("none", 2), ("relu", 2), ("leaky", 2), ("silu", 3), ("mish", 3)])
def test_what_the_next_row_needs(tmp_path: Path, activation: str, maps: int) -> None:
    """The first row's result is kept for the second one's convolution: a third map only where it is not kept anyway."""
    rows = [
        f"name: {name}, module: Conv, args: {{out_channels: 8, activation: {word}}}"
        for name, word in (("one", activation), ("two", "none"))
    ]
    assert kept_values(write_rows(tmp_path, *rows)) == {"one": maps * 8 * 32 * 32, "two": 8 * 32 * 32}


def test_a_pool_keeps_its_indices(tmp_path: Path) -> None:
    """4 channels: a max-pool keeps its input, 4*32*32, and 64-bit indices of 4*16*16 cells, two values each."""
    rows = "name: conv, module: Conv, args: {out_channels: 4, activation: none}", "name: pool, module: Pool"
    norm_input = norm_output = 4 * 32 * 32
    assert kept_values(write_rows(tmp_path, *rows)) == {"conv": norm_input + norm_output, "pool": 2 * 4 * 16 * 16}


def test_space_to_depth_that_is_not_carried_out(tmp_path: Path) -> None:
    """8 channels at 32x32 go to the next convolution as they are: no second map of 32 channels at 16x16."""
    down = "name: down, module: Downsample, args: {out_channels: 8, downsample: spd, activation: relu}"
    conv = "name: conv, module: Conv, args: {out_channels: 16, activation: none}"
    assert kept_values(write_rows(tmp_path, down, conv)) == {"down": 2 * 8 * 32 * 32, "conv": 16 * 16 * 16}


def test_maps_of_one_cell() -> None:
    """A norm in training cannot take statistics of a single value; two images have two."""
    with torch.device("meta"):
        graph = build_graph("resnet10+cem+width=0.25", 3)
    assert all(count >= 0 for count in kept_bytes(graph, (32, 32)).values())


def test_no_hooks_are_left() -> None:
    with torch.device("meta"):
        graph = build_graph("resnet10+width=0.25", 3)
    assert kept_bytes(graph, (64, 64)) == kept_bytes(graph, (64, 64))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in graph.modules())


@pytest.mark.parametrize(
    "name",
    thin(
        [
            "yolov5n-spd+width=0.5",  # space-to-depth that is not carried out, concatenation in pieces
            "csppeleenet-cem-sam+width=0.25",  # averages, Maxout, attention
            "peleenet+se=true+activation=mish+width=0.25",  # a classifier, with squeeze-and-excite
            "densenet121+width=0.25+depth=0.25",  # norms before convolutions
            "resnet10+activation=relu+width=0.25",
        ],
        4,
    ),
)
def test_as_much_as_with_values(name: str) -> None:
    """The same sum as of all distinct memory that autograd holds on the CPU, for three images less that for two."""
    with torch.device("meta"):
        found = kept_bytes(build_graph(name, 3), (64, 64))
    two, three = (held_on_cpu(name, torch.rand(size, 3, 64, 64)) for size in (2, 3))
    assert sum(found.values()) == three - two


def held_on_cpu(name: str, images: Tensor) -> int:
    held: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        held.append(tensor)
        return tensor

    graph = build_graph(name, 3).train()
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        graph(images)
    bytes_at = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in held}
    bytes_at.pop(images.untyped_storage().data_ptr(), None)
    return sum(bytes_at.values())
