"""What training keeps of a forward pass for its backward pass, measured where autograd keeps it.

Sums over layer outputs would be wrong both ways: an activation in place may share the norm's output or need a copy of
it, and a pool keeps indices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef

from detect.models.graph import Graph


def kept_bytes(graph: Graph, image_hw: tuple[int, int]) -> dict[str, int]:
    """What each further image of a batch makes training keep between forward and backward pass.

    Weights, kernels rearranged for a space-to-depth, and a norm's statistics are kept once for the whole batch; the
    difference of two batches has none of them. The image itself and what the loss keeps are not counted.

    Args:
        graph: on the meta device; is left in training mode.
        image_hw: input height and width.

    Returns:
        Bytes for each row: those of the maps (and indices) that were made in it, whichever layer needs them.
    """
    two, three = (_kept_by_batch(graph, torch.empty(size, 3, *image_hw, device="meta")) for size in (2, 3))
    return {row.name: three[row.name] - two[row.name] for row in graph.definition.rows}


def _kept_by_batch(graph: Graph, images: Tensor) -> dict[str, int]:
    """Bytes of distinct memory that autograd keeps, by the row in which they were made."""
    rows = [row.name for row in graph.definition.rows]
    ledger = _Ledger(images, rows[0])
    with _hooked(graph, ledger), saved_tensors_hooks(ledger.keep, _read_back):
        graph.train()(images)
    bytes_of = dict.fromkeys(rows, 0)
    for memory, count in ledger.kept.items():
        row = ledger.makers[memory]
        if row is not None:
            bytes_of[row] += count
    return bytes_of


class _Ledger:
    """Which memory was made in which row, and what of it is kept.

    A weak reference names memory for as long as it lives itself: the name is not given to other memory.

    Args:
        images: made before the first row.
        row: the first one; later ones are set as they start.
    """

    def __init__(self, images: Tensor, row: str) -> None:
        self.row = row
        self.makers: dict[StorageWeakRef, str | None] = {_memory(images): None}
        self.kept: dict[StorageWeakRef, int] = {}

    def made(self, output: Any) -> None:
        """The maps that a module returns were made in its row, if not before."""
        for tensor in output if isinstance(output, (tuple, list)) else [output]:
            if isinstance(tensor, Tensor):
                self.makers.setdefault(_memory(tensor), self.row)

    def keep(self, tensor: Tensor) -> Tensor:
        """Autograd keeps ``tensor``."""
        memory = _memory(tensor)
        self.makers.setdefault(memory, self.row)
        self.kept[memory] = tensor.untyped_storage().nbytes()
        return tensor


@contextmanager
def _hooked(graph: Graph, ledger: _Ledger) -> Iterator[None]:
    """Tell the ledger which row runs. Modules within are asked too: a row that gives pieces is not called itself."""

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
