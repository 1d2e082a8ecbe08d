from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detect.errors import InputError
from detect.models.blocks.conv import BareConv, Conv, NormActivation, PreConv
from detect.models.blocks.csp import ChannelDivide, CrossStage
from detect.models.blocks.dense import (
    ConvStyle,
    DenseBody,
    DenseLayer,
    DenseOptions,
    DenseStage,
    ElasticDenseLayer,
    layer_sources,
)
from detect.models.blocks.space_to_depth import space_to_depth
from detect.models.blocks.transition import DividedTransition, Transition, TransitionOptions
from detect.structures import FeatureShape

STYLE = ConvStyle(preactivation=False, activation="leaky")
PRE = ConvStyle(preactivation=True, activation="relu")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def num_weights(module: nn.Module) -> int:
    """Weights of convolutions."""
    return sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Conv2d))


X = noise(2, 8, 4, 6)


# ------------------------------------------------------------------------------------------- layers


@pytest.mark.parametrize(
    ("layer", "sparse", "expected"),
    [
        (1, False, (0,)),
        (1, True, (0,)),
        (4, False, (0, 1, 2, 3)),
        (4, True, (0, 2, 3)),  # 4 - 4, 4 - 2, 4 - 1
        (6, True, (2, 4, 5)),  # 6 - 4, 6 - 2, 6 - 1; 8 lies before the input
    ],
)
def test_layer_sources(layer: int, sparse: bool, expected: tuple[int, ...]) -> None:
    assert layer_sources(layer, sparse) == expected


def test_body_reads_what_its_sources_say() -> None:
    """Layers that sum their channels into one: x has 1; then 1, then 1 + 1 = 2, then 1 + 2 = 3 (not the input)."""

    class Sum(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sum(dim=1, keepdim=True)

    body = DenseBody([Sum(), Sum(), Sum()], [(0,), (0, 1), (1, 2)])
    assert body(torch.ones(1, 1, 1, 1)).flatten().tolist() == [1, 1, 2, 3]


def test_body_without_layers() -> None:
    torch.testing.assert_close(DenseBody([], [])(X), X, rtol=0, atol=0)


def test_preactivation() -> None:
    """Norm and activation come first: the output keeps its sign and scale."""
    layer = PreConv(8, 3, 1, "relu").double().eval()
    layer.norm.running_mean.uniform_(-1, 1)
    expected = F.conv2d(layer.norm(X).clamp(min=0), layer.conv.weight)
    torch.testing.assert_close(layer(X), expected)
    folded = PreConv(8, 3, 1, "relu", block_size=2).double().eval()
    expected = F.conv2d(space_to_depth(folded.norm(X).clamp(min=0), 2), folded.conv.weight)
    torch.testing.assert_close(folded(X), expected)


def test_norm_activation_and_bare_conv() -> None:
    norm = NormActivation(8).double().eval()
    torch.testing.assert_close(norm(X), norm.norm(X).clamp(min=0))
    assert norm.out_shape(FeatureShape(8, 4)) == FeatureShape(8, 4)
    conv = BareConv(8, 3).double()
    torch.testing.assert_close(conv(X), F.conv2d(X, conv.conv.weight, padding=1))
    assert [name for name, _ in conv.named_parameters()] == ["conv.weight"]
    assert conv.out_shape(FeatureShape(8, 4)) == FeatureShape(3, 4)
    with pytest.raises(InputError, match="kernel_size: must be odd, found 2"):
        BareConv(8, 3, 2)


@pytest.mark.parametrize(("bottleneck", "weights"), [(None, 8 * 4 * 9), (6, 8 * 6 + 6 * 4 * 9)])
def test_dense_layer(bottleneck: int | None, weights: int) -> None:
    layer = DenseLayer(8, 4, bottleneck, PRE).double()
    assert layer(X).shape == (2, 4, 4, 6)
    assert num_weights(layer) == weights


def test_elastic_layer_is_the_sum_of_its_branches() -> None:
    """Each has half of the bottleneck: 2 * (8 * 3 + 3 * 4 * 9) weights. The small one is constant on 2x2 cells."""
    layer = ElasticDenseLayer(8, 4, 6, PRE).double().eval()
    assert num_weights(layer) == 2 * (8 * 3 + 3 * 4 * 9)
    small = layer(X) - layer.full(X)
    torch.testing.assert_close(small, small[..., ::2, ::2].repeat_interleave(2, 2).repeat_interleave(2, 3))
    torch.testing.assert_close(small[..., ::2, ::2], layer.small(X))


@pytest.mark.parametrize(
    ("channels", "out_channels", "kernel_size", "groups"),
    [(64, 16, 3, 8), (16, 16, 3, 2), (16, 4, 3, 2), (8, 4, 3, 1), (4, 4, 3, 1), (64, 16, 1, 1)],
)
def test_groups(channels: int, out_channels: int, kernel_size: int, groups: int) -> None:
    """Eight input channels a group, and one group where there are not as many; 1x1 convolutions have one."""
    conv = ConvStyle(False, "relu", group_width=8).conv(channels, out_channels, kernel_size)
    assert isinstance(conv, Conv)
    assert conv.conv.groups == groups


# ------------------------------------------------------------------------------------------- stages


@pytest.mark.parametrize(
    ("words", "channels", "weights"),
    [
        # Layers of 1x1 to 4 and 3x3 to 4: (8 + 12) * 4 + 2 * 4 * 4 * 9 = 368. Transition 16 * 16 = 256.
        ({}, 16, 368 + 256),
        ({"transition": False}, 16, 368),
        ({"compression": 0.5}, 8, 368 + 16 * 8),
        # Half passes by: (4 + 8) * 4 + 288 = 336; computed 4 + 8 = 12.
        ({"fusion": "first"}, 16, 336),
        ({"fusion": "last"}, 16, 336 + 144),
        ({"fusion": "last", "transition": False}, 16, 336 + 144),
        ({"fusion": "last", "compression": 0.5}, 8, 336 + 12 * 4),
        ({"fusion": "csp", "compression": 0.5}, 16, 336 + 144),
        ({"fusion": "csp", "compression": 0.5, "compressed_by": "first"}, 8, 336 + 12 * 4),
        # 3/4 pass by, which is 6: (2 + 6) * 4 + 288 = 320. Half of 16 is 8, but at least g = 4 stay beside the 6.
        ({"fusion": "csp", "gamma": 0.75, "compression": 0.5, "compressed_by": "first"}, 10, 320 + 10 * 4),
        # The second of two layers reads both maps before it, as layers 1 and 2 do in any case.
        ({"sparse": True}, 16, 368 + 256),
        # 4 to 2 and 2 to 4, with h = g / 2, in each of the two layers.
        ({"se": True}, 16, 368 + 256 + 2 * 16),
        # 3x3 convolutions of two input channels a group: 4 * 2 * 9 each.
        ({"group_width": 2}, 16, 80 + 2 * 72 + 256),
        # 1x1 to 4 twice, 3x3 to 2 twice, 3x3 from 2 to 2: 20 * 8 + 2 * (2 * 72 + 36).
        ({"two_way": True}, 16, 160 + 360 + 256),
    ],
    ids=str,
)
@pytest.mark.parametrize("preactivation", [False, True])
def test_stage(words: dict, channels: int, weights: int, preactivation: bool) -> None:
    """C 8, g 4, n 2, bottleneck 4."""
    stage = DenseStage(8, DenseOptions(4, repeats=2, bottleneck=4, preactivation=preactivation, **words)).double()
    assert stage.out_shape(FeatureShape(8, 4)) == FeatureShape(channels, 4)
    assert stage(X).shape == (2, channels, 4, 6)
    assert num_weights(stage) == weights


def test_sparse_layers_read_less() -> None:
    """3x3 layers without bottleneck of C 8, g 4: the third reads layers 2 and 1, not the input: 8, 12, 8 channels."""
    stage = DenseStage(8, DenseOptions(4, repeats=3, sparse=True, transition=False))
    assert num_weights(stage) == (8 + 12 + 8) * 4 * 9


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"fusion": "csb"}, "fusion: unknown 'csb'; did you mean 'csp'?"),
        ({"compressed_by": "third"}, "compressed_by: unknown 'third'"),
        ({"downsample": "pool"}, "downsample: unknown 'pool'"),
        ({"gamma": 1.0}, "gamma: must be at least 0 and below 1, and leave some of"),
        ({"compression": 0}, "compression: must be above 0 and at most 1, found 0"),
        ({"two_way": True, "elastic": True}, "elastic: two-way layers cannot be elastic"),
        ({"two_way": True, "bottleneck": None}, "bottleneck: layers with two branches need it"),
        ({"two_way": True, "growth": 3}, "growth: must be even, half of it for each branch, found 3"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_refuses(words: dict, message: str) -> None:
    with pytest.raises(InputError, match=message.replace("?", r"\?")):
        DenseStage(8, DenseOptions(**{"growth": 4, "bottleneck": 4, **words}))


# ------------------------------------------------------------------------------------------- transitions


@pytest.mark.parametrize(
    ("words", "channels", "weights"),
    [
        ({}, 8, 0),
        ({"downsample": "spd"}, 8, 32 * 8),  # the pool's replacement
        ({"fusion": "csp", "compression": 0.5}, 4, 8 * 4),
        ({"fusion": "csp", "compression": 0.5, "downsample": "spd"}, 4, 32 * 4),
        ({"fusion": "csp", "compression": 0.5, "compressed_by": "first"}, 8, 64),
        ({"fusion": "first", "compression": 0.5, "compressed_by": "first"}, 4, 32),
        ({"fusion": "last", "compression": 0.5}, 8, 0),
    ],
    ids=str,
)
@pytest.mark.parametrize("preactivation", [False, True])
def test_transition(words: dict, channels: int, weights: int, preactivation: bool) -> None:
    transition = Transition(8, TransitionOptions(preactivation=preactivation, **words)).double()
    assert transition.out_shape(FeatureShape(8, 4)) == FeatureShape(channels, 8)
    assert transition(X).shape == (2, channels, 2, 3)
    assert num_weights(transition) == weights


@pytest.mark.parametrize(("fusion", "weights"), [("none", 0), ("csp", 64)])
def test_transition_without_pool(fusion: str, weights: int) -> None:
    transition = Transition(8, TransitionOptions(pool=False, downsample="spd", fusion=fusion)).double()
    assert transition(X).shape == X.shape
    assert transition.out_shape(FeatureShape(8, 4)) == FeatureShape(8, 4)
    assert num_weights(transition) == weights


def test_transition_refuses() -> None:
    with pytest.raises(InputError, match="compression: must be above 0"):
        Transition(8, TransitionOptions(compression=1.5))


@pytest.mark.parametrize(("gamma", "bypass"), [(0.25, 2), (0.75, 6)])
def test_divided_transition(gamma: float, bypass: int) -> None:
    """Averages commute with linear maps: without norm and activation both parts are the pool of a 1x1 convolution."""
    block = DividedTransition(8, gamma, activation="none").double().eval()
    y = block(X)
    assert y.shape == (2, 8, 2, 3)
    assert block.out_shape(FeatureShape(8, 4)) == FeatureShape(8, 8)
    pooled = F.avg_pool2d(X, 2)
    convs = [m for m in block.modules() if isinstance(m, nn.Conv2d)]
    assert [c.out_channels for c in convs] == [bypass, 8 - bypass]
    expected = torch.cat([F.conv2d(pooled, c.weight) for c in convs], dim=1) / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(y, expected)


def test_divided_transition_spd() -> None:
    """The part that passes by reads the space-to-depth; the computed part's pool brings a convolution: 32 * 4 + 16."""
    block = DividedTransition(8, downsample="spd").double()
    assert block(X).shape == (2, 8, 2, 3)
    assert num_weights(block) == 32 * 4 + 8 * 4 + 16 * 4


@pytest.mark.parametrize("gamma", [0.0, 1.0])
def test_divided_transition_refuses(gamma: float) -> None:
    with pytest.raises(InputError, match="gamma: must leave channels to both parts"):
        DividedTransition(8, gamma)


# ------------------------------------------------------------------------------------------- what CSPNet promises


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("style", [STYLE, PRE], ids=["post", "pre"])
def test_nothing_passes_by_without_gamma(style: ConvStyle, sparse: bool) -> None:
    """With gamma 0 and no transitions a partial stage is the plain one."""
    words = {"repeats": 3, "bottleneck": 4, "sparse": sparse, "preactivation": style.preactivation}
    plain = DenseStage(8, DenseOptions(4, transition=False, **words)).double().eval()
    partial = DenseStage(8, DenseOptions(4, fusion="first", gamma=0.0, **words)).double().eval()
    assert isinstance(partial.stage, CrossStage)
    partial.stage.body.load_state_dict(plain.stage[0].state_dict())
    torch.testing.assert_close(partial(X), plain(X), rtol=0, atol=0)


@pytest.mark.parametrize("fusion", ["first", "last", "csp"])
@pytest.mark.parametrize(("gamma", "bypass"), [(0.25, 2), (0.5, 4), (0.75, 6)])
def test_bypass_is_untouched(fusion: str, gamma: float, bypass: int) -> None:
    """What passes by is the stage's input bit for bit, and says nothing to the weights of the dense layers."""
    stage = DenseStage(8, DenseOptions(4, repeats=2, bottleneck=4, fusion=fusion, gamma=gamma)).double()
    passed = stage(X)[:, :bypass]
    torch.testing.assert_close(passed, X[:, :bypass], rtol=0, atol=0)
    gradients = torch.autograd.grad(passed.square().sum(), list(stage.parameters()))
    assert len(gradients) > 0
    assert not any(gradient.any() for gradient in gradients)
    computed = torch.autograd.grad(stage(X)[:, bypass:].square().sum(), list(stage.parameters()))
    assert all(gradient.any() for gradient in computed)


class Linear1x1(nn.Conv2d):
    """A 1x1 convolution with the given (O, C) matrix and nothing else."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__(matrix.shape[1], matrix.shape[0], 1, bias=False, dtype=matrix.dtype)
        self.weight = nn.Parameter(matrix[:, :, None, None])


@pytest.mark.parametrize("pool", ["none", "before", "after"])
def test_fusions_agree_with_linear_transitions(pool: str) -> None:
    """First with T2 = blockdiag(1, A) is last with T1 = A is csp with T1 = A and T2 = 1, also with a pool around T2."""
    bypass, computed = 3, 5 + 2 * 4
    layers = [DenseLayer(5 + 4 * i, 4, 4, STYLE) for i in range(2)]
    body = DenseBody(layers, [layer_sources(number, sparse=False) for number in (1, 2)]).double().eval()
    a = noise(computed, computed, seed=1)
    identity = torch.eye(bypass, dtype=torch.float64)

    def stage(t1: nn.Module, t2: nn.Module) -> Tensor:
        pooled = [nn.AvgPool2d(2)] if pool != "none" else []
        second = nn.Sequential(*pooled, t2) if pool == "before" else nn.Sequential(t2, *pooled)
        return CrossStage(ChannelDivide(bypass), body, t1, second, bypass_first=True)(X)

    first = stage(nn.Identity(), Linear1x1(torch.block_diag(identity, a)))
    last = stage(Linear1x1(a), nn.Identity())
    csp = stage(Linear1x1(a), Linear1x1(torch.eye(bypass + computed, dtype=torch.float64)))
    torch.testing.assert_close(first, last)
    torch.testing.assert_close(csp, last)


@pytest.mark.parametrize("downsample", ["stride", "spd"])
def test_transitions_round_odd_sides_up(downsample: str) -> None:
    """In both parts of the map, so that they fit; a side of 1 stays."""
    words = {"downsample": downsample}
    for transition in (
        Transition(8, TransitionOptions(fusion="csp", **words)),
        Transition(8, TransitionOptions(**words)),
        DividedTransition(8, **words),
    ):
        assert transition(torch.rand(2, 8, 5, 8)).shape == (2, 8, 3, 4)
        assert transition(torch.rand(2, 8, 1, 1)).shape == (2, 8, 1, 1)
