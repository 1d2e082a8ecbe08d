"""Cross-stage-partial stages: a share of the channels bypasses the blocks, and both parts are joined behind them.

Letters: B batch, C input channels, O output channels, H W cells, h hidden channels.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from detect.errors import InputError
from detect.models.blocks.conv import Conv
from detect.models.blocks.downsample import HalvingPool
from detect.models.blocks.space_to_depth import Pieces
from detect.models.registry import Block, register
from detect.structures import FeatureShape

Fusion = Literal["none", "first", "last", "csp"]
"""Order in which a stage joins its parts: ``none``, a plain stage; ``first``, concatenation → transition; ``last``,
transition → concatenation; ``csp``, transition → concatenation → transition, the paper's proposal."""


def divide_channels(channels: int, gamma: float) -> tuple[int, int]:
    """Return the channels of the bypass, a share ``gamma``, and of the computed part.

    Raises:
        InputError: one of the parts would be empty.
    """
    bypass = round(gamma * channels)
    if not 0 < gamma < 1 or not 0 < bypass < channels:
        raise InputError(
            f"gamma: must be between 0 and 1, and leave some of {channels} channels on each side, found {gamma!r}"
        )
    return bypass, channels - bypass


class ConvDivide(nn.Module):
    """Division by two 1x1 convolutions that each see all channels, as in CSPResNe(X)t and CSPDarknet.

    Args:
        bypass: convolution of the part that passes by.
        computed: convolution of the part that is computed.
        halve: halve the bypass by a 2x2 max-pool, where the computed part halves itself.
    """

    def __init__(self, bypass: nn.Module, computed: nn.Module, halve: bool) -> None:
        super().__init__()
        self.bypass = bypass
        self.computed = computed
        self.pool = HalvingPool() if halve else nn.Identity()

    def forward(self, x: Tensor | Pieces) -> tuple[Tensor, Tensor]:
        """(B, C, H, W), or pieces where the convolutions take them, to the bypass and the computed part."""
        return self.pool(self.bypass(x)), self.computed(x)


class ChannelDivide(nn.Module):
    """Division by slicing the channels: the first ones pass by, as in CSPDenseNet and CSPPeleeNet."""

    def __init__(self, bypass_channels: int) -> None:
        super().__init__()
        self.bypass_channels = bypass_channels

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) to the bypass and the computed part."""
        return x[:, : self.bypass_channels], x[:, self.bypass_channels :]


class CrossStage(nn.Module):
    """A stage around any ``body``: divide → body → first transition → concatenation → second transition.

    Args:
        divide: from a map to the bypass and the part that is computed.
        body: the blocks.
        transition1: of the computed part, before the concatenation; the identity in ``first``.
        transition2: of the concatenation; the identity in ``last``.
        bypass_first: put the bypass in front in the concatenation.

    Source: CSPNet (Wang et al., 2020), section 3.1, figures 2, 3 and 5.
    """

    def __init__(
        self,
        divide: nn.Module,
        body: nn.Module,
        transition1: nn.Module,
        transition2: nn.Module,
        bypass_first: bool,
    ) -> None:
        super().__init__()
        self.divide = divide
        self.body = body
        self.transition1 = transition1
        self.transition2 = transition2
        self.bypass_first = bypass_first

    def forward(self, x: Tensor | Pieces) -> Tensor:
        """(B, C, H, W), or pieces where ``divide`` takes them, to (B, O, H, W)."""
        bypass, computed = self.divide(x)  # the gradient of the bypass does not reach the body
        computed = self.transition1(self.body(computed))
        parts = [bypass, computed] if self.bypass_first else [computed, bypass]
        return self.transition2(torch.cat(parts, dim=1))


class Bottleneck(nn.Module):
    """1x1 convolution → 3x3 convolution, added to the input when ``shortcut``.

    Args:
        channels: h, in and out.
        shortcut: add the input.
        activation: name of the activation.
    """

    def __init__(self, channels: int, shortcut: bool, activation: str) -> None:
        super().__init__()
        self.conv1 = Conv(channels, channels, 1, activation=activation)
        self.conv2 = Conv(channels, channels, 3, activation=activation)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, H, W) to the same shape."""
        y = self.conv2(self.conv1(x))
        return x + y if self.shortcut else y


@register
class C3(Block):
    """The CSP stage of YOLOv5: two 1x1 convolutions divide the input, bottlenecks run on one half, a third joins them.

    Args:
        in_channels: C.
        out_channels: O, even; h = O / 2.
        repeats: bottlenecks.
        shortcut: let the bottlenecks add their input.
        activation: name of the activation.

    Source: CSPNet (Wang et al., 2020), section 3.1; YOLOv5 v6.0 for the form.
    """

    def __init__(
        self, in_channels: int, out_channels: int, repeats: int = 1, shortcut: bool = True, activation: str = "silu"
    ) -> None:
        super().__init__()
        hidden = out_channels // 2
        # The two 1x1 convolutions that divide the input are one of twice the channels: the input is read once.
        self.divide = Conv(in_channels, 2 * hidden, 1, activation=activation)
        self.blocks = nn.Sequential(*(Bottleneck(hidden, shortcut, activation) for _ in range(repeats)))
        self.fuse = Conv(2 * hidden, out_channels, 1, activation=activation)

    def forward(self, x: Tensor | Pieces) -> Tensor:
        """(B, C, H, W) or pieces to (B, O, H, W)."""
        computed, bypass = self.divide(x).chunk(2, dim=1)  # (B, h, H, W) each
        return self.fuse(torch.cat([self.blocks(computed), bypass], dim=1))

    @property
    def point_behind(self) -> bool:
        return True

    @property
    def accepts_pieces(self) -> bool:
        return True

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        return FeatureShape(self.fuse.conv.out_channels, inputs[0].reduction)
