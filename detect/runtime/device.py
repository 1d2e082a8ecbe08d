"""Device and floating-point type of the computation."""

from __future__ import annotations

import time
from typing import Literal

import torch
from torch import nn

from detect.errors import InputError
from detect.runtime.device_names import full_device_name
from detect.runtime.distributed import local_rank

Precision = Literal["fp32", "bf16", "fp16"]
"""Float type of the network's forward pass: float32, bfloat16 or float16."""

BF16_GAIN = 0.8
"""bf16 is chosen if it needs less than this share of float32's time: the choice does not flip with noise."""


def select_device(name: str) -> torch.device:
    """Return a device by name.

    Args:
        name: ``auto`` (``cuda`` if there is a GPU, else ``cpu``), ``cpu``, ``cuda`` (the first GPU; with several
            processes, the GPU of the local rank), ``cuda:1``, ``1`` or ``mps``.

    Raises:
        InputError: there is no such device.
    """
    own = local_rank()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    name = full_device_name(name, own)
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
        torch.cuda.set_device(device)  # for NCCL
    return device


def choose_precision(wanted: Literal["auto", "fp32", "bf16", "fp16"], device: torch.device) -> Precision:
    """Resolve ``auto``: on a GPU bf16 where the hardware has it, on a CPU the faster type of a test convolution."""
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device.type != "cpu":
        return "fp32"
    fp32, bf16 = _convolution_seconds(torch.float32), _convolution_seconds(torch.bfloat16)
    return "bf16" if bf16 < BF16_GAIN * fp32 else "fp32"


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """Return the context of the forward pass; for ``fp32`` it does nothing."""
    types = {"fp32": torch.bfloat16, "bf16": torch.bfloat16, "fp16": torch.float16}
    return torch.autocast(device.type, types[precision], enabled=precision != "fp32")


def _convolution_seconds(dtype: torch.dtype) -> float:
    """Time a convolution of a typical detector forward and backward: the best of five runs after a warm-up."""
    conv = nn.Conv2d(32, 32, 3, padding=1, dtype=dtype).to(memory_format=torch.channels_last)
    x = torch.zeros(4, 32, 80, 80, dtype=dtype).to(memory_format=torch.channels_last).requires_grad_()
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        conv(x).sum().backward()
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])
