from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import DropBlock2d

from detect.analysis.profile import build_on_meta
from detect.errors import InputError
from detect.models.blocks.conv import Conv
from detect.models.blocks.residual import ResidualOptions, ResidualStage, partial_add
from detect.models.blocks.space_to_depth import Piece, space_to_depth
from detect.structures import FeatureShape

X = torch.randn(2, 6, 4, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def column(*values: float) -> torch.Tensor:
    """(1, C, 1, 1), one value per channel."""
    return torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)


def count(module: nn.Module) -> int:
    """Learnt values."""
    return sum(p.numel() for p in module.parameters())


def stage(in_channels: int, out_channels: int, **words) -> ResidualStage:
    """In float64, with norms as after training."""
    torch.manual_seed(0)
    return ResidualStage(in_channels, ResidualOptions(out_channels, **words)).double().eval()


@pytest.mark.parametrize(
    ("x", "shortcut", "expected"),
    [
        pytest.param((), (), (), id="nothing"),
        pytest.param((1, 2), (10, 20), (11, 22), id="equal"),
        pytest.param((1, 2, 3), (10, 20), (11, 22, 3), id="narrower-shortcut"),  # the third channel stays
        pytest.param((1, 2), (10, 20, 30), (11, 22), id="wider-shortcut"),  # its third channel is left out
    ],
)
def test_partial_add(x: tuple, shortcut: tuple, expected: tuple) -> None:
    assert torch.equal(partial_add(column(*x), column(*shortcut)), column(*expected))


def test_partial_add_reads_every_other_row_and_column() -> None:
    """Of 0 1 2 3 / 4 5 6 7 / 8 9 10 11 / 12 13 14 15, the values 0 2 / 8 10 count."""
    shortcut = torch.arange(16.0).view(1, 1, 4, 4)
    x = torch.tensor([[[[100.0, 200.0], [300.0, 400.0]], [[1.0, 2.0], [3.0, 4.0]]]])
    expected = torch.tensor([[[[100.0, 202.0], [308.0, 410.0]], [[1.0, 2.0], [3.0, 4.0]]]])
    assert torch.equal(partial_add(x, shortcut, stride=2), expected)


def test_the_arguments_of_a_partial_add_stay() -> None:
    """An activation that works in place must not reach them."""
    x, shortcut = column(-1, -2, -3), column(-10, -20)
    nn.functional.leaky_relu_(partial_add(x, shortcut))
    assert torch.equal(x, column(-1, -2, -3))
    assert torch.equal(shortcut, column(-10, -20))


@pytest.mark.parametrize(("kind", "activated"), [("basic", True), ("bottleneck", True), ("darknet", False)])
def test_the_activation_stands_behind_the_addition_except_in_darknet(kind: str, activated: bool) -> None:
    block = stage(6, 6, block=kind, ratio=0.5).stage[0]
    total = X + block.layers(X)
    torch.testing.assert_close(block(X), total.relu() if activated else total)
    assert isinstance(block.layers[-1].activation, nn.Identity) == activated


@pytest.mark.parametrize(
    ("words", "parameters"),
    [
        # C 6, O 8: 3x3 6 to 8 and 3x3 8 to 8, each with 2 values of the norm per output channel
        ({"block": "basic"}, 9 * 6 * 8 + 16 + 9 * 8 * 8 + 16),
        # 1x1 6 to 4, 3x3 4 to 4 in 2 groups, 1x1 4 to 8
        ({"block": "bottleneck", "ratio": 0.5, "groups": 2}, 6 * 4 + 8 + 9 * 2 * 4 + 8 + 4 * 8 + 16),
        # 1x1 6 to 4, 3x3 4 to 8
        ({"block": "darknet", "ratio": 0.5}, 6 * 4 + 8 + 9 * 4 * 8 + 16),
        # and a projection, 1x1 6 to 8
        ({"block": "basic", "shortcut": "projection"}, 9 * 6 * 8 + 16 + 9 * 8 * 8 + 16 + 6 * 8 + 16),
    ],
)
def test_parameters(words: dict, parameters: int) -> None:
    assert count(ResidualStage(6, ResidualOptions(8, **words))) == parameters


def test_only_the_first_block_changes_the_shape() -> None:
    built = stage(6, 8, block="basic", repeats=3, halve=True, shortcut="projection")
    assert [isinstance(block.shortcut, Conv) for block in built.stage] == [True, False, False]
    assert [block.layers[0].conv.stride for block in built.stage] == [(2, 2), (1, 1), (1, 1)]
    assert [block.layers[0].conv.in_channels for block in built.stage] == [6, 8, 8]


def test_the_stride_is_in_the_3x3_convolution_of_a_bottleneck() -> None:
    block = stage(6, 8, block="bottleneck", halve=True).stage[0]
    assert [layer.conv.stride[0] for layer in block.layers] == [1, 2, 1]


@pytest.mark.parametrize("shortcut", ["partial", "projection", "pool"])
def test_shortcuts_of_a_halving_block(shortcut: str) -> None:
    """To the first 6 channels: every other row and column of the input, or 2x2 maxima; to all 8: a 1x1 convolution."""
    built = stage(6, 8, block="darknet", halve=True, shortcut=shortcut)
    (block,) = built.stage
    expected = block.layers(X)
    if shortcut == "projection":
        expected = expected + block.shortcut(X)
    else:
        expected[:, :6] += X[..., ::2, ::2] if shortcut == "partial" else nn.functional.max_pool2d(X, 2)
    torch.testing.assert_close(built(X), expected)
    assert built.out_shape(FeatureShape(6, 4)) == FeatureShape(8, 8)


def test_groups_that_do_not_divide_the_channels() -> None:
    """12 inner channels and 32 groups: 4 groups, of 3 channels each."""
    (block,) = stage(6, 12, block="bottleneck", groups=32).stage
    assert block.layers[1].conv.groups == 4


@pytest.mark.parametrize(("block", "kernel_size"), [("basic", 3), ("bottleneck", 1), ("darknet", 1)])
def test_space_to_depth_comes_first(block: str, kernel_size: int) -> None:
    """A convolution from 4 * 6 channels back to 6; nothing behind it has a stride."""
    built = stage(6, 8, block=block, halve=True, downsample="spd")
    assert built.down is not None
    assert built.down.conv.weight.shape == (6, 24, kernel_size, kernel_size)
    torch.testing.assert_close(built(X), built.stage(built.down(space_to_depth(X, 2))), atol=1e-12, rtol=0)
    assert all(conv.stride == (1, 1) for conv in built.modules() if isinstance(conv, nn.Conv2d))
    assert built.out_shape(FeatureShape(6, 4)) == FeatureShape(8, 8)


@pytest.mark.parametrize(("block", "kernel_size"), [("basic", 1), ("bottleneck", 3)])
def test_the_kernel_behind_the_space_to_depth(block: str, kernel_size: int) -> None:
    built = stage(6, 8, block=block, halve=True, downsample="spd", spd_kernel_size=kernel_size)
    assert built.down is not None
    assert built.down.conv.weight.shape == (6, 24, kernel_size, kernel_size)


@pytest.mark.parametrize("fusion", ["none", "csp"])
@pytest.mark.parametrize("shortcut", ["partial", "projection", "pool"])
def test_the_first_block_absorbs_the_space_to_depth(shortcut: str, fusion: str) -> None:
    words = {"shortcut": shortcut, "halve": True, "downsample": "spd", "spd_form": "absorb", "fusion": fusion}
    built = stage(6, 8, block="bottleneck", **words)
    assert built.down is None
    assert next(m.in_channels for m in built.modules() if isinstance(m, nn.Conv2d)) == 24
    torch.testing.assert_close(built(X), built.stage(space_to_depth(X, 2)))
    assert all(m.stride == (1, 1) for m in built.modules() if isinstance(m, nn.Conv2d))
    assert built(X).shape == (2, 8, 2, 4)
    assert built.out_shape(FeatureShape(6, 4)) == FeatureShape(8, 8)
    assert not built.accepts_pieces


def normed(x: torch.Tensor, norm: nn.BatchNorm2d) -> torch.Tensor:
    """x less the running mean, over the running deviation, times weight, plus bias."""
    mean, var, weight, bias = (v.view(-1, 1, 1) for v in (norm.running_mean, norm.running_var, norm.weight, norm.bias))
    return (x - mean) / (var + norm.eps).sqrt() * weight + bias


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_a_space_to_depth_inside_the_first_block(block: str) -> None:
    """The published code's block, 6 to 8 channels, written out; 4 channels inside the bottleneck.

    3x3 convolution, the four cells of each 2 x 2 as 4 times the channels, norm of these, ReLU, last convolution and
    norm; in a bottleneck a 1x1 convolution, norm and ReLU come first, and the last one is 1x1. The shortcut has a
    stride.
    """
    words = {"ratio": 0.5, "halve": True, "shortcut": "projection", "downsample": "spd", "spd_form": "inside"}
    built = stage(6, 8, block=block, repeats=2, **words)
    convs = [m for m in built.stage[0].modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in built.stage[0].modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
        norm.running_mean.normal_()
    y, inner, last_kernel = X, [6, 8], 3
    if block == "bottleneck":
        y, inner, last_kernel = normed(nn.functional.conv2d(X, convs.pop(0).weight), norms.pop(0)).relu(), [4, 4], 1
    middle, last, shortcut = convs
    assert [middle.in_channels, middle.out_channels] == inner
    assert last.weight.shape == (8, 4 * inner[1], last_kernel, last_kernel)
    y = nn.functional.conv2d(y, middle.weight, padding=1)
    y = torch.cat([y[..., ::2, ::2], y[..., 1::2, ::2], y[..., ::2, 1::2], y[..., 1::2, 1::2]], dim=1)
    y = nn.functional.conv2d(normed(y, norms[0]).relu(), last.weight, padding=last_kernel // 2)
    added = nn.functional.conv2d(X[..., ::2, ::2], shortcut.weight)
    expected = (normed(y, norms[1]) + normed(added, norms[2])).relu()
    torch.testing.assert_close(built.stage[0](X), expected)
    torch.testing.assert_close(built(X), built.stage[1](expected))
    assert sum(m.stride == (2, 2) for m in built.modules() if isinstance(m, nn.Conv2d)) == 1


def test_groups_of_a_3x3_convolution_in_front_of_a_space_to_depth() -> None:
    """12 inner channels and 32 groups: 4 groups."""
    words = {"block": "bottleneck", "groups": 32, "halve": True, "downsample": "spd", "spd_form": "inside"}
    assert stage(6, 12, **words).stage[0].layers[1].conv.groups == 4


def test_without_halving_there_is_nothing_to_replace() -> None:
    words = {"block": "basic", "downsample": "spd"}
    plain = ResidualStage(6, ResidualOptions(8, block="basic"))
    assert count(ResidualStage(6, ResidualOptions(8, **words))) == count(plain)


def test_a_partial_stage() -> None:
    """C 6, 16 divided channels, a quarter of which passes by: 4 and 12; blocks of 12, joined to 8."""
    built = stage(6, 8, block="darknet", repeats=2, fusion="csp", divided_channels=16, gamma=0.25)
    divide, body, first, second = (
        built.stage.get_submodule(n) for n in ("divide", "body", "transition1", "transition2")
    )
    bypass = divide.bypass(X)
    assert bypass.shape[1] == 4
    computed = first(body[1](body[0](divide.computed(X))))
    assert computed.shape[1] == 12
    torch.testing.assert_close(built(X), second(torch.cat([computed, bypass], dim=1)))


@pytest.mark.parametrize(
    ("fusion", "transitions", "channels"),
    [("first", (False, True), 8), ("last", (True, False), 16), ("csp", (True, True), 8)],
)
def test_fusion_says_which_transitions_there_are(fusion: str, transitions: tuple, channels: int) -> None:
    built = stage(6, 8, fusion=fusion, divided_channels=16)
    cross = built.stage
    assert (isinstance(cross.transition1, Conv), isinstance(cross.transition2, Conv)) == transitions
    assert built(X).shape == (2, channels, 4, 8)
    assert built.out_shape(FeatureShape(6, 4)) == FeatureShape(channels, 4)


def test_a_narrow_entry_is_added_to_the_first_channels() -> None:
    """Stage 1 of CSPResNet-50: the blocks have 4 channels, the convolution in front of them 3."""
    built = stage(6, 8, block="bottleneck", fusion="csp", entry_channels=3)
    (block,) = built.stage.body
    y = built.stage.divide.computed(X)
    assert y.shape[1] == 3
    expected = block.layers(y)
    expected[:, :3] += y
    torch.testing.assert_close(block(y), expected.relu())


def test_the_dividing_convolutions_may_be_linear() -> None:
    divide = stage(6, 8, fusion="csp", divide_activation="none").stage.divide
    assert isinstance(divide.bypass.activation, nn.Identity)
    assert isinstance(divide.computed.activation, nn.Identity)
    assert isinstance(stage(6, 8, fusion="csp", activation="mish").stage.divide.bypass.activation, nn.Mish)


def test_a_halving_partial_stage_halves_what_passes_by() -> None:
    built = stage(6, 8, fusion="csp", halve=True)
    bypass, computed = built.stage.divide(X)
    torch.testing.assert_close(bypass, nn.functional.max_pool2d(built.stage.divide.bypass(X), 2))
    assert computed.shape[2:] == (4, 8)
    assert built(X).shape == (2, 8, 2, 4)
    assert stage(6, 8, fusion="csp", halve=True, downsample="spd")(X).shape == (2, 8, 2, 4)


def test_what_passes_by_gives_the_blocks_no_gradient() -> None:
    """A loss on what passed by alone does not reach the blocks: the gradient flow is truncated."""
    built = stage(6, 8, fusion="last", gamma=0.25)  # 6 computed channels come first, 2 that passed by last
    built(X)[:, 6:].sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in built.stage.body.parameters())
    assert built.stage.divide.bypass.conv.weight.grad.any()


def test_pieces() -> None:
    built = stage(24, 8, fusion="csp")
    assert built.accepts_pieces
    torch.testing.assert_close(built((Piece(X, 2),)), built(space_to_depth(X, 2)), atol=1e-12, rtol=0)
    assert not stage(24, 8).accepts_pieces
    assert not stage(24, 8, fusion="csp", halve=True, downsample="spd").accepts_pieces


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"block": "basik"}, r"^block: unknown 'basik'; did you mean 'basic'\?$"),
        ({"shortcut": "none"}, r"^shortcut: unknown 'none'; allowed: partial, pool, projection$"),
        ({"downsample": "sdp"}, r"^downsample: unknown 'sdp'; did you mean 'spd'\?$"),
        ({"fusion": "cps"}, r"^fusion: unknown 'cps'; did you mean 'csp'\?$"),
        ({"spd_form": "convs"}, r"^spd_form: unknown 'convs'; did you mean 'conv'\?$"),
        ({"spd_form": "inside"}, r"^spd_form: belongs to downsample spd, found inside with stride$"),
        (
            {"spd_kernel_size": 3},
            r"^spd_kernel_size: belongs to downsample spd with spd_form conv, found 3 with stride$",
        ),
        (
            {"downsample": "spd", "spd_form": "absorb", "spd_kernel_size": 3},
            r"^spd_kernel_size: belongs to downsample spd with spd_form conv, found 3 with absorb$",
        ),
        (
            {"block": "darknet", "downsample": "spd", "spd_form": "inside"},
            r"^spd_form: inside belongs to blocks basic and bottleneck, found darknet$",
        ),
        (
            {"fusion": "csp", "gamma": 1.0},
            r"^gamma: must be between 0 and 1, and leave some of 8 channels on each side, found 1.0$",
        ),
        (
            {"fusion": "csp", "gamma": 0.05},
            r"^gamma: .* leave some of 8 channels on each side, found 0.05$",
        ),  # 0.4 of one
    ],
)
def test_refused(words: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ResidualStage(6, ResidualOptions(8, **words))


# ------------------------------------------------------------------------------------------------ DropBlock


def test_drop_block_in_training_alone() -> None:
    """The shortcut and the convolutions lose squares of 7 x 7 cells, of different places; nothing in evaluation."""
    torch.manual_seed(0)
    plain = ResidualStage(4, ResidualOptions(4, repeats=2)).eval()
    dropped = ResidualStage(4, ResidualOptions(4, repeats=2, drop_block=0.3)).eval()
    dropped.load_state_dict(plain.state_dict())
    x = torch.rand(3, 4, 21, 21) + 1
    torch.testing.assert_close(dropped(x), plain(x))
    block = dropped.stage[0]
    seen: list[Tensor] = []
    block.drop.register_forward_hook(lambda module, inputs, output: seen.append(output))
    dropped.train()
    dropped(x)
    convolved, skipped = seen
    assert convolved.shape == skipped.shape
    lost = skipped == 0  # the input has no zeros
    assert 0.1 < lost.float().mean() < 0.5
    assert not torch.equal(convolved == 0, lost)
    covered = -F.max_pool2d(-lost.float(), 7, 1)  # 1 where a whole window of 7 x 7 is lost
    assert torch.equal(F.max_pool2d(F.pad(covered, (6, 6, 6, 6)), 7, 1), lost.float())


def test_drop_block_that_is_no_probability() -> None:
    with pytest.raises(InputError, match=r"^drop_block: must be from 0 to below 1, found 1$"):
        ResidualOptions(4, drop_block=1)


def test_drop_block_of_a_resnet_is_in_its_last_two_stages() -> None:
    graph = build_on_meta("resnet18+drop_block=0.1", 2)
    names = {name.split(".")[1] for name, module in graph.named_modules() if isinstance(module, DropBlock2d)}
    assert names == {"c4", "c5"}
