"""ONNX files of strangers."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from detect.errors import InputError, unreadable

DIGEST = "weights_sha256"
"""Key of the metadata of a file whose weights lie in another one: SHA-256 of that file, hexadecimal."""
MAX_BYTES = 2**31 - 1
"""Maximum bytes of a model with its weights, as protobuf has it."""
_RESERVED = frozenset('<>:"/\\|?*')


class OnnxFile(NamedTuple):
    """A file of this toolkit.

    Args:
        model: the ``onnx.ModelProto``.
        metadata: of it.
    """

    model: Any
    metadata: dict[str, str]


def read_onnx(path: Path) -> OnnxFile:
    """Read a file and check it as ``parse_onnx``, but for weights in a file beside it."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None
    model = parse_onnx(content, path, may_have_weights_beside=True)
    return OnnxFile(model, {entry.key: entry.value for entry in model.metadata_props})


def with_weights(file: OnnxFile, path: Path) -> bytes:
    """The content of a file with its weights inside, where they lie in a file beside it.

    Raises:
        InputError: that file is not the one of the export, is missing or cut off, or lies elsewhere.
    """
    outside = [tensor for tensor in file.model.graph.initializer if _is_external(tensor)]
    content, total = b"", 0
    for tensor in outside:
        place = {entry.key: entry.value for entry in tensor.external_data}
        content = content or _weights(path, place.get("location", ""), file.metadata.get(DIGEST))
        start, length = (_number(place.get(key, "")) for key in ("offset", "length"))
        total += length
        if min(start, length) < 0 or start + length > len(content) or total > MAX_BYTES:
            raise InputError(f"{path}: the place of its weights {tensor.name[:100]!r} is damaged; export it again")
        tensor.raw_data = content[start : start + length]
        tensor.data_location = type(tensor).DEFAULT
        del tensor.external_data[:]
    serialized: bytes = file.model.SerializeToString()
    return serialized


def _weights(path: Path, name: str, digest: str | None) -> bytes:
    """Content of the file with the weights of ``path``."""
    if digest is None or not is_plain_name(name):
        raise InputError(f"{path}: has weights in other files; export it as one file")
    beside = path.with_name(name)
    try:
        content = beside.read_bytes()
    except OSError as error:
        raise InputError(f"{beside}: cannot be read ({error.strerror or error}); {path.name} needs it") from None
    if hashlib.sha256(content).hexdigest() != digest:
        raise InputError(
            f"{beside}: is cut off, damaged or of another export than {path.name}; export the folder again"
        )
    return content


def _number(text: str) -> int:
    """A number of bytes; -1 for any other text."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else -1


def is_plain_name(name: str) -> bool:
    """True for the name of a file that is in the same folder on every system."""
    return name.isprintable() and name.strip(". ") != "" and not _RESERVED & set(name)


def parse_onnx(content: bytes, path: Path, *, may_have_weights_beside: bool = False) -> Any:
    """Parse a file, and refuse what an ordinary network does not have: other files, loops, foreign operators.

    Args:
        content: of the file.
        path: for messages.
        may_have_weights_beside: weights of the graph, for ``with_weights``, may be in another file.

    Returns:
        The ``onnx.ModelProto``.

    Raises:
        InputError: the file is not ONNX; its tensors lie in other files; or it uses operators that are not ONNX's own,
            or that hold graphs of their own (``If``, ``Loop``, ``Scan``).
    """
    from google.protobuf.message import DecodeError

    try:
        model = _messages().ModelProto.FromString(content)
    except (DecodeError, ValueError, RecursionError):
        raise InputError(f"{path}: is not an ONNX file, or is damaged") from None
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            raise InputError(f"{path}: uses an operator that is not ONNX's own ({node.domain[:100]!r}); refused")
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise InputError(f"{path}: has a graph inside an operator ({node.op_type[:100]!r}); refused")
    weights = [] if may_have_weights_beside else model.graph.initializer
    if any(_is_external(tensor) for tensor in chain(weights, _other_tensors(model))):
        raise InputError(f"{path}: has weights in other files; export it as one file")
    return model


@functools.cache
def _messages() -> Any:
    """Load ONNX's protobuf messages without the package around them, whose other imports may take a second."""
    package = importlib.util.find_spec("onnx")
    assert package is not None, "installed with this package"
    assert package.submodule_search_locations, "a package"
    file = Path(package.submodule_search_locations[0]) / "onnx_ml_pb2.py"
    spec = importlib.util.spec_from_file_location("onnx_ml_pb2", file)
    assert spec is not None, "a Python file"
    assert spec.loader is not None, "a Python file"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _is_external(tensor: Any) -> bool:
    return bool(tensor.data_location == type(tensor).EXTERNAL)


def _other_tensors(model: Any) -> Iterator[Any]:
    """Tensors of a model without graphs inside its operators, but for its weights."""
    for sparse in model.graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield from (sparse.values, sparse.indices)
