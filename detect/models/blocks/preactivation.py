"""Convolutions of networks whose norm and activation come before the convolution.

Letters: B batch, C channels of a map, O output channels, H W cells, k kernel size, s block size of a space-to-depth.
"""

from __future__ import annotations

from torch import Tensor, nn

from detect.errors import InputError
from detect.models.blocks.conv import Piece, convolve, make_activation
from detect.models.registry import Block, register
from detect.structures import FeatureShape


class PreConv(nn.Module):
    """Batch norm → activation → convolution without bias.

    Args:
        in_channels: C.
        out_channels: O.
        kernel_size: k, odd.
        activation: name of the activation.
        groups: as in ``torch.nn.Conv2d``; 1 with a space-to-depth.
        block_size: s, of a space-to-depth between activation and convolution; 1 for none.
        stride: of the convolution; 1 with a space-to-depth.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        activation: str,
        groups: int = 1,
        block_size: int = 1,
        stride: int = 1,
    ) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.activation = make_activation(activation)
        folded = in_channels * block_size**2
        self.conv = nn.Conv2d(folded, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False)
        self.block_size = block_size

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, O, H/s, W/s), or to (B, O, H / stride, W / stride)."""
        y = self.activation(self.norm(x))
        return convolve(self.conv, y if self.block_size == 1 else (Piece(y, self.block_size),))


@register
class NormActivation(Block):
    """Batch norm → activation: what the last map of a pre-activation network still lacks.

    Args:
        in_channels: C.
        activation: name of the activation.
    """

    def __init__(self, in_channels: int, activation: str = "relu") -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.activation = make_activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        return self.activation(self.norm(x))

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        """The shape of the input."""
        return inputs[0]


@register
class BareConv(Block):
    """Convolution of stride 1 without bias, norm or activation: the first layer of a pre-activation network.

    Args:
        in_channels: C.
        out_channels: O.
        kernel_size: k, odd.
        groups: as in ``torch.nn.Conv2d``.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, groups: int = 1) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise InputError(f"kernel_size: must be odd, found {kernel_size}")
        padding = kernel_size // 2
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, O, H, W)."""
        return self.conv(x)

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        """O channels at the same reduction."""
        return FeatureShape(self.conv.out_channels, inputs[0].reduction)
