"""Limits and checks for models and checkpoints of strangers: size, tensors and plain entries."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from detect.errors import InputError, is_writable

MAX_VALUES = 2**29
"""Of all tensors of a model together: 2 GB in float32. The largest model in ``configs/`` has a quarter of them."""
MAX_TENSORS = 20_000
"""Of a model: a row of few channels can have any number of repeats. The deepest published network has 5,000."""

_MAKERS: frozenset[Callable[..., Any]] = frozenset(
    (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn)
)

MAX_SIDE = 16384
"""Pixels of the long side of a network input; a batch of one such image has 3 GB."""

_WEIGHTS = frozenset((torch.float64, torch.float32, torch.float16, torch.bfloat16))
_OTHERS = frozenset((torch.int64, torch.uint8))
"""Data types of counters and of packed bits."""
_BITS = 8
"""Values in a byte of packed bits."""


class Metadata(NamedTuple):
    """The plain entries of a checkpoint or of an exported file; see ``detect.models.checkpoint.Checkpoint``."""

    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    image_size: int
    center_crop: float
    metrics: dict[str, float]
    value_range: tuple[float, float] | None


def read_metadata(content: dict[str, Any], where: str) -> Metadata:
    """Check the plain entries of a file's content; ``where`` is the file, for messages.

    Raises:
        InputError: an entry has the wrong type or is out of its range.
        KeyError: one is missing.
    """
    names, ids = content["names"], content["category_ids"]
    if not _is_list(names, str) or not names or not all(map(is_writable, names)):
        raise InputError(f"{where}: names: must be a list of texts, found {names!r:.80}")
    if not _is_list(ids, int) or len(set(ids)) < len(ids) or any(not -(2**63) <= number < 2**63 for number in ids):
        raise InputError(f"{where}: category_ids: must be a list of different whole numbers, found {ids!r:.80}")
    if len(ids) != len(names):
        raise InputError(f"{where}: has {len(names)} names, but {len(ids)} category ids")
    size, crop, metrics = content["image_size"], content.get("center_crop", 1.0), content["metrics"]
    if type(size) is not int or not 1 <= size <= MAX_SIDE:
        raise InputError(f"{where}: image_size: must be a whole number from 1 to {MAX_SIDE}, found {size!r:.80}")
    if type(crop) is not float or not 0 < crop <= 1:
        raise InputError(f"{where}: center_crop: must be a number above 0 and up to 1, found {crop!r:.80}")
    if not isinstance(metrics, dict) or not _is_list(list(metrics), str) or not _is_list([*metrics.values()], float):
        raise InputError(f"{where}: metrics: must be numbers by their names, found {metrics!r:.80}")
    value_range = _read_range(content.get("value_range"), where)
    return Metadata(tuple(names), tuple(ids), size, crop, dict(metrics), value_range)


def _read_range(found: Any, where: str) -> tuple[float, float] | None:
    """The range of values of images with more than 8 bits a channel; older files have none."""
    if found is None:
        return None
    is_pair = (
        isinstance(found, (list, tuple)) and len(found) == 2 and all(type(value) in (int, float) for value in found)
    )
    if not is_pair or not all(map(math.isfinite, found)) or not found[0] < found[1]:
        raise InputError(f"{where}: value_range: must be two numbers, the lower one first, found {found!r:.80}")
    return float(found[0]), float(found[1])


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


def _is_list(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(type(item) is kind for item in value)


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
