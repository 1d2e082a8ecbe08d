from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detect.config.model import Convolutions
from detect.models.blocks.conv import Conv, replace_convolutions
from detect.models.blocks.space_to_depth import Piece, space_to_depth
from detect.models.build import build_classifier
from detect.papers.bdsc.convolutions import DecoupledConv, MaskConv, binarise

BDSC, FLOAT, DEPTHWISE = Convolutions("bdsc"), Convolutions("bdsc-float"), Convolutions("depthwise")


def random(seed: int, *shape: int) -> Tensor:
    """Normal values in float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ordinary(stride: int = 1, kernel_size: int = 3, bias: bool = False) -> nn.Conv2d:
    """4 to 6 channels, float64."""
    torch.manual_seed(0)
    padding = (kernel_size - 1) // 2
    return nn.Conv2d(4, 6, kernel_size, stride, padding, bias=bias, dtype=torch.float64)


def replaced(wanted: Convolutions, **words) -> nn.Module:
    """What becomes of ``ordinary``."""
    model = nn.Sequential(ordinary(**words))
    assert replace_convolutions(model, wanted) == 1
    return model[0]


# ---------------------------------------------------------------------------------- the exact decomposition


@pytest.mark.parametrize("stride", [1, 2])
def test_an_ordinary_convolution_is_a_decoupled_one(stride: int) -> None:
    """S = 9 * O; channel (o, u, v) of the 1x1 is W[o, :, u, v], and the mask's 1 at (u, v) gives it to output o."""
    conv = ordinary(stride)
    layer = DecoupledConv(conv, p=9, binary=False)
    layer.norm = nn.Identity()
    mask = torch.zeros(6, 6, 3, 3, 3, 3, dtype=torch.float64)  # (output, o, u, v, row, column)
    for o in range(6):
        for u in range(3):
            for v in range(3):
                mask[o, o, u, v, u, v] = 1
    with torch.no_grad():
        layer.project.weight.copy_(conv.weight.permute(0, 2, 3, 1).reshape(54, 4, 1, 1))
        layer.spatial.weight.copy_(mask.view(6, 54, 3, 3))
    x = random(1, 2, 4, 8, 6)
    torch.testing.assert_close(layer(x), conv(x), atol=1e-12, rtol=0)


# ------------------------------------------------------------------------------------------ binary weights


def test_binary_weights() -> None:
    """Magnitudes 1/2, 1/4, 0, 0 of the first output, mean 3/16; 3 counts as 1 and -1 as itself, so 1 of the second."""
    q = torch.tensor([[[[0.5, -0.25], [0.0, -0.0]]], [[[3.0, -1.0], [-1.0, 1.0]]]])
    expected = [[[[0.1875, -0.1875], [0.1875, 0.1875]]], [[[1.0, -1.0], [-1.0, 1.0]]]]
    assert binarise(q).tolist() == expected
    assert binarise(torch.zeros(1, 1, 1, 1)).tolist() == [[[[0.0]]]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_binary_weights_stay_as_they_are(dtype: torch.dtype) -> None:
    """The mean of 63 equal values is not always that value: in its last bit it differs for some of 64 filters here."""
    alpha = random(1, 64).abs().clamp(max=1).to(dtype)
    weights = alpha.view(-1, 1, 1, 1) * random(2, 64, 7, 3, 3).sign().to(dtype)
    if dtype != torch.bfloat16:  # its means are made in float32
        assert (weights.abs().mean(dim=(1, 2, 3)) != alpha).any()
    assert torch.equal(binarise(weights), weights)
    q = random(3, 64, 7, 3, 3).to(dtype)
    assert torch.equal(binarise(binarise(q)), binarise(q))


def test_no_other_binary_weights_are_nearer() -> None:
    """Algorithm 1 gives the least squares: neither another magnitude nor another sign is better."""
    q = random(2, 1, 3, 3, 3).clamp(-1, 1)
    best = binarise(q)
    distance = (q - best).square().sum()
    for factor in (0.9, 0.999, 1.001, 1.1):
        assert (q - factor * best).square().sum() > distance
    for i in range(27):
        flipped = best.clone()
        flipped.view(-1)[i] *= -1
        assert (q - flipped).square().sum() > distance


def test_the_gradient_goes_straight_through() -> None:
    """That of Q is bit for bit that of the binary weights, for values beyond 1 too."""
    q, x = (2 * random(3, 5, 4, 3, 3)).requires_grad_(), random(4, 2, 4, 6, 6)
    weights = binarise(q)
    weights.retain_grad()
    F.conv2d(x, weights).square().sum().backward()
    assert q.detach().abs().max() > 1
    assert q.grad is not None
    assert torch.equal(q.grad, weights.grad)


def test_training_keeps_q_within_one() -> None:
    """A step may lead beyond; the next use clamps. Evaluation gives what clamped values give, and changes nothing."""
    layer, x = replaced(BDSC), random(5, 2, 4, 6, 6)
    optimizer = torch.optim.SGD(layer.parameters(), lr=100)
    for _ in range(3):
        optimizer.zero_grad()
        layer.train()(x).square().mean().backward()
        assert layer.spatial.weight.abs().max() <= 1
        optimizer.step()
    stepped = layer.spatial.weight.detach().clone()
    assert stepped.abs().max() > 1
    found = layer.eval()(x)
    assert torch.equal(layer.spatial.weight, stepped)
    layer.spatial.weight.data.clamp_(-1, 1)
    assert torch.equal(layer(x), found)


def test_two_uses_before_one_backward_pass() -> None:
    layer, x = replaced(BDSC), random(5, 2, 4, 6, 6)
    (layer(x) + layer(2 * x)).square().mean().backward()
    assert layer.spatial.weight.grad is not None


@pytest.mark.parametrize(("stride", "padding"), [(1, 1), (2, 1), (1, 0)])
def test_zeros_and_ones_instead_of_signs(stride: int, padding: int) -> None:
    """conv(z, alpha * M) = alpha * (2 * conv(z, M01) - box(z)), box being one map for all outputs."""
    layer = MaskConv(5, nn.Conv2d(4, 6, 3, stride, padding, bias=False, dtype=torch.float64), binary=True)
    z, weights = random(1, 2, 5, 8, 7), binarise(layer.weight)
    alpha, ones = weights[:, 0, 0, 0].abs().view(6, 1, 1), (weights > 0).double()
    box = F.conv2d(z.sum(dim=1, keepdim=True), torch.ones(1, 1, 3, 3, dtype=torch.float64), None, stride, padding)
    expected = alpha * (2 * F.conv2d(z, ones, None, stride, padding) - box)
    torch.testing.assert_close(layer(z), expected, atol=1e-12, rtol=0)


# ----------------------------------------------------------------------------------------------- the layer


def test_decoupled_convolution_is_projection_norm_and_mask() -> None:
    layer, x = replaced(BDSC, stride=2, bias=True).eval(), random(6, 2, 4, 8, 6)
    with torch.no_grad():
        layer.norm.running_mean.copy_(random(7, 6))
        layer.norm.running_var.copy_(random(8, 6).square() + 0.1)
        layer.spatial.bias.copy_(random(9, 6))
    y = F.conv2d(x, layer.project.weight)
    mean, variance = (values.view(1, 6, 1, 1) for values in (layer.norm.running_mean, layer.norm.running_var))
    y = (y - mean) / (variance + layer.norm.eps).sqrt()
    q = layer.spatial.weight
    weights = q.abs().mean(dim=(1, 2, 3), keepdim=True) * q.sign()
    expected = F.conv2d(y, weights, layer.spatial.bias, stride=2, padding=1)
    torch.testing.assert_close(layer(x), expected, atol=1e-12, rtol=0)


def test_without_a_norm() -> None:
    """Two convolutions, one behind the other; the replaced one's bias is that of the second."""
    layer, x = replaced(Convolutions("bdsc", norm=False), bias=True), random(6, 2, 4, 8, 6)
    assert {name for name, _ in layer.named_parameters()} == {"project.weight", "spatial.weight", "spatial.bias"}
    with torch.no_grad():
        layer.spatial.bias.copy_(random(9, 6))
    weights = binarise(layer.spatial.weight)
    expected = F.conv2d(F.conv2d(x, layer.project.weight), weights, layer.spatial.bias, padding=1)
    torch.testing.assert_close(layer(x), expected, atol=1e-12, rtol=0)


def test_float_weights_are_q() -> None:
    layer, x = replaced(FLOAT), random(6, 2, 4, 8, 6)
    with torch.no_grad():
        layer.spatial.weight.mul_(50)
    expected = F.conv2d(layer.norm(layer.project(x)), layer.spatial.weight, padding=1)
    torch.testing.assert_close(layer(x), expected, atol=1e-12, rtol=1e-12)
    assert layer.spatial.weight.abs().max() > 1


def test_depthwise_is_a_convolution_of_each_channel_and_a_mixture() -> None:
    layer, x = replaced(DEPTHWISE, stride=2, bias=True).eval(), random(6, 2, 4, 8, 6)
    each = [F.conv2d(x[:, i : i + 1], layer.depthwise.weight[i : i + 1], stride=2, padding=1) for i in range(4)]
    y = torch.cat(each, dim=1) / (1 + layer.norm.eps) ** 0.5  # running mean 0 and variance 1
    expected = F.conv2d(y, layer.pointwise.weight, layer.pointwise.bias)
    torch.testing.assert_close(layer(x), expected, atol=1e-12, rtol=0)
    assert layer.depthwise.bias is None


@pytest.mark.parametrize(
    ("p", "out_channels", "hidden"),
    [(1, 6, 6), (3, 6, 18), (0.5, 6, 3), (0.1, 4, 1), (0.3, 5, 2), (1, 1, 1)],  # 0.4 is none, but there is one
)
def test_channels_between_the_steps(p: float, out_channels: int, hidden: int) -> None:
    layer = DecoupledConv(nn.Conv2d(4, out_channels, 3), p, binary=True)
    assert layer.project.weight.shape == (hidden, 4, 1, 1)
    assert layer.norm.num_features == hidden
    assert layer.spatial.weight.shape == (out_channels, hidden, 3, 3)


@pytest.mark.parametrize(("p", "hidden"), [(1, 4), (2, 8), (0.1, 1)])
@pytest.mark.parametrize("kind", ["bdsc", "bdsc-float"])
def test_channels_as_a_multiple_of_the_input(kind: str, p: float, hidden: int) -> None:
    """4 to 6 channels: p times 4 between the steps."""
    layer = replaced(Convolutions(kind, p, p_of="input"))
    assert layer.project.weight.shape == (hidden, 4, 1, 1)
    assert layer.spatial.weight.shape == (6, hidden, 3, 3)


@pytest.mark.parametrize(
    "wanted", [BDSC, Convolutions("bdsc", 2), Convolutions("bdsc", 2, "input", norm=False), FLOAT, DEPTHWISE], ids=str
)
@pytest.mark.parametrize(("kernel_size", "stride"), [(2, 2), (3, 1), (3, 2), (5, 1), (6, 2)])
def test_shape_and_gradients(wanted: Convolutions, kernel_size: int, stride: int) -> None:
    """The map has the size that the ordinary convolution gives it; every parameter learns."""
    words = {"kernel_size": kernel_size, "stride": stride, "bias": True}
    layer, x = replaced(wanted, **words), random(7, 2, 4, 12, 8)
    y = layer(x)
    assert y.shape == ordinary(**words)(x).shape == (2, 6, 12 // stride, 8 // stride)
    y.square().mean().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("wanted", [BDSC, FLOAT, DEPTHWISE], ids=str)
def test_pieces_in_place_of_a_map(wanted: Convolutions) -> None:
    """A map at twice the size and one as it is: 4 * 2 and 3 channels."""
    conv = nn.Conv2d(11, 6, 3, padding=1, dtype=torch.float64)
    model = nn.Sequential(conv)
    replace_convolutions(model, wanted)
    large, small = random(8, 2, 2, 8, 6), random(9, 2, 3, 4, 3)
    found = model[0]((Piece(large, 2), Piece(small)))
    expected = model[0](torch.cat([space_to_depth(large, 2), small], dim=1))
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("wanted", [BDSC, FLOAT, DEPTHWISE], ids=str)
def test_bf16(wanted: Convolutions) -> None:
    layer = replaced(wanted).float()
    x = random(9, 2, 4, 6, 6).float()
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), layer(x), atol=0.1, rtol=0.05)
    y.float().square().mean().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in layer.parameters())


# ------------------------------------------------------------------------------------------ where it goes


def test_what_is_replaced() -> None:
    """k x k of one group, at any depth, under the same name."""
    deep = nn.Sequential(nn.Conv2d(8, 4, (1, 3)))
    model = nn.Sequential(Conv(4, 8, 3), Conv(8, 8, 1), Conv(8, 8, 3, groups=2), deep)
    kept = model[1].conv, model[2].conv
    assert replace_convolutions(model, Convolutions("bdsc", 2)) == 2
    assert (model[1].conv, model[2].conv) == kept
    assert {name for name, _ in model[0].named_parameters()} == {
        *("conv.project.weight", "conv.norm.weight", "conv.norm.bias", "conv.spatial.weight"),
        *("norm.weight", "norm.bias"),
    }
    assert deep[0].spatial.weight.shape == (4, 8, 1, 3)


@pytest.mark.parametrize("wanted", [BDSC, FLOAT, DEPTHWISE], ids=str)
def test_device_and_type_stay(wanted: Convolutions) -> None:
    conv = Conv(4, 8, 3).to("meta", torch.float64)
    replace_convolutions(conv, wanted)
    tensors = [tensor for tensor in conv.state_dict().values() if tensor.is_floating_point()]
    assert {(tensor.device.type, tensor.dtype) for tensor in tensors} == {("meta", torch.float64)}
    assert conv(torch.empty(2, 4, 6, 6, device="meta", dtype=torch.float64)).shape == (2, 8, 6, 6)


@pytest.mark.parametrize("wanted", [BDSC, FLOAT, DEPTHWISE], ids=str)
def test_nothing_to_replace(wanted: Convolutions) -> None:
    assert replace_convolutions(nn.Identity(), wanted) == 0
    assert replace_convolutions(Conv(4, 8, 1), wanted) == 0


@pytest.mark.parametrize("wanted", [BDSC, FLOAT, DEPTHWISE], ids=str)
@pytest.mark.parametrize("stride", [1, 2])
def test_what_others_read_of_a_convolution(wanted: Convolutions, stride: int) -> None:
    conv = Conv(4, 8, 3, stride)
    before = conv.accepts_pieces, conv.conv.out_channels, conv.conv.stride, conv.conv.groups
    replace_convolutions(conv, wanted)
    assert (conv.accepts_pieces, conv.conv.out_channels, conv.conv.stride, conv.conv.groups) == before


# -------------------------------------------------------------------------------------------- start values


@pytest.mark.parametrize("word", ["bdsc", "conv=bdsc-float"])
def test_start_of_q(word: str) -> None:
    """Normal with variance 2 / (S * 9), within [-1, 1]; the largest layer of ResNet-18 has S = 512."""
    torch.manual_seed(0)
    model = build_classifier(f"resnet18+{word}+width=0.25", 3)
    masks = [layer for layer in model.modules() if isinstance(layer, MaskConv)]
    assert len(masks) == 16  # two in each of eight blocks
    for mask in masks:
        q = mask.weight.detach()
        assert q.std().item() == pytest.approx((2 / q[0].numel()) ** 0.5, rel=0.05)
        assert q.abs().max() <= 1
    wide = MaskConv(1, nn.Conv2d(1, 4096, (1, 2), bias=True), binary=True)  # deviation 1: a third is clamped
    assert wide.weight.abs().max() == 1
    assert wide.bias.abs().max() == 0
