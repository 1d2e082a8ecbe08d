"""Device and floating-point type of the computation."""

from __future__ import annotations

import time
from typing import Literal

import torch
from torch import nn

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


Precision = Literal["fp32", "bf16", "fp16"]
"""Float type of the network's forward pass: float32, bfloat16 or float16."""

BF16_GAIN = 0.8
"""bf16 must need less than this share of float32's time to be chosen: the choice then does not flip with noise."""


def choose_precision(wanted: Literal["auto", "fp32", "bf16", "fp16"], device: torch.device) -> Precision:
    """Resolve ``auto``.

    Args:
        wanted: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
        device: where the training runs.

    Returns:
        ``fp32``, ``bf16`` or ``fp16``. On a CPU ``auto`` measures a convolution forward and backward in both types.
    """
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device.type != "cpu":
        return "fp32"
    fp32, bf16 = _convolution_seconds(torch.float32), _convolution_seconds(torch.bfloat16)
    return "bf16" if bf16 < BF16_GAIN * fp32 else "fp32"


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """The context in which the network runs; for ``fp32`` it does nothing."""
    types = {"fp32": torch.bfloat16, "bf16": torch.bfloat16, "fp16": torch.float16}
    return torch.autocast(device.type, types[precision], enabled=precision != "fp32")


def _convolution_seconds(dtype: torch.dtype) -> float:
    """Best of a few runs of a convolution of the size that detectors are made of."""
    conv = nn.Conv2d(32, 32, 3, padding=1, dtype=dtype).to(memory_format=torch.channels_last)
    x = torch.zeros(4, 32, 80, 80, dtype=dtype).to(memory_format=torch.channels_last).requires_grad_()
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        conv(x).sum().backward()
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])
