"""Choosing where and how precisely to compute."""

from __future__ import annotations

import torch

from detect.errors import InputError


def select_device(name: str) -> torch.device:
    """A device by name.

    Args:
        name: ``auto`` (the first GPU if there is one), ``cpu``, ``cuda``, ``cuda:1``, ``1`` or ``mps``.

    Raises:
        InputError: there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.isdigit():
        name = f"cuda:{name}"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"--device {name}: is not a device; allowed: auto, cpu, cuda, cuda:N, mps") from None
    if device.type not in ("cpu", "cuda", "mps"):
        raise InputError(f"--device {name}: is not supported; allowed: auto, cpu, cuda, cuda:N, mps")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"--device {name}: PyTorch sees {torch.cuda.device_count()} GPUs; use --device cpu or auto")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise InputError(f"--device {name}: is not available here; use --device cpu")
    return device
