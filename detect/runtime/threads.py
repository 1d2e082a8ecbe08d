"""Number of computing threads of this process, for PyTorch and ONNX Runtime; neither is imported here."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

import psutil


@dataclass
class _Choice:
    """Number that ``use_threads`` was given; 0 for none."""

    count: int = 0


_CHOICE = _Choice()


def use_threads(count: int) -> None:
    """Compute with a fixed number of threads from now on; 0 leaves the choice to ``detect.runtime.cpu.tuned_threads``.

    PyTorch follows at once, or when ``detect.runtime.cpu`` is imported.
    """
    _CHOICE.count = count
    torch = sys.modules.get("torch")
    if count and torch is not None:  # then results are bit-identical whatever else the machine does
        torch.set_num_threads(count)


def chosen_threads() -> int:
    """Return the number that ``use_threads`` was given; 0 for none."""
    return _CHOICE.count


def are_fixed() -> bool:
    """Return True where the number was chosen, here or by ``OMP_NUM_THREADS``."""
    return _CHOICE.count > 0 or "OMP_NUM_THREADS" in os.environ


def num_threads() -> int:
    """Return the number for a library other than PyTorch: PyTorch's where it is in use, so that one setting counts for
    both; else the chosen one, ``OMP_NUM_THREADS``, or one for each physical core.
    """
    torch = sys.modules.get("torch")
    if torch is not None:
        return int(torch.get_num_threads())
    if _CHOICE.count:
        return _CHOICE.count
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if wanted.isdecimal() and int(wanted):
        return int(wanted)
    cores = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        cores = min(cores, len(os.sched_getaffinity(0)))
    return cores
