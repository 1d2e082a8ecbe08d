from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detect.analysis.layers import LayerProfile, record_layers
from detect.models.blocks.conv import Conv
from detect.models.blocks.downsample import Stem
from detect.models.blocks.pool import SPPF
from detect.models.class_heads import Classify


def layers_of(
    make: Callable[..., nn.Module], *args: object, channels: int, side: int = 8, **words: object
) -> list[LayerProfile]:
    """What a module runs for one map of ``channels`` and side ``side``; it is called ``row``."""
    with torch.device("meta"):
        module = make(*args, **words).eval()
        with record_layers(module, "row") as layers, torch.no_grad():
            module(torch.empty(1, channels, side, side))
    return layers


def test_nothing() -> None:
    assert layers_of(nn.SiLU, channels=3) == []


def test_convolution() -> None:
    """3 to 8 channels, 3x3: 3*9*8 = 216 weights, used at 8*8 places."""
    (found,) = layers_of(nn.Conv2d, 3, 8, 3, channels=3, padding=1)
    assert found == LayerProfile("row", "convolution", (3, 3), 1, 3, 8, (8, 8), (8, 8), weights=216, macs=216 * 64)
    assert found.input_elements == 3 * 64
    assert found.output_elements == 8 * 64
    assert found.darknet_flops == 2 * 216 * 64


def test_a_bias_costs_nothing() -> None:
    with_bias, without = (layers_of(nn.Conv2d, 3, 8, 1, channels=3, bias=bias) for bias in (True, False))
    assert with_bias == without


def test_strided_kernel_that_is_not_square() -> None:
    """4x2 kernel, strides 2 and 1, no padding: (8 - 4) / 2 + 1 = 3 rows, 8 - 2 + 1 = 7 columns."""
    (found,) = layers_of(nn.Conv2d, 3, 5, (4, 2), channels=3, stride=(2, 1))
    assert (found.kernel_hw, found.out_hw) == ((4, 2), (3, 7))
    assert found.macs == 3 * 4 * 2 * 5 * 3 * 7


def test_grouped_convolution() -> None:
    """Four groups: each of the 16 outputs reads 8 / 4 = 2 channels. All 8 are read from memory, once."""
    (found,) = layers_of(nn.Conv2d, 8, 16, 3, channels=8, padding=1, groups=4)
    assert (found.groups, found.in_channels, found.out_channels) == (4, 8, 16)
    assert found.weights == 16 * 2 * 9
    assert found.macs == 16 * 2 * 9 * 64
    assert found.input_elements == 8 * 64


def test_space_to_depth_that_is_not_carried_out() -> None:
    """3x3 on 4*3 channels at 4x4 runs as 6x6 of stride 2 on 3 channels at 8x8, at the same cost and traffic."""
    (found,) = layers_of(Stem, 3, 16, channels=3, downsample="spd")
    assert (found.path, found.kernel_hw, found.in_hw, found.out_hw) == ("row", (6, 6), (8, 8), (4, 4))
    (literal,) = layers_of(nn.Conv2d, 12, 16, 3, channels=12, side=4, padding=1)
    for count in ("weights", "macs", "input_elements", "output_elements"):
        assert getattr(found, count) == getattr(literal, count)


@pytest.mark.parametrize(("word", "kind"), [("avg", "average pool"), ("max", "max-pool")])
def test_linear_behind_a_global_pool(word: str, kind: str) -> None:
    pool, linear = layers_of(Classify, 6, 10, channels=6, pool=word)
    assert pool == LayerProfile("row", kind, (8, 8), 6, 6, 6, (8, 8), (1, 1), weights=0, macs=0)
    assert linear == LayerProfile("row.linear", "linear", (1, 1), 1, 6, 10, (1, 1), (1, 1), weights=60, macs=60)


@pytest.mark.parametrize("bias", [True, False])
def test_linear_on_every_cell(bias: bool) -> None:
    """60 weights, used at 8*8 cells; it reads and writes as many vectors."""

    class Cells(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(6, 10, bias=bias)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x.permute(0, 2, 3, 1))

    (found,) = layers_of(Cells, channels=6)
    assert found == LayerProfile("row.linear", "linear", (1, 1), 1, 6, 10, (64, 1), (64, 1), weights=60, macs=60 * 64)
    assert (found.input_elements, found.output_elements) == (6 * 64, 10 * 64)


def test_linear_without_bias() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4 * 64, 10, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x.flatten(1))

    (found,) = layers_of(Flat, channels=4)
    assert (found.path, found.macs, found.in_channels, found.out_channels) == ("row.linear", 2560, 256, 10)


def test_pools() -> None:
    """3x3, stride 2, padding 1: (8 + 2 - 3) // 2 + 1 = 4 cells. Darknet counts 9 operations for each of 5*16 maxima."""
    (largest,) = layers_of(nn.MaxPool2d, 3, channels=5, stride=2, padding=1)
    assert largest == LayerProfile("row", "max-pool", (3, 3), 5, 5, 5, (8, 8), (4, 4), weights=0, macs=0)
    assert largest.darknet_flops == 9 * 5 * 16
    (average,) = layers_of(nn.AvgPool2d, 2, channels=5)
    assert average == LayerProfile("row", "average pool", (2, 2), 5, 5, 5, (8, 8), (4, 4), weights=0, macs=0)
    assert average.darknet_flops == 0


def test_adaptive_pool_to_one_cell_is_a_global_pool() -> None:
    (found,) = layers_of(nn.AdaptiveAvgPool2d, 1, channels=5)
    assert (found.kind, found.kernel_hw, found.out_hw) == ("average pool", (8, 8), (1, 1))


@pytest.mark.parametrize("dims", [1, (1, 2), (0, 1, 2, 3)])
def test_other_means_are_no_pools(dims: int | tuple[int, ...]) -> None:
    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean(dim=dims, keepdim=True)

    assert layers_of(Mean, channels=5) == []


def test_spatial_pyramid() -> None:
    """8 to 4 channels, three 5x5 pools of 4 channels, 4*4 to 16 channels."""
    reduce, *pools, fuse = layers_of(SPPF, 8, 16, channels=8)
    assert (reduce.path, reduce.macs) == ("row.reduce", 8 * 4 * 64)
    assert [(pool.path, pool.kind, pool.darknet_flops) for pool in pools] == 3 * [("row", "max-pool", 25 * 4 * 64)]
    assert (fuse.path, fuse.macs) == ("row.fuse", 16 * 16 * 64)


def test_paths_name_the_block() -> None:
    """The convolution of a block is called by the block's name, however deep it is; any other by its own."""
    assert [layer.path for layer in layers_of(Conv, 3, 8, channels=3)] == ["row"]
    assert [layer.path for layer in layers_of(Stem, 3, 8, channels=3)] == ["row"]
    stack = layers_of(lambda: nn.Sequential(Conv(3, 8), nn.Sequential(nn.Conv2d(8, 4, 1))), channels=3)
    assert [layer.path for layer in stack] == ["row.0", "row.1.0"]


def test_a_module_that_runs_twice_is_two_layers() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.same = nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.same(self.same(x))

    assert [layer.path for layer in layers_of(Twice, channels=4)] == ["row.same", "row.same"]


def test_nothing_is_left_behind() -> None:
    """Hooks go, also when the module fails; what runs afterwards is not recorded."""
    module = nn.Conv2d(3, 4, 1)
    with pytest.raises(RuntimeError, match="channels"), record_layers(module, "row"):
        module(torch.zeros(1, 2, 4, 4))
    with record_layers(module, "row") as layers:
        module(torch.zeros(1, 3, 4, 4))
    F.conv2d(torch.zeros(1, 3, 4, 4), module.weight)
    assert len(layers) == 1
    assert not module._forward_hooks
    assert not module._forward_pre_hooks
