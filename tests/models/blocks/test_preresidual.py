from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from detect.errors import InputError
from detect.models.blocks.conv import PreConv
from detect.models.blocks.csp import ConvDivide
from detect.models.blocks.preresidual import PreResidualOptions, PreResidualStage
from detect.models.blocks.space_to_depth import space_to_depth
from detect.structures import FeatureShape

X = torch.randn(2, 6, 4, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def stage(in_channels: int, out_channels: int, **words) -> PreResidualStage:
    """In float64, with norms as after training."""
    torch.manual_seed(0)
    built = PreResidualStage(in_channels, PreResidualOptions(out_channels, **words)).double()
    for norm in norms(built):
        norm.weight.data.uniform_(0.5, 1.5)
        norm.bias.data.normal_()
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 1.5)
    return built.eval()


def norms(module: nn.Module) -> list[nn.BatchNorm2d]:
    """In order."""
    return [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]


def normed(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    """x less the running mean, over the running deviation, times weight, plus bias."""
    mean, var, weight, bias = (v.view(-1, 1, 1) for v in (norm.running_mean, norm.running_var, norm.weight, norm.bias))
    return (x - mean) / (var + norm.eps).sqrt() * weight + bias


def convolved(x: Tensor, weight: Tensor, stride: int = 1) -> Tensor:
    """One multiplication for each cell of the kernel: its weights, and the map shifted by its offset."""
    k = weight.shape[-1]
    rows, columns = x.shape[2:]
    padded = nn.functional.pad(x, (k // 2,) * 4)
    return sum(
        torch.einsum("oc,bchw->bohw", weight[..., j, i], padded[..., j : j + rows : stride, i : i + columns : stride])
        for j in range(k)
        for i in range(k)
    )


@pytest.mark.parametrize("halve", [False, True])
@pytest.mark.parametrize("projection_norm", [False, True])
def test_basic_block_by_hand(halve: bool, projection_norm: bool) -> None:
    """6 to 4 channels: the first norm and activation are of both ways."""
    built = stage(6, 4, halve=halve, projection_norm=projection_norm)
    (block,) = built.stage
    stride = 2 if halve else 1
    y = normed(X, block.norm).clamp(min=0)
    z = convolved(y, block.layers[0].weight, stride)
    z = convolved(normed(z, block.layers[1].norm).clamp(min=0), block.layers[1].conv.weight)
    conv = block.shortcut[0] if projection_norm else block.shortcut
    added = convolved(y, conv.weight, stride)
    torch.testing.assert_close(built(X), z + (normed(added, block.shortcut[1]) if projection_norm else added))
    assert built.out_shape(FeatureShape(6, 4)) == FeatureShape(4, 4 * stride)


def test_bottleneck_by_hand() -> None:
    """6 channels, 3 inside: the input itself is added, not activated."""
    built = stage(6, 6, block="bottleneck", ratio=0.5)
    (block,) = built.stage
    assert block.shortcut is None
    z = convolved(normed(X, block.norm).clamp(min=0), block.layers[0].weight)
    assert z.shape == (2, 3, 4, 8)
    for layer in block.layers[1:]:
        z = convolved(normed(z, layer.norm).clamp(min=0), layer.conv.weight)
    before = X.clone()
    torch.testing.assert_close(built(X), X + z)
    assert torch.equal(X, before)  # activations work in place


def test_the_stride_is_in_the_first_3x3_convolution() -> None:
    bottleneck = stage(6, 8, block="bottleneck", halve=True).stage[0]
    assert [m.stride[0] for m in bottleneck.layers.modules() if isinstance(m, nn.Conv2d)] == [1, 2, 1]
    basic = stage(6, 8, halve=True).stage[0]
    assert [m.stride[0] for m in basic.layers.modules() if isinstance(m, nn.Conv2d)] == [2, 1]


def test_only_the_first_block_changes_the_shape() -> None:
    built = stage(6, 8, repeats=3, halve=True)
    assert [block.shortcut is None for block in built.stage] == [False, True, True]
    assert built(X).shape == (2, 8, 2, 4)
    assert all(block.shortcut is None for block in stage(6, 6, repeats=2).stage)


def test_widen_multiplies_the_output() -> None:
    built = stage(6, 4, widen=3)
    assert built(X).shape == (2, 12, 4, 8)
    assert built.out_shape(FeatureShape(6, 4)) == FeatureShape(12, 4)
    partial = stage(6, 4, widen=3, fusion="csp", gamma=0.25)  # 3 channels pass by
    assert partial.stage.divide.bypass.conv.out_channels == 3
    assert partial(X).shape == (2, 12, 4, 8)


@pytest.mark.parametrize(("block", "kernel_size"), [("basic", 3), ("bottleneck", 1)])
def test_space_to_depth_comes_first(block: str, kernel_size: int) -> None:
    """Norm, activation, space-to-depth, convolution from 4 * 6 channels back to 6; nothing has a stride."""
    built = stage(6, 8, block=block, halve=True, downsample="spd")
    assert built.down.conv.weight.shape == (6, 24, kernel_size, kernel_size)
    folded = space_to_depth(normed(X, built.down.norm).clamp(min=0), 2)
    torch.testing.assert_close(built(X), built.stage(convolved(folded, built.down.conv.weight)))
    assert all(m.stride == (1, 1) for m in built.modules() if isinstance(m, nn.Conv2d))
    assert built.out_shape(FeatureShape(6, 4)) == FeatureShape(8, 8)


def test_without_halving_there_is_nothing_to_replace() -> None:
    assert torch.equal(stage(6, 8, downsample="spd")(X), stage(6, 8)(X))


def test_a_partial_stage() -> None:
    """C 6, O 16, a quarter of which passes by: 4 and 12; blocks of 12, joined to 16, each layer behind its norm."""
    built = stage(6, 16, repeats=2, fusion="csp", gamma=0.25)
    divide, body, first, second = (
        built.stage.get_submodule(n) for n in ("divide", "body", "transition1", "transition2")
    )
    assert isinstance(divide, ConvDivide)
    bypass = divide.bypass(X)
    assert bypass.shape[1] == 4
    computed = first(body[1](body[0](divide.computed(X))))
    assert computed.shape[1] == 12
    torch.testing.assert_close(built(X), second(torch.cat([computed, bypass], dim=1)))
    assert isinstance(divide.bypass, PreConv)
    assert (bypass < 0).any()  # no activation behind the convolution


@pytest.mark.parametrize(
    ("fusion", "transitions"), [("first", (False, True)), ("last", (True, False)), ("csp", (True, True))]
)
@pytest.mark.parametrize("downsample", ["stride", "spd"])
def test_fusion_says_which_transitions_there_are(fusion: str, transitions: tuple, downsample: str) -> None:
    built = stage(6, 8, fusion=fusion, halve=True, downsample=downsample)
    cross = built.stage
    assert (isinstance(cross.transition1, PreConv), isinstance(cross.transition2, PreConv)) == transitions
    assert built(X).shape == (2, 8, 2, 4)
    assert isinstance(cross.divide.pool, nn.MaxPool2d) == (downsample == "stride")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"block": "darknet"}, r"^block: unknown 'darknet'; allowed: basic, bottleneck$"),
        ({"downsample": "sdp"}, r"^downsample: unknown 'sdp'; did you mean 'spd'\?$"),
        ({"fusion": "cps"}, r"^fusion: unknown 'cps'; did you mean 'csp'\?$"),
        ({"fusion": "csp", "gamma": 1.0}, r"^gamma: must be between 0 and 1, .* found 1.0$"),
    ],
)
def test_refused(words: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        PreResidualStage(6, PreResidualOptions(8, **words))


# -------------------------------------------------------------------------------------------------- dropout


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_dropout_stands_in_front_of_the_second_convolution(block: str) -> None:
    """Without it the names of the weights and, in evaluation, the values are the same; in training 0.4 are 0."""
    plain = stage(6, 6, block=block, repeats=2)
    dropped = stage(6, 6, block=block, repeats=2, dropout=0.4)
    dropped.load_state_dict(plain.state_dict())
    torch.testing.assert_close(dropped(X), plain(X))
    layer = dropped.stage[1].layers[1]
    reads: list[Tensor] = []
    layer.conv.register_forward_pre_hook(lambda _, inputs: reads.append(inputs[0]))
    layer.activation = nn.Identity()  # otherwise half of the values are 0 anyway
    layer.train()
    torch.manual_seed(0)
    z = torch.rand(50, 6, 8, 8, dtype=torch.float64)
    layer(z)
    kept = reads[0] != 0
    assert kept.double().mean() == pytest.approx(0.6, abs=0.02)
    layer.norm.train()
    expected = layer.norm(z) / 0.6
    torch.testing.assert_close(reads[0][kept], expected[kept])
    first = dropped.stage[1].layers[0]
    assert isinstance(first, nn.Conv2d)


@pytest.mark.parametrize("dropout", [-0.1, 1.0, 2.0])
def test_a_dropout_that_is_no_probability(dropout: float) -> None:
    with pytest.raises(InputError, match=f"^dropout: must be from 0 to below 1, found {dropout:g}$"):
        stage(6, 6, dropout=dropout)
