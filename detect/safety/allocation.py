"""How large a model may become while it is built: a definition may come from a stranger, and asks for any width."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from detect.errors import InputError

MAX_VALUES = 2**29
"""Values of all tensors together, 2 GB in float32. The largest model of ``configs/`` has a quarter of them."""
MAX_TENSORS = 20_000
"""A row of few channels may ask for any number of repeats; the deepest published network has 5,000 tensors."""

_MAKERS: frozenset[Callable[..., Any]] = frozenset(
    (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn)
)


class AllocationLimit(TorchFunctionMode):
    """A context in which PyTorch makes no more tensors than a model needs; it refuses before the memory is taken.

    Args:
        max_values: of all tensors together.
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
        """Count a tensor of a size, given as PyTorch's functions take it.

        Raises:
            InputError: it is one too many.
        """
        sides = kwargs.get("size", size)
        sides = sides[0] if len(sides) and isinstance(sides[0], (tuple, list)) else sides
        self._num_values += math.prod(sides)
        self._num_tensors += 1
        if self._num_values > self._max_values:
            raise InputError(f"the model would have more than {self._max_values:,} values")
        if self._num_tensors > MAX_TENSORS:
            raise InputError(f"the model would have more than {MAX_TENSORS:,} tensors")
