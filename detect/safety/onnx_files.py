"""ONNX files of strangers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from detect.errors import InputError


def parse_onnx(content: bytes, path: Path) -> Any:
    """Parse a file, and refuse what an ordinary network does not have: other files, loops, foreign operators.

    Args:
        content: of the file.
        path: for messages.

    Returns:
        The ``onnx.ModelProto``.

    Raises:
        InputError: the file is not ONNX; its tensors lie in other files; or it uses operators that are not ONNX's own,
            or that hold graphs of their own (``If``, ``Loop``, ``Scan``).
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model_from_string(content)
    except (DecodeError, ValueError, RecursionError):
        raise InputError(f"{path}: is not an ONNX file, or is damaged") from None
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            raise InputError(f"{path}: uses an operator that is not ONNX's own ({node.domain[:100]!r}); refused")
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise InputError(f"{path}: has a graph inside an operator ({node.op_type[:100]!r}); refused")
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _tensors(model)):
        raise InputError(f"{path}: has weights in other files; export it as one file")
    return model


def _tensors(model: Any) -> Iterator[Any]:
    """Tensors of a model without graphs inside its operators."""
    yield from model.graph.initializer
    for sparse in model.graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield from (sparse.values, sparse.indices)
