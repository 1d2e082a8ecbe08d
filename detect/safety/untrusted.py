"""Limits and checks for models and checkpoints of strangers: size and tensors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from detect.errors import InputError

MAX_VALUES = 2**29
"""Of all tensors of a model together: 2 GB in float32. The largest model in ``configs/`` has a quarter of them."""
MAX_TENSORS = 20_000
"""Of a model: a row of few channels can have any number of repeats. The deepest published network has 5,000."""

_MAKERS: frozenset[Callable[..., Any]] = frozenset(
    (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn)
)

_WEIGHTS = frozenset((torch.float64, torch.float32, torch.float16, torch.bfloat16))
_OTHERS = frozenset((torch.int64, torch.uint8))
"""Data types of counters and of packed bits."""
_BITS = 8
"""Values in a byte of packed bits."""


def check_tensors(state: Any, where: str) -> None:
    """Raise ``InputError`` for a state dict with anything but dense tensors of usual numbers on the CPU."""
    if not isinstance(state, dict):
        raise InputError(f"{where}: state_dict: must be tensors by their names, found {state!r:.80}")
    for name, tensor in state.items():
        is_plain = type(tensor) in (Tensor, torch.nn.Parameter) and tensor.layout == torch.strided
        if not is_plain or tensor.is_nested or tensor.device.type != "cpu" or tensor.dtype not in _WEIGHTS | _OTHERS:
            found = f"{tensor.dtype}, {tensor.layout}" if isinstance(tensor, Tensor) else f"{tensor!r:.40}"
            raise InputError(f"{where}: {str(name)[:100]}: is no ordinary tensor of numbers ({found})")


def values_of(state: dict[str, Tensor]) -> int:
    """Upper limit of the values of a model with these weights. A tensor may have any shape; the stored bytes count."""
    return sum(
        min(tensor.numel(), tensor.untyped_storage().nbytes()) * (_BITS if tensor.dtype == torch.uint8 else 1)
        for tensor in state.values()
    )


class AllocationLimit(TorchFunctionMode):
    """Context that limits the tensors that PyTorch makes: ``InputError`` before the memory is taken.

    At most ``max_values`` values and ``MAX_TENSORS`` tensors.
    """

    def __init__(self, max_values: int = MAX_VALUES) -> None:
        super().__init__()
        self._max_values = max_values
        self._num_values = self._num_tensors = 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in _MAKERS:
            self._count(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))

    def _count(self, *size: Any, **kwargs: Any) -> None:
        sides = kwargs.get("size", size)
        sides = sides[0] if len(sides) and isinstance(sides[0], (tuple, list)) else sides
        self._num_values += math.prod(sides)
        self._num_tensors += 1
        if self._num_values > self._max_values:
            raise InputError(f"the model would have more than {self._max_values:,} values")
        if self._num_tensors > MAX_TENSORS:
            raise InputError(f"the model would have more than {MAX_TENSORS:,} tensors")
