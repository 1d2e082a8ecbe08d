from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from detect.config.model import Convolutions
from detect.errors import InputError
from detect.models.blocks.conv import replace_convolutions
from detect.models.packing import pack_state, packed_layers, unpack_state
from detect.papers.bdsc.convolutions import MaskConv, binarise, pack_signs, unpack_signs

SHAPES = [(1, 1, 1, 1), (1, 7, 1, 1), (2, 2, 1, 2), (1, 1, 3, 3), (5, 3, 3, 3), (3, 4, 5, 5)]
"""1, 7, 8, 9, 135 and 300 entries."""


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def small(kind: str = "bdsc") -> nn.Sequential:
    """Two decoupled convolutions around a norm: masks of 6 * 6 * 9 and 5 * 5 * 9 entries, which fill no byte."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 5, 3, bias=False))
    replace_convolutions(model, Convolutions(kind))
    return model


# ------------------------------------------------------------------------------------------------- signs


def test_bits_by_hand() -> None:
    """+ - + + - - - + is 10110001 or 177; a ninth + is 1 and seven zeros, 128. The sign of 0 is +."""
    q = torch.tensor([1.0, -2.0, 0.0, 0.5, -0.1, -1e-30, -9.0, -0.0, 3.0])
    assert pack_signs(q).tolist() == [177, 128]
    assert unpack_signs(pack_signs(q), (3, 3)).tolist() == [[1, -1, 1], [1, -1, -1], [-1, 1, 1]]
    assert pack_signs(torch.zeros(0)).tolist() == []


@pytest.mark.parametrize("shape", SHAPES)
def test_as_numpy_packs_them(shape: tuple[int, ...]) -> None:
    q = random(1, *shape)
    bits = pack_signs(q)
    assert bits.dtype == torch.uint8
    assert bits.tolist() == np.packbits(q.numpy() >= 0).tolist()
    assert len(bits) == -(-q.numel() // 8)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_packed_and_back(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    q = random(2, *shape).to(dtype)
    signs = unpack_signs(pack_signs(q), shape)
    assert signs.dtype == torch.float32
    assert torch.equal(signs, torch.where(q < 0, -1.0, 1.0))
    assert torch.equal(pack_signs(signs), pack_signs(q))


def test_the_order_is_that_of_the_indices() -> None:
    """Output, input, row, column, however the memory lies: 2 * 2 inputs of 1 x 2, one + in input 0 of output 1."""
    q = -torch.ones(2, 2, 1, 2)
    q[1, 0, 0, 1] = 1  # entry (1 * 2 + 0) * 2 + 1 = 5 of 8: bit 2 from below
    assert pack_signs(q).tolist() == [4]
    assert pack_signs(q.to(memory_format=torch.channels_last)).tolist() == [4]


# -------------------------------------------------------------------------------------------- state dicts


def test_what_is_packed() -> None:
    model = small()
    state = model.state_dict()
    packed = pack_state(model, state)
    layers = packed_layers(model)
    assert {key: layer.weight.shape for key, layer in layers.items()} == {
        "0.spatial.weight": (6, 6, 3, 3),
        "2.spatial.weight": (5, 5, 3, 3),
    }
    assert [layer.packed_bytes for layer in layers.values()] == [41 + 4 * 6, 29 + 4 * 5]
    for name, outputs, length in (("0.spatial", 6, 41), ("2.spatial", 5, 29)):  # 324 / 8 and 225 / 8, rounded up
        weights = binarise(state[f"{name}.weight"])
        bits, alpha = packed.pop(f"{name}.bits"), packed.pop(f"{name}.alpha")
        assert (bits.dtype, bits.shape, alpha.dtype, alpha.shape) == (torch.uint8, (length,), torch.float32, (outputs,))
        assert torch.equal(alpha.view(-1, 1, 1, 1) * unpack_signs(bits, weights.shape), weights)
    assert packed.keys() == state.keys() - {"0.spatial.weight", "2.spatial.weight"}
    assert all(packed[key] is state[key] for key in packed)  # the bias of a mask too


@pytest.mark.parametrize("kind", ["bdsc-float", "depthwise"])
def test_other_convolutions_are_not_packed(kind: str) -> None:
    model = small(kind)
    state = model.state_dict()
    assert pack_state(model, state).keys() == unpack_state(model, state, "here").keys() == state.keys()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_weights_and_the_same_bits_again(dtype: torch.dtype, memory_format: torch.memory_format) -> None:
    """Values beyond 1 included, as a step of the optimiser may leave them."""
    model = small().to(dtype).to(memory_format=memory_format)
    with torch.no_grad():
        for layer in (model[0].spatial, model[2].spatial):
            layer.weight.mul_(3)
    packed = pack_state(model, model.state_dict())
    other = small()
    other.load_state_dict(unpack_state(other, packed, "here"))
    for ours, theirs in zip(model, other, strict=True):
        if hasattr(ours, "spatial"):
            assert torch.equal(binarise(ours.spatial.weight).float(), binarise(theirs.spatial.weight))
            assert torch.equal(binarise(theirs.spatial.weight), theirs.spatial.weight)
    again = pack_state(other, other.state_dict())
    for key in (key for key in packed if key.endswith((".bits", ".alpha"))):
        assert torch.equal(again[key], packed[key]), key


def test_filters_of_nothing() -> None:
    """All zeros, and one so small that its mean is 0: a zero has no sign that could be lost."""
    layer = nn.Sequential(MaskConv(3, nn.Conv2d(1, 2, 3), binary=True))
    with torch.no_grad():
        layer[0].weight.zero_()[1, 0, 0, 0] = -1e-45
    packed = pack_state(layer, layer.state_dict())
    assert packed["0.alpha"].tolist() == [0, 0]
    layer.load_state_dict(unpack_state(layer, packed, "here"))
    assert torch.equal(pack_state(layer, layer.state_dict())["0.bits"], packed["0.bits"])


def test_packed_inference_is_what_training_computes() -> None:
    """The forward pass of training, its norms apart, and the layer that was packed and unpacked."""
    model, packed = small(), small()
    packed.load_state_dict(unpack_state(packed, pack_state(model, model.state_dict()), "here"))
    model.train()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()
    x = random(3, 2, 4, 9, 8)
    torch.testing.assert_close(packed.eval()(x), model(x), atol=1e-6, rtol=1e-6)


def test_what_was_never_packed_stays() -> None:
    model = small()
    state = model.state_dict()
    found = unpack_state(model, state, "here")
    assert found.keys() == state.keys()
    assert all(found[key] is state[key] for key in state)


# ------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "bits",
            torch.zeros(40, dtype=torch.uint8),
            r"bits: must be torch\.uint8 \(41,\), found torch\.uint8 \(40,\)$",
        ),
        (
            "bits",
            torch.zeros(42, dtype=torch.uint8),
            r"bits: must be torch\.uint8 \(41,\), found torch\.uint8 \(42,\)$",
        ),
        ("bits", torch.zeros(41, 1, dtype=torch.uint8), r"bits: must be .* found torch\.uint8 \(41, 1\)$"),
        ("bits", torch.zeros(41), r"bits: must be torch\.uint8 \(41,\), found torch\.float32 \(41,\)$"),
        ("bits", "x", r"bits: must be torch\.uint8 \(41,\), found 'x'$"),
        ("alpha", torch.zeros(5), r"alpha: must be torch\.float32 \(6,\), found torch\.float32 \(5,\)$"),
        ("alpha", torch.zeros(6).double(), r"alpha: must be torch\.float32 \(6,\), found torch\.float64 \(6,\)$"),
        ("alpha", torch.full((6,), float("nan")), r"alpha: must be finite, from 0 to 1; the file is of no use$"),
        ("alpha", torch.full((6,), float("inf")), r"alpha: must be finite, from 0 to 1; "),
        ("alpha", torch.full((6,), -0.5), r"alpha: must be finite, from 0 to 1; "),
        ("alpha", torch.full((6,), 1.5), r"alpha: must be finite, from 0 to 1; "),
    ],
)
def test_refused(key: str, value: object, message: str) -> None:
    model = small()
    packed = pack_state(model, model.state_dict()) | {f"0.spatial.{key}": value}
    with pytest.raises(InputError, match=rf"^here: 0\.spatial\.{message}"):
        unpack_state(model, packed, "here")


@pytest.mark.parametrize("missing", ["bits", "alpha"])
def test_half_of_a_pair_is_left_for_the_loader_to_name(missing: str) -> None:
    model = small()
    packed = pack_state(model, model.state_dict())
    del packed[f"0.spatial.{missing}"]
    found = unpack_state(model, packed, "here")
    assert "0.spatial.weight" not in found
    assert {"0.spatial.bits", "0.spatial.alpha"} - {f"0.spatial.{missing}"} <= found.keys()


def test_weights_beside_their_bits_are_left_for_the_loader_to_name() -> None:
    model = small()
    state = model.state_dict()
    both = state | pack_state(model, state)
    assert unpack_state(model, both, "here").keys() == both.keys()
