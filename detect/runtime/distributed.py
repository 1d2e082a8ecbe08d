"""The processes of one run: those that ``torchrun`` started together, on PyTorch's distributed engine, or one alone.

Every function is right in a lone process, too, where it does nothing, so callers need not ask how many there are.
Gradients and norms travel by NCCL between GPUs; all else, of which there is little, by gloo between CPUs.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from detect.runtime.interruption import LostContactError
from detect.runtime.logs import speak_as

TIMEOUT = timedelta(minutes=60)
"""So long a process waits for the others: one of them may read a large data set for the first time."""

_LAUNCHED = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
_gloo: dist.ProcessGroup | None = None

T = TypeVar("T")


def num_processes() -> int:
    """How many processes the run has."""
    return dist.get_world_size(_gloo) if _gloo else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank(_gloo) if _gloo else 0


def is_main_process() -> bool:
    """Whether this is the process that writes and reports what all have found."""
    return rank() == 0


def local_rank() -> int | None:
    """The number of this process on its machine, from 0; None in a lone process."""
    return int(os.environ.get("LOCAL_RANK", "0")) if _gloo else None


def num_restarts() -> int:
    """How often ``torchrun --max-restarts`` has started this run again."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


@contextmanager
def init_distributed() -> Iterator[None]:
    """Join the processes that ``torchrun`` started beside this one; alone, nothing happens.

    Only the first process tells what is going on; the others say what is wrong, and who they are.

    Raises:
        LostContactError: another process has ended.
    """
    global _gloo  # noqa: PLW0603  # as torch.distributed itself, which is one to a process
    if not os.environ.keys() >= _LAUNCHED:
        yield
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    store, own, count = next(rendezvous("env://", timeout=TIMEOUT))
    dist.init_process_group(backend, store=_of_this_start(store), rank=own, world_size=count, timeout=TIMEOUT)
    group = dist.new_group(backend="gloo", timeout=TIMEOUT)
    assert isinstance(group, dist.ProcessGroup), "every process belongs to it"
    _gloo = group
    if not is_main_process():
        speak_as(f"process {rank()}", logging.WARNING)
    try:
        yield
    except RuntimeError as error:  # also in the middle of a norm or of the gradients
        if isinstance(error, LostContactError) or not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        raise _lost_contact(error) from None
    finally:
        _gloo = None
        dist.destroy_process_group()


def _of_this_start(store: Store) -> Store:
    """The part of the store, where processes find one another, that is of this start of them.

    torchrun may keep one store for all its starts, in which the addresses of those that have ended still stand. Only on
    a single machine all processes agree on how many starts there were; on several, see README.md.
    """
    if os.environ.get("GROUP_WORLD_SIZE", "1") != "1":
        return store
    return PrefixStore(f"start-{num_restarts()}", store)


def rank_slice(length: int) -> slice:
    """The part of ``length`` things in a row that is this process's; the parts differ by one at most."""
    count, own = num_processes(), rank()
    return slice(own * length // count, (own + 1) * length // count)


def shard(things: Sequence[T]) -> Sequence[T]:
    """Those of all things that are this process's, as cards are dealt: neighbours, which are alike, go apart."""
    return things[rank() :: num_processes()]


def all_reduce_sum(values: Sequence[float]) -> list[float]:
    """Numbers, each added up over all processes; the same bits everywhere.

    Raises:
        LostContactError: a process has ended.
    """
    if _gloo is None:
        return list(values)
    total = torch.tensor(values, dtype=torch.float64)
    with _contact():
        dist.all_reduce(total, group=_gloo)
    return [float(value) for value in total]


def all_gather(array: np.ndarray) -> list[np.ndarray]:
    """The arrays of all processes, in their order, everywhere.

    Args:
        array: of any length, but in all else alike in every process.

    Raises:
        LostContactError: a process has ended.
    """
    if _gloo is None:
        return [array]
    lengths = [int(length) for length in _gather_alike(torch.tensor([len(array)]))]
    padded = np.zeros((max(lengths), *array.shape[1:]), array.dtype)
    padded[: len(array)] = array
    flat = torch.from_numpy(padded.reshape(-1).view(np.uint8))
    found = [part.numpy().view(array.dtype).reshape(padded.shape) for part in _gather_alike(flat)]
    return [part[:length] for part, length in zip(found, lengths, strict=True)]


def all_gather_texts(text: str) -> list[str]:
    """The texts of all processes, in their order, everywhere; as ``all_gather``."""
    parts = all_gather(np.frombuffer(text.encode("utf-8", "surrogateescape"), np.uint8))
    return [part.tobytes().decode("utf-8", "surrogateescape") for part in parts]


def broadcast_text(text: str) -> str:
    """What ``text`` is in the first process."""
    return all_gather_texts(text)[0]


@contextmanager
def main_process_first() -> Iterator[None]:
    """Let the first process be through with the block before the others enter it: what it made, they find.

    Raises:
        LostContactError: the first process has ended, or did not come through in time.
    """
    if _gloo is not None and not is_main_process():
        barrier("what the first process makes")
    yield
    if _gloo is not None and is_main_process():
        barrier("what the first process makes")


def barrier(occasion: str) -> None:
    """Wait until all processes have come here.

    Args:
        occasion: what they come for, in the message.

    Raises:
        LostContactError: some have not come within ``TIMEOUT``, or have ended; it says which.
    """
    if _gloo is not None:
        with _contact(f"waiting for {occasion}"):
            dist.monitored_barrier(_gloo, timeout=TIMEOUT, wait_all_ranks=True)


def _gather_alike(tensor: torch.Tensor) -> list[torch.Tensor]:
    found = [torch.empty_like(tensor) for _ in range(num_processes())]
    with _contact():
        dist.all_gather(found, tensor, group=_gloo)
    return found


@contextmanager
def _contact(occasion: str = "") -> Iterator[None]:
    """What the engine raises where another process is gone becomes one line."""
    try:
        yield
    except RuntimeError as error:
        raise _lost_contact(error, occasion) from None


def _lost_contact(error: RuntimeError, occasion: str = "") -> LostContactError:
    doing = f", {occasion}" if occasion else ""
    return LostContactError(f"process {rank()}{doing}: lost contact to another process: {str(error).splitlines()[0]}")
