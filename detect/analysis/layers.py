"""Layers that a forward pass runs and memory that it keeps, recorded at PyTorch's operators and at autograd.

Modules do not tell: a convolution behind a space-to-depth runs as another one (``blocks.space_to_depth.convolve``),
a pool may be no module at all, and an activation in place may share the norm's output or need a copy of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from detect.models.graph import Graph
from detect.models.packing import PackedLayer

_CONV = re.compile(r"(\.conv)+$")
Kind = Literal["convolution", "linear", "max-pool", "average pool"]
_Reader = Callable[[str, Any, Any], "LayerProfile | None"]


@dataclass(frozen=True)
class LayerProfile:
    """One convolution, linear layer or pool, for one image.

    Args:
        path: the module that runs it, from the row's name on; the ``conv`` of a block is named as the block.
        kind: of the layer.
        kernel_hw: height and width of its kernel; (1, 1) for a linear layer, the whole map for a global pool.
        groups: of a convolution; a pool has as many as channels.
        in_channels: channels that it reads.
        out_channels: channels that it writes.
        in_hw: height and width of the map that it reads; (rows, 1) for a linear layer, a row for each vector.
        out_hw: height and width of the map that it writes.
        weights: parameters without biases.
        macs: multiply-adds; a pool has none.
        ones: share of the ones in a mask of zeros and ones; None for weights that are no mask.
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
    ones: float | None = None

    @property
    def bdsc_macs(self) -> float:
        """Multiply-adds as the BDSC paper counts them (equation 14): of a mask half of one for each entry that is 1."""
        # Such an entry takes an addition and no multiplication, a 0 takes nothing.
        return self.macs if self.ones is None else self.macs * self.ones / 2

    @property
    def input_elements(self) -> int:
        """Values that it reads, without weights."""
        return self.in_channels * self.in_hw[0] * self.in_hw[1]

    @property
    def output_elements(self) -> int:
        return self.out_channels * self.out_hw[0] * self.out_hw[1]

    @property
    def darknet_flops(self) -> int:
        """Operations as Darknet counts them: two for each multiply-add, one for each value in a max-pool's windows."""
        # The windows are those that run here. Darknet's differ in two blocks: for three 5x5 windows in a row (75
        # values) SPP has 5x5, 9x9 and 13x13 side by side (275), StrideOnePool one row and column of windows less.
        if self.kind == "max-pool":
            return self.kernel_hw[0] * self.kernel_hw[1] * self.output_elements
        return 2 * self.macs


@contextmanager
def record_layers(module: nn.Module, name: str) -> Iterator[list[LayerProfile]]:
    """Record the layers that ``module`` runs within the block, in the order of execution.

    Args:
        module: is called with one image at a time.
        name: start of the paths.

    Yields:
        The list, filled as the module runs.
    """
    layers: list[LayerProfile] = []
    stack: list[nn.Module] = []

    def record(read: _Reader, args: Any, output: Any) -> None:
        # Operators outside of the module, such as the pool of a point behind it (SDPoint), are none of its layers.
        layer = read(_CONV.sub("", paths[stack[-1]]), args, output) if stack else None
        if layer is not None:
            inner = stack[-1]
            ones = inner.ones if isinstance(inner, PackedLayer) and inner.is_packed else None
            layers.append(replace(layer, ones=ones))

    paths = {m: f"{name}.{path}" if path else name for path, m in module.named_modules()}

    def enter(entered: nn.Module, inputs: Any) -> None:
        stack.append(entered)

    def leave(left: nn.Module, inputs: Any, output: Any) -> None:
        stack.pop()

    hooks = [m.register_forward_pre_hook(enter) for m in paths]
    hooks += [m.register_forward_hook(leave) for m in paths]
    try:
        with OperatorRecorder(_READERS, record):
            yield layers
    finally:
        for hook in hooks:
            hook.remove()


class MetaNorms(TorchDispatchMode):
    """Context in which batch norms of meta tensors return empty outputs without being decomposed.

    PyTorch decomposes them in Python, which takes longer than all else of a forward pass.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch.ops.aten.native_batch_norm.default or not args[0].is_meta:
            return func(*args, **(kwargs or {}))
        x, in_training = args[0], args[5]
        statistics = x.shape[1] if in_training else 0
        return torch.empty_like(x), x.new_empty(statistics), x.new_empty(statistics)


class OperatorRecorder(MetaNorms):
    """Context that reports each operator that has a reader.

    Args:
        readers: by operator (``torch.ops.aten.convolution``).
        record: called with the reader, the operator's arguments and its output.
    """

    def __init__(self, readers: Mapping[Any, Any], record: Callable[[Any, Any, Any], None]) -> None:
        super().__init__()
        self._readers = readers
        self._record = record

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = super().__torch_dispatch__(func, types, args, kwargs)
        read = self._readers.get(func.overloadpacket)
        if read is not None:
            self._record(read, args, output)
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
    # (N, C) times (C, O): one vector, or that of each of N cells
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


def is_global(x: Tensor, dims: list[int]) -> bool:
    """Test a mean or maximum over ``dims`` for a global pool: one over the height and width of a map (B, C, H, W)."""
    return x.ndim == 4 and sorted(dim % 4 for dim in dims) == [2, 3]


def _global_pool(kind: Kind) -> _Reader:
    def read(path: str, args: Any, output: Tensor) -> LayerProfile | None:
        x, dims = args[0], args[1]
        return None if not is_global(x, dims) else _pool(path, kind, _size(x), x, (1, 1))

    return read


def _size(x: Tensor) -> tuple[int, int]:
    return x.shape[2], x.shape[3]


def _pair(sizes: list[int]) -> tuple[int, int]:
    return sizes[0], sizes[-1]


_READERS: dict[Any, _Reader] = {
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


def kept_bytes(graph: Graph, image_hw: tuple[int, int]) -> dict[str, int]:
    """Return the bytes of maps and indices that autograd keeps for each further image of a batch, by the row that made
    them; without the image and the loss. ``graph`` is on the meta device and is left in training mode.
    """
    # Weights, kernels rearranged for a space-to-depth, and a norm's statistics are kept once for the whole batch; the
    # difference of two batches has none of them.
    two, three = (_kept_by_batch(graph, torch.empty(size, 3, *image_hw, device="meta")) for size in (2, 3))
    return {row.name: three[row.name] - two[row.name] for row in graph.definition.rows}


def _kept_by_batch(graph: Graph, images: Tensor) -> dict[str, int]:
    rows = [row.name for row in graph.definition.rows]
    ledger = _Ledger(images, rows[0])
    with _hooked(graph, ledger), saved_tensors_hooks(ledger.keep, _read_back), MetaNorms():
        graph.train()(images)
    bytes_of = dict.fromkeys(rows, 0)
    for memory, count in ledger.kept.items():
        row = ledger.makers[memory]
        if row is not None:
            bytes_of[row] += count
    return bytes_of


class _Ledger:
    """Memory by the row that made it, and the bytes of it that autograd keeps.

    A weak reference identifies memory for as long as the reference lives: no other memory gets the same one.

    Args:
        images: made before the first row.
        row: the first one; later ones are set as they start.
    """

    def __init__(self, images: Tensor, row: str) -> None:
        self.row = row
        self.makers: dict[StorageWeakRef, str | None] = {_memory(images): None}
        self.kept: dict[StorageWeakRef, int] = {}

    def made(self, output: Any) -> None:
        """Assign the maps that a module returns to its row, unless an earlier row made them."""
        for tensor in output if isinstance(output, (tuple, list)) else [output]:
            if isinstance(tensor, Tensor):
                self.makers.setdefault(_memory(tensor), self.row)

    def keep(self, tensor: Tensor) -> Tensor:
        """Count a tensor that autograd keeps; distinct memory counts once."""
        memory = _memory(tensor)
        self.makers.setdefault(memory, self.row)
        self.kept[memory] = tensor.untyped_storage().nbytes()
        return tensor


@contextmanager
def _hooked(graph: Graph, ledger: _Ledger) -> Iterator[None]:
    """Set the ledger's row by hooks on all modules within the rows: a row that gives pieces is not called itself."""

    def enter(row: str) -> Callable[..., None]:
        return lambda module, inputs: setattr(ledger, "row", row)

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        ledger.made(output)

    modules = [(row.name, m) for row in graph.definition.rows for m in graph.layer(row.name).modules()]
    hooks = [m.register_forward_pre_hook(enter(row)) for row, m in modules]
    hooks += [m.register_forward_hook(leave) for _, m in modules]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _memory(tensor: Tensor) -> StorageWeakRef:
    return StorageWeakRef(tensor.untyped_storage())


def _read_back(tensor: Tensor) -> Tensor:
    return tensor
