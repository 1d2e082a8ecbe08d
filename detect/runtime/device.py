"""Choosing where and how precisely to compute."""

from __future__ import annotations

import torch

from detect.errors import InputError
from detect.runtime.distributed import local_rank


def select_device(name: str) -> torch.device:
    """A device by name.

    Args:
        name: ``auto`` (``cuda`` if there is a GPU, else ``cpu``), ``cpu``, ``cuda`` (the first GPU; of several
            processes each takes its own), ``cuda:1``, ``1`` or ``mps``.

    Raises:
        InputError: there is no such device.
    """
    own = local_rank()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and own is not None:
        name = f"cuda:{own}"  # each process of a machine has a GPU
    if name.isdigit():
        name = f"cuda:{name}"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"--device {name}: is not a device; allowed: auto, cpu, cuda, cuda:N, mps") from None
    if device.type not in ("cpu", "cuda", "mps"):
        raise InputError(f"--device {name}: is not supported; allowed: auto, cpu, cuda, cuda:N, mps")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        hint = "use --device cpu or auto" if own is None else "start at most one process for each with torchrun"
        raise InputError(f"--device {name}: PyTorch sees {torch.cuda.device_count()} GPUs; {hint}")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise InputError(f"--device {name}: is not available here; use --device cpu")
    if device.type == "cuda" and own is not None:
        torch.cuda.set_device(device)  # where NCCL works
    return device
