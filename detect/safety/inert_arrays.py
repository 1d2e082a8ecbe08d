"""NumPy's arrays of bytes in a pickle that is not run (``detect.safety.inert_pickle``).

Letters: N rows, D columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from detect.safety.inert_pickle import Inert, PickleError, read_pickle

# What NumPy's pickles call; NumPy 2 has renamed numpy.core.
_RECONSTRUCT = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
_FROM_BUFFER = ("numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer")


def read_array_pickle(data: bytes, max_bytes: int) -> Any:
    """The value that a pickle describes, with arrays as what ``byte_matrix`` takes, and nothing called.

    Args:
        data: the pickle, of Python 2 or 3. A ``str`` of Python 2, which may be text or bytes, becomes a ``str`` with a
            character for each byte.
        max_bytes: larger pickles are refused.

    Raises:
        PickleError: see there.
    """
    return read_pickle(data, _call, lambda reference: Inert("persistent", (reference,)), max_bytes)


def _call(name: str, args: tuple[Any, ...]) -> Any:
    """Bytes, which Python 3 writes as an encoded text for readers of protocol 2; anything else stays inert."""
    if name == "_codecs.encode" and len(args) == 2 and isinstance(args[0], str) and args[1] in ("latin1", "latin-1"):
        return args[0].encode("latin-1")
    return Inert(name, args)


def byte_matrix(value: Any) -> np.ndarray:
    """An array out of ``read_array_pickle``.

    Returns:
        (N, D) uint8, read-only.

    Raises:
        PickleError: it is no array of two dimensions of uint8, or its content is of another size.
    """
    content, dtype, shape, order = _parts(value)
    is_bytes = isinstance(dtype, Inert) and dtype.name == "numpy.dtype" and dtype.args[:1] in (("u1",), ("|u1",))
    is_matrix = isinstance(shape, tuple) and len(shape) == 2 and all(type(side) is int and side >= 0 for side in shape)
    if not is_bytes or not is_matrix:
        raise PickleError("has an array that is not of two dimensions of uint8")
    if isinstance(content, str):  # Python 2's bytes
        try:
            content = content.encode("latin-1")
        except UnicodeEncodeError:
            raise PickleError("has an array whose content is text") from None
    if not isinstance(content, (bytes, bytearray)) or len(content) != shape[0] * shape[1]:
        raise PickleError(f"has an array of {shape[0]} x {shape[1]} bytes whose content is of another size")
    return np.frombuffer(bytes(content), np.uint8).reshape(shape, order=order)


def _parts(value: Any) -> tuple[Any, Any, Any, Any]:
    """Content, data type, shape and order of what would have become an array."""
    if isinstance(value, Inert) and value.name in _RECONSTRUCT:
        if isinstance(value.built, tuple) and len(value.built) == 5:
            _, shape, dtype, is_fortran, content = value.built
            return content, dtype, shape, "F" if is_fortran is True else "C"
    elif isinstance(value, Inert) and value.name in _FROM_BUFFER and len(value.args) == 4:
        content, dtype, shape, order = value.args
        return content, dtype, shape, "F" if order == "F" else "C"
    raise PickleError("has no array where one is expected")
