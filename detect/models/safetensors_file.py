"""Files of safetensors: any state dict, and checkpoints of this toolkit.

A checkpoint has the content of a ``.pt`` file (``detect.models.checkpoint``) without ``training``: the tensors of
``state_dict`` under their names, those of papers' extras as ``extras/0``, ``extras/1``, ..., and everything else as
JSON in the metadata entry ``detect-checkpoint``, where ``{"__tensor__": "extras/0"}`` stands for a tensor.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detect.errors import InputError
from detect.models.foreign.kinds import SAFETENSORS, kind_of

ENTRY = "detect-checkpoint"
"""Metadata entry of a checkpoint."""
EXTRAS = "extras/"
"""Start of the names of a checkpoint's tensors that are no weights."""
_PLACE = "__tensor__"
_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def checkpoint_bytes(content: dict[str, Any]) -> bytes:
    """Return a checkpoint's content, which has no ``training``, as a file of safetensors."""
    from safetensors.torch import save

    assert content["training"] is None, "the state of a training is of no use to others"
    extras: dict[str, Tensor] = {}
    plain = _without_tensors({key: value for key, value in content.items() if key != "state_dict"}, extras)
    # One entry: the package writes several in a random order, and the same checkpoint should have the same bytes.
    return save({**content["state_dict"], **extras}, {ENTRY: json.dumps(plain, ensure_ascii=False)})


def read_checkpoint(path: Path) -> dict[str, Any] | None:
    """Read what ``checkpoint_bytes`` wrote; None for a file of safetensors without our entry.

    Raises:
        InputError: the file is damaged, or its entry is not the JSON of a checkpoint.
    """
    tensors, metadata = read_safetensors(path)
    if ENTRY not in metadata:
        return None
    state = {name: tensor for name, tensor in tensors.items() if not name.startswith(EXTRAS)}
    try:
        content = _with_tensors(json.loads(metadata[ENTRY], object_pairs_hook=_unique), tensors)
    except (ValueError, TypeError, KeyError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise InputError(f"{path}: is damaged: its entry {ENTRY} is not the JSON of a checkpoint")
    return {**content, "state_dict": state, "training": None}


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read eight bytes (the header's length), a JSON header, and the tensors without gaps.

    Source: the format's description in the safetensors project.

    Returns:
        The tensors and the metadata, by name.

    Raises:
        InputError: the file is of another kind, damaged or truncated, or holds no tensors.
    """
    if (kind := kind_of(path)) not in (SAFETENSORS, None):
        raise InputError(f"{path}: is not a safetensors file: it is {kind}")
    data = bytearray(path.read_bytes())
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > len(data) - 8:
        raise InputError(f"{path}: is not a safetensors file, or is truncated")
    try:
        header = json.loads(bytes(data[8 : 8 + length]).decode("utf-8"), object_pairs_hook=_unique)
        entries = [_entry(name, entry) for name, entry in header.items() if name != "__metadata__"]
        metadata = _texts(header.get("__metadata__", {}))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise InputError(f"{path}: is not a safetensors file, or is damaged: its header is none") from None
    end = 8 + length
    tensors: dict[str, Tensor] = {}
    for begin, stop, name, dtype, shape in sorted(entries, key=lambda entry: entry[:3]):
        if 8 + length + begin != end or stop - begin != math.prod(shape) * dtype.itemsize:
            raise InputError(f"{path}: is damaged: {name[:80]} is not where it should be, or not as long")
        end = 8 + length + stop
        if end > len(data):
            raise InputError(f"{path}: is truncated in {name[:80]}")
        tensors[name] = from_bytes(data[end - stop + begin : end], dtype).view(shape)
    if end != len(data):
        raise InputError(f"{path}: is damaged: {len(data) - end:,} bytes belong to no tensor")
    if not tensors:
        raise InputError(f"{path}: holds no tensors")
    return tensors, metadata


def from_bytes(data: bytearray, dtype: torch.dtype) -> Tensor:
    """Return the values of a buffer, (N,), which may be empty."""
    return torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)


def _entry(name: str, entry: dict[str, Any]) -> tuple[int, int, str, torch.dtype, tuple[int, ...]]:
    """Begin, end, name, type and shape of a tensor."""
    begin, stop = entry["data_offsets"]
    shape = tuple(entry["shape"])
    if not all(type(number) is int and 0 <= number < 2**62 for number in (begin, stop, *shape)):
        raise ValueError
    return begin, stop, name, _TYPES[entry["dtype"]], shape


def _texts(metadata: dict[str, Any]) -> dict[str, str]:
    if not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError
    return metadata


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError
    return dict(pairs)


def _without_tensors(value: Any, found: dict[str, Tensor]) -> Any:
    """Copy plain values with each tensor moved to ``found``."""
    if isinstance(value, Tensor):
        name = f"{EXTRAS}{len(found)}"
        found[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {_PLACE: name}
    if isinstance(value, dict):
        return {key: _without_tensors(item, found) for key, item in value.items()}
    return [_without_tensors(item, found) for item in value] if isinstance(value, (list, tuple)) else value


def _with_tensors(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Undo ``_without_tensors``."""
    if isinstance(value, dict):
        if value.keys() == {_PLACE}:
            return tensors[value[_PLACE]]
        return {key: _with_tensors(item, tensors) for key, item in value.items()}
    return [_with_tensors(item, tensors) for item in value] if isinstance(value, list) else value
