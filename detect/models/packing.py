"""Small state dicts. Binary weights as bits: one for each sign, and a magnitude for each output; others as float16.

A state dict holds of a binary ``MaskConv`` X either ``X.weight``, which is Q, or what is left of Q in evaluation:

===========  =======================================================================================================
``X.bits``   uint8 (ceil(O * S * k * k / 8),): the signs in the order of the weights (output, input, row, column), the
             first one in the highest bit, 1 for +1; zeros fill the last byte
``X.alpha``  float32 (O,): the magnitude of each output's weights, from 0 to 1
===========  =======================================================================================================

Packing loses the magnitudes of Q, which only training looks at: unpacked, Q is +-alpha.

Letters: O output channels, S input channels of the mask, k kernel size.

Source: BDSC (AAAI 2018), whose model sizes count a bit for each entry of a mask.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detect.errors import InputError
from detect.models.blocks.bdsc import MaskConv, binarise

BITS = 8
"""Of a byte."""


def binary_weights(model: nn.Module) -> dict[str, torch.Size]:
    """The keys of the binary weights in the module's state dict, and their shapes (O, S, k, k)."""
    layers = model.named_modules()
    return {f"{name}.weight": m.weight.shape for name, m in layers if isinstance(m, MaskConv) and m.binary}


def packed_bytes(shape: torch.Size) -> int:
    """How many bytes the bits and the magnitudes of binary weights take."""
    return -(-shape.numel() // BITS) + 4 * shape[0]


def pack_signs(q: Tensor) -> Tensor:
    """The signs of a tensor as bits, as ``numpy.packbits`` packs them.

    Args:
        q: n values of any shape; the sign of 0 is +1.

    Returns:
        uint8 (ceil(n / 8),) on the same device: 1 for +1, the first value in the highest bit, the end filled with 0.
    """
    positive = (~(q < 0)).flatten().to(torch.uint8)
    rows = F.pad(positive, (0, -len(positive) % BITS)).view(-1, BITS)
    return (rows << _shifts(q.device)).sum(dim=1, dtype=torch.uint8)


def unpack_signs(bits: Tensor, shape: tuple[int, ...]) -> Tensor:
    """What ``pack_signs`` packed.

    Args:
        bits: uint8 (ceil(n / 8),).
        shape: of the n signs.

    Returns:
        float32 of that shape: -1 and +1.
    """
    found = ((bits[:, None] >> _shifts(bits.device)) & 1).flatten()
    return (2.0 * found - 1)[: torch.Size(shape).numel()].view(shape)


def pack_state(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with the binary weights as bits.

    Args:
        model: says which weights are binary.
        state: its state dict; is not changed.

    Returns:
        The rest of it, and ``X.bits`` and ``X.alpha`` in the place of each ``X.weight``.
    """
    masks = binary_weights(model)
    packed = {}
    for key, tensor in state.items():
        if key not in masks:
            packed[key] = tensor
            continue
        name, weights = key.removesuffix("weight"), binarise(tensor)
        packed[f"{name}bits"] = pack_signs(weights)
        packed[f"{name}alpha"] = weights[:, 0, 0, 0].abs().float()  # all of an output are equal
    return packed


def unpack_state(model: nn.Module, state: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    """A state dict with ``X.weight`` in the place of ``X.bits`` and ``X.alpha``; what is not packed stays as it is.

    Args:
        model: says which weights are binary, and their shapes.
        state: as ``pack_state`` gave it, or never packed; is not changed.
        where: the file, for messages.

    Returns:
        The rest of it, and alpha * sign, float32 (O, S, k, k), of which ``binarise`` makes itself again.

    Raises:
        InputError: bits or magnitudes are not what the model needs.
    """
    unpacked = dict(state)
    for key, shape in binary_weights(model).items():
        name = key.removesuffix("weight")
        if key in state or f"{name}bits" not in state or f"{name}alpha" not in state:
            continue  # what is missing or too much is told with all other weights that do not fit
        bits, alpha = unpacked.pop(f"{name}bits"), unpacked.pop(f"{name}alpha")
        _check(bits, torch.uint8, -(-shape.numel() // BITS), f"{where}: {name}bits")
        _check(alpha, torch.float32, shape[0], f"{where}: {name}alpha")
        if not ((alpha >= 0) & (alpha <= 1)).all():
            raise InputError(f"{where}: {name}alpha: must be finite, from 0 to 1; the file is of no use")
        unpacked[key] = alpha.view(-1, 1, 1, 1) * unpack_signs(bits, shape)
    return unpacked


def halve_state(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with the weights in half precision.

    What is one-dimensional (norms, biases) and buffers (the norms' statistics, anchors) stay as they are: few values,
    of any magnitude, each of which moves a whole channel. So does a weight that half precision would make infinite.

    Args:
        model: says what is a weight.
        state: its state dict, packed or not; is not changed.
    """
    weights = {name for name, parameter in model.named_parameters() if parameter.dim() > 1}
    halves = {name: tensor.half() for name, tensor in state.items() if name in weights}
    return {**state, **{name: tensor for name, tensor in halves.items() if torch.isfinite(tensor).all()}}


def _shifts(device: torch.device) -> Tensor:
    """How far each bit of a byte is from the lowest, the highest first."""
    return torch.arange(BITS - 1, -1, -1, dtype=torch.uint8, device=device)


def _check(values: object, dtype: torch.dtype, length: int, where: str) -> None:
    if not isinstance(values, Tensor) or values.dtype != dtype or values.shape != (length,):
        found = f"{values.dtype} {tuple(values.shape)}" if isinstance(values, Tensor) else repr(values)
        raise InputError(f"{where}: must be {dtype} ({length},), found {found}")
