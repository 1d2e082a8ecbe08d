"""The processes of one run, started by ``torchrun``, on ``torch.distributed``.

Every function works in a single process as well, where it does nothing. Gradients and norms go through NCCL between
GPUs; everything else, which is little, through gloo between CPUs. PyTorch, which takes seconds, is imported by runs of
several processes only.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from detect.runtime.interruption import LostContactError
from detect.runtime.logs import set_log_prefix

if TYPE_CHECKING:
    import torch
    from torch.distributed import ProcessGroup
    from torch.distributed.distributed_c10d import Store

TIMEOUT = timedelta(minutes=60)
"""Longest wait for another process: it may read a large data set for the first time."""

_LAUNCHED = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
_gloo: ProcessGroup | None = None

T = TypeVar("T")


def num_processes() -> int:
    return _gloo.size() if _gloo else 1


def rank() -> int:
    return _gloo.rank() if _gloo else 0


def is_main_process() -> bool:
    return rank() == 0


def local_rank() -> int | None:
    """Return the rank among the processes of this machine; None in a single process."""
    return int(os.environ.get("LOCAL_RANK", "0")) if _gloo else None


def num_restarts() -> int:
    """Return the number of restarts by ``torchrun --max-restarts``."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


@contextmanager
def init_distributed() -> Iterator[None]:
    """Join the process group of ``torchrun`` in the block; do nothing in a single process.

    The main process logs everything, the others only warnings, with their rank.

    Raises:
        LostContactError: another process has ended.
    """
    global _gloo  # noqa: PLW0603  # torch.distributed has one default group in a process
    if not os.environ.keys() >= _LAUNCHED:
        yield
        return
    import torch
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    store, own, count = next(rendezvous("env://", timeout=TIMEOUT))
    dist.init_process_group(backend, store=_store_of_start(store), rank=own, world_size=count, timeout=TIMEOUT)
    group = dist.new_group(backend="gloo", timeout=TIMEOUT)
    assert isinstance(group, dist.ProcessGroup), "every process belongs to it"
    _gloo = group
    if not is_main_process():
        set_log_prefix(f"process {rank()}", logging.WARNING)
    try:
        yield
    except RuntimeError as error:  # also in the middle of a norm or of the gradients
        if isinstance(error, LostContactError) or not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        raise _lost_contact(error) from None
    finally:
        _gloo = None
        dist.destroy_process_group()


def _store_of_start(store: Store) -> Store:
    """Return this start's part of the rendezvous store: torchrun may keep one, with addresses of ended processes.
    Only on a single machine do all processes agree on the number of restarts; for several, see
    docs/how-to/several-gpus.md.
    """
    if os.environ.get("GROUP_WORLD_SIZE", "1") != "1":
        return store
    from torch.distributed.distributed_c10d import PrefixStore

    return PrefixStore(f"start-{num_restarts()}", store)


def rank_slice(length: int) -> slice:
    """Return this process's contiguous part of ``length`` items; lengths differ by one at most."""
    count, own = num_processes(), rank()
    return slice(own * length // count, (own + 1) * length // count)


def shard(things: Sequence[T]) -> Sequence[T]:
    """Return every ``num_processes()``-th item, from ``rank()``: similar neighbours go to different processes."""
    return things[rank() :: num_processes()]


def all_reduce_sum(values: Sequence[float]) -> list[float]:
    """Return the element-wise sum over all processes, bit-identical in each.

    Raises:
        LostContactError: a process has ended.
    """
    if _gloo is None:
        return list(values)
    import torch
    import torch.distributed as dist

    total = torch.tensor(values, dtype=torch.float64)
    with _contact():
        dist.all_reduce(total, group=_gloo)
    return [float(value) for value in total]


def all_reduce_mean(tensors: Sequence[torch.Tensor]) -> None:
    """Replace tensors of one device and type by their means over all processes; each must have the same shapes.

    Raises:
        LostContactError: a process has ended.
    """
    if _gloo is None or not tensors:
        return
    import torch
    import torch.distributed as dist

    total = torch.cat([tensor.flatten() for tensor in tensors])
    with _contact():
        dist.all_reduce(total)
    for tensor, mean in zip(tensors, (total / num_processes()).split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(mean.view_as(tensor))


def all_gather(array: np.ndarray) -> list[np.ndarray]:
    """Return the arrays of all processes in rank order.

    Args:
        array: with the same dtype and the same shape, but for its length, in every process.

    Raises:
        LostContactError: a process has ended.
    """
    if _gloo is None:
        return [array]
    import torch

    lengths = [int(length) for length in _gather_alike(torch.tensor([len(array)]))]
    padded = np.zeros((max(lengths), *array.shape[1:]), array.dtype)
    padded[: len(array)] = array
    flat = torch.from_numpy(padded.reshape(-1).view(np.uint8))
    found = [part.numpy().view(array.dtype).reshape(padded.shape) for part in _gather_alike(flat)]
    return [part[:length] for part, length in zip(found, lengths, strict=True)]


def all_gather_texts(text: str) -> list[str]:
    """Return the texts of all processes in rank order."""
    parts = all_gather(np.frombuffer(text.encode("utf-8", "surrogateescape"), np.uint8))
    return [part.tobytes().decode("utf-8", "surrogateescape") for part in parts]


def broadcast_text(text: str) -> str:
    """Return the main process's text."""
    return all_gather_texts(text)[0]


@contextmanager
def main_process_first() -> Iterator[None]:
    """Run the block in the main process before the others enter it, for files that it makes for all.

    Raises:
        LostContactError: the main process has ended, or exceeded ``TIMEOUT``.
    """
    if _gloo is not None and not is_main_process():
        barrier("what the first process makes")
    yield
    if _gloo is not None and is_main_process():
        barrier("what the first process makes")


def barrier(occasion: str) -> None:
    """Wait until all processes have arrived; ``occasion`` is what is waited for, in the message.
    ``LostContactError`` lists the processes that have ended or exceeded ``TIMEOUT``.
    """
    if _gloo is not None:
        import torch.distributed as dist

        with _contact(f"waiting for {occasion}"):
            dist.monitored_barrier(_gloo, timeout=TIMEOUT, wait_all_ranks=True)


def _gather_alike(tensor: torch.Tensor) -> list[torch.Tensor]:
    import torch
    import torch.distributed as dist

    found = [torch.empty_like(tensor) for _ in range(num_processes())]
    with _contact():
        dist.all_gather(found, tensor, group=_gloo)
    return found


@contextmanager
def _contact(occasion: str = "") -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise _lost_contact(error, occasion) from None


def _lost_contact(error: RuntimeError, occasion: str = "") -> LostContactError:
    doing = f", {occasion}" if occasion else ""
    return LostContactError(f"process {rank()}{doing}: lost contact to another process: {str(error).splitlines()[0]}")
