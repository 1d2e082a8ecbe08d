"""Time of space-to-depth as an operation, and inside the convolution that follows it.

python benchmarks/space_to_depth.py [--batch-size 8] [--rounds 15] [--threads 1]

3x3 convolution → space-to-depth by 2 → 1x1 convolution, forward and backward, as between the stages of YOLOv5-SPD.
*sliced* copies the four parts of the map and joins them; *lowered* leaves the map as it is and runs the 1x1 convolution
as a 2x2 convolution of stride 2 with the same weights. Both are timed in turn.

Letters: B batch, C input channels, O channels of the 3x3 convolution, S side of the map.
"""

from __future__ import annotations

import argparse
from functools import partial

import torch
from timing import alternate
from torch import Tensor, nn

from detect.cli.parser import positive_int
from detect.models.blocks.space_to_depth import Piece, convolve, space_to_depth
from detect.runtime.cli import run_tool
from detect.runtime.device import Precision, autocast

SHAPES = ((16, 32, 160), (32, 64, 80))
"""(C, O, S): the first two of yolov5n-spd at 320 px (down2, down3)."""

LAYOUTS = {"NCHW": torch.contiguous_format, "channels-last": torch.channels_last}
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")


class Chain(nn.Module):
    """3x3 convolution → space-to-depth by 2 → 1x1 convolution to O channels.

    Args:
        in_channels: C.
        channels: O.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.wide = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.divide = nn.Conv2d(4 * channels, channels, 1, bias=False)

    def forward(self, x: Tensor, lowered: bool) -> Tensor:
        """(B, C, S, S) to (B, O, S/2, S/2)."""
        y = self.wide(x)
        return convolve(self.divide, (Piece(y, 2),)) if lowered else self.divide(space_to_depth(y, 2))


def step(chain: Chain, x: Tensor, precision: Precision, lowered: bool) -> None:
    """Forward and backward, to the input and the weights."""
    with autocast(precision, x.device):
        y = chain(x, lowered)
    y.backward(torch.ones_like(y))
    chain.zero_grad(set_to_none=True)
    x.grad = None


def difference(chain: Chain, x: Tensor, precision: Precision) -> float:
    """Largest difference of the outputs, as a share of the largest output."""
    with torch.no_grad(), autocast(precision, x.device):
        sliced, lowered = chain(x, lowered=False).float(), chain(x, lowered=True).float()
    return float((sliced - lowered).abs().max() / sliced.abs().max())


def main() -> None:
    parser = argparse.ArgumentParser(description="space-to-depth carried out, and left to the next convolution")
    parser.add_argument("--batch-size", type=positive_int, default=8)
    parser.add_argument("--rounds", type=positive_int, default=15)
    parser.add_argument("--threads", type=positive_int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    print(f"batch {arguments.batch_size}, {arguments.threads} thread(s), median of {arguments.rounds}, CPU ms")
    print(f"{'map':<22}{'type':<6}{'layout':<15}{'sliced':>8}{'lowered':>9}{'ratio':>7}{'difference':>12}")
    for in_channels, channels, side in SHAPES:
        for layout, memory_format in LAYOUTS.items():
            for precision in PRECISIONS:
                chain = Chain(in_channels, channels).to(memory_format=memory_format)
                x = torch.randn(arguments.batch_size, in_channels, side, side).to(memory_format=memory_format)
                x.requires_grad_()
                ways = {
                    "sliced": partial(step, chain, x, precision, lowered=False),
                    "lowered": partial(step, chain, x, precision, lowered=True),
                }
                ms = {name: seconds * 1e3 for name, seconds in alternate(ways, arguments.rounds).items()}
                shape = f"{in_channels} to {channels}, {side} px"
                times = f"{ms['sliced']:>8.1f}{ms['lowered']:>9.1f}{ms['lowered'] / ms['sliced']:>7.2f}"
                print(f"{shape:<22}{precision:<6}{layout:<15}{times}{difference(chain, x, precision):>12.1e}")


if __name__ == "__main__":
    run_tool(main)
