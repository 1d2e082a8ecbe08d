"""Tensors of files of PyTorch and of safetensors. No code of a file is run."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from detect.errors import InputError, unreadable
from detect.models.foreign.kinds import ARCHIVE, LEGACY, SAFETENSORS, kind_of
from detect.models.safetensors_file import from_bytes, read_safetensors
from detect.safety.inert_pickle import MAX_BYTES, Inert, PickleError, read_next_pickle, read_pickle

STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
"""Data types by storage class, of PyTorch's files."""
MAX_ENTRIES, MAX_NAME = 100_000, 1000
"""Limits of a pickled model: tensors and modules, and characters of a name. A module may contain itself."""
COUNTER = ".num_batches_tracked"
"""End of the names of the norms' batch counters, which no import takes."""

State = dict[str, Tensor]
"""State dict: tensors by name."""


@dataclass(frozen=True)
class TensorFile:
    """Content of a file.

    Args:
        tensors: by name, as in the state dict of its model.
        names: the class names, if any.
    """

    tensors: State
    names: tuple[str, ...] | None


def read_tensors(path: Path) -> TensorFile:
    """Read a state dict: from safetensors, or from a file of PyTorch with a state dict or a pickled model.

    The content decides; the suffix only where it is of neither kind.

    Raises:
        InputError: the file cannot be read, is damaged or has no state dict.
    """
    try:
        kind = kind_of(path)
        if kind == SAFETENSORS or (path.suffix == ".safetensors" and kind not in (ARCHIVE, LEGACY)):
            return TensorFile(read_safetensors(path)[0], None)
        return _read_legacy(path) if kind == LEGACY else _read_archive(path)
    except OSError as error:
        raise unreadable(path, error) from None


# ------------------------------------------------------------------------------------------ PyTorch's archive


@dataclass(frozen=True)
class _Storage:
    """Memory of tensors: an entry of the archive."""

    key: str
    dtype: torch.dtype


@dataclass(frozen=True)
class _View:
    """A tensor by the place of its values."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def _read_archive(path: Path) -> TensorFile:
    try:
        with zipfile.ZipFile(path) as archive:
            root = _check_archive(archive, path)
            if archive.getinfo(f"{root}/data.pkl").file_size > MAX_BYTES:
                raise InputError(f"{path}: its data.pkl is larger than any model's")
            content = read_pickle(archive.read(f"{root}/data.pkl"), _call, _persistent)
            views = dict(_state_dict(content, path))
            storages = {view.storage for view in views.values()}
            memory = {storage: _read_storage(archive, root, storage) for storage in storages}
            tensors = {name: _make_tensor(view, memory[view.storage]) for name, view in views.items()}
    except PickleError as error:
        raise InputError(f"{path}: is damaged, or no model: {error}") from None
    except (zipfile.BadZipFile, EOFError, LookupError, NotImplementedError, RuntimeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: {_no_archive(path)}") from None
    return TensorFile(tensors, _class_names(content))


def _no_archive(path: Path) -> str:
    kind = kind_of(path)
    if kind is None:
        return "is not an archive of PyTorch 1.6 or newer, or is damaged"
    if kind is ARCHIVE:
        return "is an archive that is damaged, or was cut off"
    return f"is not an archive of PyTorch: it is {kind}"


def _check_archive(archive: zipfile.ZipFile, path: Path) -> str:
    """The folder inside the archive. PyTorch compresses nothing, so no entry may be larger when it is read."""
    entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size for entry in entries):
        raise InputError(f"{path}: has compressed entries, which PyTorch does not write")
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise InputError(f"{path}: its entries overlap; PyTorch does not write such archives")
    roots = [entry.filename.removesuffix("/data.pkl") for entry in entries if entry.filename.endswith("/data.pkl")]
    if len(roots) != 1:
        raise InputError(f"{path}: is not a file of torch.save: it has no data.pkl")
    order = f"{roots[0]}/byteorder"
    if order in archive.namelist() and archive.read(order) != b"little":
        raise InputError(f"{path}: was written by a machine of another byte order")
    return roots[0]


def _persistent(reference: Any) -> _Storage:
    """The storage of a persistent id of PyTorch: ``("storage", class, key, device, number of elements)``."""
    match reference:
        case ("storage", Inert(name=str(name)), str(key), _, int()):
            module, _, kind = name.rpartition(".")
            if module == "torch" and kind in STORAGES:
                return _Storage(key, STORAGES[kind])
            raise PickleError(f"has a storage of unknown type {name[:80]!r}")
    raise PickleError("refers to what is no storage")


def _call(name: str, args: tuple[Any, ...]) -> Any:
    """The value of a call that makes a tensor or a dictionary; other calls stay inert."""
    match name, args:
        case "collections.OrderedDict", ():
            return {}
        case "torch._utils._rebuild_tensor_v2", (_Storage() as storage, int(offset), tuple(shape), tuple(stride), *_):
            if all(type(number) is int and 0 <= number < 2**62 for number in (offset, *shape, *stride)):
                return _View(storage, offset, shape, stride)
            raise PickleError("has a tensor whose shape is none")
        case "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state", (_View() as view, *_):
            return view
    return Inert(name, args)


def _read_storage(archive: zipfile.ZipFile, root: str, storage: _Storage) -> Tensor:
    data = bytearray(archive.read(f"{root}/data/{storage.key}"))  # compares the checksum
    if len(data) % storage.dtype.itemsize:
        raise PickleError(f"storage {storage.key[:80]!r} has no whole number of elements")
    return from_bytes(data, storage.dtype)


def _make_tensor(view: _View, memory: Tensor) -> Tensor:
    """The tensor as a view of the memory, which has at least as many elements."""
    count = math.prod(view.shape)
    if len(view.shape) != len(view.stride) or len(view.shape) > 8 or count > len(memory):
        raise PickleError("has a tensor larger than its storage")
    last = view.offset + sum((size - 1) * step for size, step in zip(view.shape, view.stride, strict=True))
    if count and last >= len(memory):
        raise PickleError("has a tensor that reaches out of its storage")
    return memory.as_strided(view.shape, view.stride, view.offset) if count else memory.new_empty(view.shape)


# ------------------------------------------------------------------------------------- PyTorch before 1.6


def _read_legacy(path: Path) -> TensorFile:
    """Read a file of PyTorch before 1.6: five pickles, then the storages.

    The pickles are a magic number, the format's version, the machine, the content and the keys of the storages. A
    storage is its number of elements as int64, and the elements.
    """
    storages: dict[str, _Storage] = {}

    def persistent(reference: Any) -> _Storage:
        if not isinstance(reference, tuple) or len(reference) != 6 or reference[5] is not None:
            raise PickleError("has a storage that is a part of another one")
        storage = _persistent(reference[:5])
        return storages.setdefault(storage.key, storage)

    try:
        with path.open("rb") as file:
            _, version, machine, content, keys = (read_next_pickle(file, _call, persistent) for _ in range(5))
            if version != 1001 or not isinstance(machine, dict) or machine.get("little_endian") is not True:
                raise PickleError("is of another version of the format, or of a machine of another byte order")
            memory = {storages[key]: _next_storage(file, storages[key]) for key in _known_keys(keys, storages)}
        views = dict(_state_dict(content, path))
        tensors = {name: _make_tensor(view, memory[view.storage]) for name, view in views.items()}
    except PickleError as error:
        raise InputError(f"{path}: is damaged, or no model: {error}") from None
    except KeyError:
        raise InputError(f"{path}: is damaged: a tensor has no storage") from None
    return TensorFile(tensors, _class_names(content))


def _known_keys(keys: Any, storages: dict[str, _Storage]) -> list[str]:
    if not isinstance(keys, list) or any(not isinstance(key, str) or key not in storages for key in keys):
        raise PickleError("lists storages that nothing refers to")
    return keys


def _next_storage(file: IO[bytes], storage: _Storage) -> Tensor:
    count = int.from_bytes(file.read(8), "little")
    remaining = os.fstat(file.fileno()).st_size - file.tell()
    if count * storage.dtype.itemsize > remaining:
        raise PickleError(f"storage {storage.key[:80]!r} is cut off")
    return from_bytes(bytearray(file.read(count * storage.dtype.itemsize)), storage.dtype)


# ------------------------------------------------------------------------------------- the model in PyTorch's files


def _model_of(content: Any) -> Any:
    """The part of a checkpoint with the weights: the moving average, if any, which its writers use, too."""
    if isinstance(content, dict):
        for key in ("ema", "model", "state_dict", "model_state_dict"):
            if isinstance(content.get(key), (dict, Inert)):
                return content[key]
    return content


def _state_dict(content: Any, path: Path) -> Iterator[tuple[str, _View]]:
    model = _model_of(content)
    if isinstance(model, dict):
        views = {str(name): view for name, view in model.items() if isinstance(view, _View)}
    else:
        views = _module_tensors(model, path) if isinstance(model, Inert) else {}
    if not views:
        raise InputError(f"{path}: holds neither a state dict nor a model")
    yield from ((name.removeprefix("module."), view) for name, view in views.items())  # DistributedDataParallel's


def _module_tensors(model: Inert, path: Path) -> dict[str, _View]:
    """Parameters and buffers of a pickled module and its submodules, named as in its state dict."""
    found: dict[str, _View] = {}
    waiting = [("", model)]
    num_entries = 0
    while waiting:
        prefix, module = waiting.pop()
        for kind in ("_parameters", "_buffers", "_modules"):
            held = module.state.get(kind)
            for name, entry in held.items() if isinstance(held, dict) else ():
                num_entries += 1
                if num_entries > MAX_ENTRIES or len(prefix) + len(str(name)) > MAX_NAME:
                    raise InputError(f"{path}: has more modules in one another than any model")
                if isinstance(entry, Inert) and kind == "_modules":
                    waiting.append((f"{prefix}{name}.", entry))
                elif isinstance(entry, _View):
                    found[f"{prefix}{name}"] = entry
    return found


def _class_names(content: Any) -> tuple[str, ...] | None:
    """The ``names`` of a pickled model: a list, or a dictionary with keys from 0."""
    model = _model_of(content)
    names = model.state.get("names") if isinstance(model, Inert) else None
    if isinstance(names, dict) and list(names) == list(range(len(names))):
        names = list(names.values())
    if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
        return tuple(names)
    return None
