"""Attention over channels.

Letters: B batch, C channels, H W cells, h squeezed channels.
"""

from __future__ import annotations

from torch import Tensor, nn

from detect.models.blocks.conv import make_activation


class SqueezeExcite(nn.Module):
    """Each channel is weighted by a number in (0, 1) that depends on the means of all channels.

    Args:
        channels: C.
        squeezed_channels: h, between the two fully connected layers, which have biases.
        activation: name of the activation between them.

    Source: Squeeze-and-Excitation Networks (Hu et al., 2018), section 3.
    """

    def __init__(self, channels: int, squeezed_channels: int, activation: str) -> None:
        super().__init__()
        # 1x1 convolutions of a map of one cell are fully connected layers without reshaping.
        self.weigh = nn.Sequential(
            nn.Conv2d(channels, squeezed_channels, 1),
            make_activation(activation),
            nn.Conv2d(squeezed_channels, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        return x * self.weigh(x.mean(dim=(2, 3), keepdim=True))
