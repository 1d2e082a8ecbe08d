"""The layers that a module runs, recorded where PyTorch calls its operators.

Modules cannot be asked: a convolution behind a space-to-depth runs as another one
(``detect.models.blocks.conv.convolve``), and a pool may be no module at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

_CONV = re.compile(r"(\.conv)+$")
Kind = Literal["convolution", "linear", "max-pool", "average pool"]


@dataclass(frozen=True)
class LayerProfile:
    """One convolution, linear layer or pool, for one image.

    Args:
        path: the module that runs it, from the row's name on; the ``conv`` of a block is named as the block.
        kind: what it is.
        kernel_hw: height and width of its kernel; (1, 1) for a linear layer, the whole map for a global pool.
        groups: of a convolution; a pool has as many as channels.
        in_channels: channels that it reads.
        out_channels: channels that it writes.
        in_hw: height and width of the map that it reads; (rows, 1) for a linear layer, a row for each vector.
        out_hw: height and width of the map that it writes.
        weights: learnt values without biases.
        macs: multiply-adds; a pool has none.
    """

    path: str
    kind: Kind
    kernel_hw: tuple[int, int]
    groups: int
    in_channels: int
    out_channels: int
    in_hw: tuple[int, int]
    out_hw: tuple[int, int]
    weights: int
    macs: int

    @property
    def input_elements(self) -> int:
        """Values that it reads, weights apart."""
        return self.in_channels * self.in_hw[0] * self.in_hw[1]

    @property
    def output_elements(self) -> int:
        """Values that it writes."""
        return self.out_channels * self.out_hw[0] * self.out_hw[1]

    @property
    def darknet_flops(self) -> int:
        """Operations as Darknet counts them: two for each multiply-add, one for each value that a max-pool looks at.

        What it looks at is what runs here, which differs from Darknet in two blocks: ``SPP`` has three 5x5 windows in a
        row (75 values) for Darknet's 5x5, 9x9 and 13x13 side by side (275), and ``StrideOnePool`` has one row and
        column of windows more.
        """
        if self.kind == "max-pool":
            return self.kernel_hw[0] * self.kernel_hw[1] * self.output_elements
        return 2 * self.macs


@contextmanager
def record_layers(module: nn.Module, name: str) -> Iterator[list[LayerProfile]]:
    """Record the layers that ``module`` runs within the block, in the order of execution.

    Args:
        module: is called with one image at a time.
        name: what the paths start with.

    Yields:
        The list that fills.
    """
    recorder = _Recorder()
    paths = {m: f"{name}.{path}" if path else name for path, m in module.named_modules()}

    def enter(entered: nn.Module, inputs: Any) -> None:
        recorder.stack.append(paths[entered])

    def leave(left: nn.Module, inputs: Any, output: Any) -> None:
        recorder.stack.pop()

    hooks = [m.register_forward_pre_hook(enter) for m in paths]
    hooks += [m.register_forward_hook(leave) for m in paths]
    try:
        with recorder:
            yield recorder.layers
    finally:
        for hook in hooks:
            hook.remove()


class _Recorder(TorchDispatchMode):
    """Sees every operator and keeps those that are layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers: list[LayerProfile] = []
        self.stack: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        read = _READERS.get(func.overloadpacket)
        # What runs outside of the module, such as the pool of a point behind it (SDPoint), is none of its layers.
        layer = read(_CONV.sub("", self.stack[-1]), args, output) if read and self.stack else None
        if layer is not None:
            self.layers.append(layer)
        return output


def _convolution(path: str, args: Any, output: Tensor) -> LayerProfile:
    x, weight, groups = args[0], args[1], args[8]
    assert not args[6], "no block has a transposed convolution"
    return LayerProfile(
        path=path,
        kind="convolution",
        kernel_hw=_size(weight),
        groups=groups,
        in_channels=x.shape[1],
        out_channels=output.shape[1],
        in_hw=_size(x),
        out_hw=_size(output),
        weights=weight.numel(),
        macs=weight.numel() * output.shape[2] * output.shape[3],
    )


def _linear(path: str, x: Tensor, weight: Tensor, output: Tensor) -> LayerProfile:
    """``x`` (N, C) times ``weight`` (C, O): one vector, or that of each of N cells."""
    rows_hw, count = (x.shape[0], 1), weight.numel()
    return LayerProfile(
        path,
        "linear",
        (1, 1),
        groups=1,
        in_channels=x.shape[1],
        out_channels=output.shape[1],
        in_hw=rows_hw,
        out_hw=rows_hw,
        weights=count,
        macs=count * x.shape[0],
    )


def _pool(path: str, kind: Kind, kernel_hw: tuple[int, int], x: Tensor, out_hw: tuple[int, int]) -> LayerProfile:
    channels = x.shape[1]
    return LayerProfile(path, kind, kernel_hw, channels, channels, channels, _size(x), out_hw, weights=0, macs=0)


def _global_pool(kind: Kind) -> Callable[[str, Any, Any], LayerProfile | None]:
    """Reads a global pool, which is what a mean or a maximum over height and width is."""

    def read(path: str, args: Any, output: Tensor) -> LayerProfile | None:
        x, dims = args[0], args[1]
        if x.ndim != 4 or sorted(dim % 4 for dim in dims) != [2, 3]:
            return None
        return _pool(path, kind, _size(x), x, (1, 1))

    return read


def _size(x: Tensor) -> tuple[int, int]:
    return x.shape[2], x.shape[3]


def _pair(sizes: list[int]) -> tuple[int, int]:
    return sizes[0], sizes[-1]


_READERS: dict[Any, Callable[[str, Any, Any], LayerProfile | None]] = {
    torch.ops.aten.convolution: _convolution,
    torch.ops.aten.addmm: lambda path, args, output: _linear(path, args[1], args[2], output),
    torch.ops.aten.mm: lambda path, args, output: _linear(path, args[0], args[1], output),
    torch.ops.aten.max_pool2d_with_indices: lambda path, args, output: _pool(
        path, "max-pool", _pair(args[1]), args[0], _size(output[0])
    ),
    torch.ops.aten.avg_pool2d: lambda path, args, output: _pool(
        path, "average pool", _pair(args[1]), args[0], _size(output)
    ),
    torch.ops.aten.mean: _global_pool("average pool"),
    torch.ops.aten.amax: _global_pool("max-pool"),
}
