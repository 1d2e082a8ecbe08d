"""Weights of strided modules, rearranged for their space-to-depth counterparts.

A strided k x k convolution equals a space-to-depth with a convolution of stride 1 behind it (SPD-Conv, section 3). So a
module that reads a space-to-depth can start as the function of its strided counterpart. Modules whose structure differs
between the two forms have a ``from_strided``; for all others ``rearrange`` goes by the names of their parts.

Letters: B batch, C input channels, O output channels, k and m kernel sizes, s block size of a space-to-depth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

State = dict[str, Tensor]
"""Weights and buffers by name."""


@dataclass(frozen=True)
class Channels:
    """Places of a strided model's channels in the map of its space-to-depth counterpart.

    Args:
        places: (C,) the counterpart's channel that equals each of the C channels.
        total: channels of the counterpart's map.
    """

    places: Tensor
    total: int

    @classmethod
    def first(cls, count: int, total: int) -> Channels:
        """Return the places of ``count`` channels that are the first ones of ``total``."""
        return cls(torch.arange(count), total)

    def spread(self, weight: Tensor) -> Tensor:
        """Return (O, C, k, k) as (O, total, k, k), with zeros for the channels that the strided map lacks."""
        wide = weight.new_zeros(weight.shape[0], self.total, *weight.shape[2:])
        wide[:, self.places] = weight
        return wide


@runtime_checkable
class HasStridedForm(Protocol):
    """Module whose structure depends on ``downsample``."""

    def from_strided(self, strided: nn.Module, inputs: Sequence[Channels]) -> State:
        """Return the weights with which this computes what ``strided`` does, or nearly; see ``rearrange``."""


def rearrange(spd: nn.Module, strided: nn.Module, inputs: Sequence[Channels]) -> State:
    """Return the weights with which a module computes what its counterpart does; those without one are left out.
    ``inputs`` are the places of the channels of the row's input maps.
    """
    if isinstance(spd, HasStridedForm):
        return spd.from_strided(strided, inputs)
    return rearrange_parts(spd, strided, inputs)


def rearrange_parts(spd: nn.Module, strided: nn.Module, inputs: Sequence[Channels]) -> State:
    """Return the weights of a module by its own tensors and parts that have counterparts of the same names."""
    given = dict(strided.named_parameters(recurse=False)) | dict(strided.named_buffers(recurse=False))
    own = dict(spd.named_parameters(recurse=False)) | dict(spd.named_buffers(recurse=False))
    state = {name: given[name] for name in own if name in given and given[name].shape == own[name].shape}
    if isinstance(spd, nn.Conv2d) and isinstance(strided, nn.Conv2d) and "weight" not in state:
        weight = _rearrange_kernel(spd, strided, inputs)
        if weight is not None:
            state["weight"] = weight
    parts = dict(strided.named_children())
    for name, part in spd.named_children():
        if name in parts:
            state |= prefixed(name, rearrange(part, parts[name], inputs))
    return state


def prefixed(name: str, state: State) -> State:
    """Return a part's state under the names that it has in the whole."""
    return {f"{name}.{key}": tensor for key, tensor in state.items()}


def _rearrange_kernel(spd: nn.Conv2d, strided: nn.Conv2d, inputs: Sequence[Channels]) -> Tensor | None:
    """Return the kernel (O, C', m, m) of a convolution that reads more channels than its counterpart, if it fits."""
    if spd.groups > 1 or strided.groups > 1 or spd.out_channels != strided.out_channels:
        return None
    s = strided.stride[0] // spd.stride[0]
    own = Channels.first(strided.in_channels, strided.in_channels)  # behind the first convolutions of a block
    for channels in [*inputs, own]:
        if len(channels.places) != strided.in_channels:
            continue
        weight = channels.spread(strided.weight)
        if weight.shape == spd.weight.shape:
            return weight
        if s > 1 and channels.total * s**2 == spd.in_channels:
            return fold_kernel(weight, spd.kernel_size[0], s)
    return None


def fold_kernel(weight: Tensor, kernel_size: int, block_size: int) -> Tensor:
    """Return the kernel (O, s*s*C, m, m) that is behind a space-to-depth what one (O, C, k, k) of stride s is without,
    padded by (k - 1) // 2; m is odd.

    Channel (j*s + i)*C + c reads row offset i and column offset j. Taps beyond the window of m x m blocks join the
    nearest ones inside, which is exact only for maps that are constant there: k = 7 needs m = 5, k of 6 or less 3.
    """
    num_out, channels, k, _ = weight.shape
    m, s = kernel_size, block_size
    # Tap t lies t - (k - 1) // 2 pixels from the first pixel of the middle block, which has s * (m // 2) before it.
    taps = (torch.arange(k) - (k - 1) // 2 + s * (m // 2)).clamp(0, m * s - 1)
    move = F.one_hot(taps, m * s).to(weight)  # (k, m*s)
    wide = torch.einsum("ocyx,yr,xq->ocrq", weight, move, move)  # (O, C, m*s, m*s)
    # rows are (block, i), columns (block, j)
    split = wide.view(num_out, channels, m, s, m, s)
    return split.permute(0, 5, 3, 1, 2, 4).reshape(num_out, s * s * channels, m, m)


def rearrange_pooled(spd: nn.Module, strided: nn.Sequential) -> State:
    """Return the weights of a 1x1 ``conv`` behind a space-to-depth, and its norm, from a pool and these."""
    state = rearrange_parts(spd, strided[1], ())
    weight = strided[1].get_parameter("conv.weight")  # (O, C, 1, 1)
    s = math.isqrt(spd.get_parameter("conv.weight").shape[1] // weight.shape[1])
    state["conv.weight"] = fold_kernel(weight.expand(-1, -1, s, s) / s**2, 1, s)
    return state


def identity_norm(norm: nn.BatchNorm2d) -> State:
    """Return the state with which a batch norm, in evaluation mode, returns its input."""
    state = {name: tensor.clone() for name, tensor in norm.state_dict().items()}
    state["running_mean"].zero_()
    state["running_var"].fill_(1)
    state["weight"].fill_((1 + norm.eps) ** 0.5)
    state["bias"].zero_()
    return state
