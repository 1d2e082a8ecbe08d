"""The structure of a pickle, read without running it.

A pickle is a program: its opcodes name functions, and ``pickle`` calls them. Here nothing is called or imported. The
opcodes are decoded (``pickletools``) and build plain values; each function or class that the program names, and each
call of one, becomes an ``Inert`` record. Code inside a file is never run.

Letters: N rows, D columns.
"""

from __future__ import annotations

import io
import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np

MAX_BYTES = 2**24
"""Default size limit of a pickle. Tensors are stored beside it in the archive; the structure of a detector has some
100 kB."""

_MARK = object()
_PLAIN_KEYS = (str, int, float, bytes, type(None))
"""Types of dictionary keys that are kept. Others cannot name weights, and hashing a deep one can end the process."""


@dataclass(eq=False)
class Inert:
    """A function or class that a pickle names, or a call of one that was not made.

    Args:
        name: ``module.name`` of the function or class.
        args: positional arguments of the call.
        state: attributes of the object, from the pickle's BUILD.
        built: the whole argument of BUILD; objects in C (arrays) have their own form of it.
    """

    name: str
    args: tuple[Any, ...] = ()
    state: dict[str, Any] = field(default_factory=dict)
    built: Any = None


class PickleError(ValueError):
    """The bytes are no pickle, or need code to be run."""


def read_pickle(
    data: bytes,
    call: Callable[[str, tuple[Any, ...]], Any],
    persistent: Callable[[Any], Any],
    max_bytes: int = MAX_BYTES,
) -> Any:
    """Read the value that a pickle describes, with ``Inert`` in place of everything that would need code.

    ``call`` returns the value of calling ``module.name`` with arguments, and ``Inert`` for unknown names;
    ``persistent`` returns the value of a persistent id.

    Raises:
        PickleError: the bytes are no pickle, are more than ``max_bytes``, or need code to be run.
    """
    if len(data) > max_bytes:
        raise PickleError(f"has {len(data):,} bytes; at most {max_bytes:,} are read")
    machine = _Machine(call, persistent)
    try:
        for opcode, argument, _ in pickletools.genops(data):
            machine.run(opcode.name, argument)
        return machine.stack.pop()
    except (ValueError, LookupError, TypeError, AttributeError, struct.error) as error:
        raise PickleError(str(error) or "is damaged") from None


def read_next_pickle(
    stream: IO[bytes], call: Callable[[str, tuple[Any, ...]], Any], persistent: Callable[[Any], Any]
) -> Any:
    """Read one of several pickles in a stream, of at most ``MAX_BYTES``, and leave the stream behind it.

    Arguments and errors as ``read_pickle``.
    """
    machine = _Machine(call, persistent)
    start = stream.tell()
    window = io.BytesIO(stream.read(MAX_BYTES))  # from a file, an opcode could ask for any number of bytes
    try:
        for opcode, argument, _ in pickletools.genops(window):
            machine.run(opcode.name, argument)
        stream.seek(start + window.tell())
        return machine.stack.pop()
    except (ValueError, LookupError, TypeError, AttributeError, struct.error) as error:
        raise PickleError(str(error) or "is damaged") from None


class _Machine:
    """The stack and the memo of a pickle."""

    def __init__(self, call: Callable[[str, tuple[Any, ...]], Any], persistent: Callable[[Any], Any]) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.call = call
        self.persistent = persistent

    def run(self, name: str, argument: Any) -> None:
        """Carry out one opcode."""
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _PUT:
            self.memo[len(self.memo) if name == "MEMOIZE" else argument] = self.stack[-1]
        elif name in _GET:
            self.stack.append(self.memo[argument])
        elif name in _STEPS:
            _STEPS[name](self, argument)
        elif name not in _NOTHING:
            raise PickleError(f"uses {name}, which cannot be read without running code")

    def pop_mark(self) -> list[Any]:
        """Remove the values above the last mark, and the mark."""
        above: list[Any] = []
        while (value := self.stack.pop()) is not _MARK:
            above.append(value)
        return above[::-1]

    def pop(self, count: int) -> list[Any]:
        """Remove the upper ``count`` values; the lowest comes first."""
        return [self.stack.pop() for _ in range(count)][::-1]


def _make(machine: _Machine, named: Any, args: Any) -> None:
    if not isinstance(named, Inert) or not isinstance(args, tuple):
        raise PickleError("calls what is no function")
    # Only a bare name can be a known function; the result of a call, called again, stays inert.
    known = not named.args and not named.state and named.built is None
    machine.stack.append(machine.call(named.name, args) if known else Inert(named.name, args))


def _build(machine: _Machine, _: Any) -> None:
    state = machine.stack.pop()
    target = machine.stack[-1]
    if not isinstance(target, Inert):
        return
    target.built = state
    if isinstance(state, tuple) and state:  # (attributes, slots)
        state = state[0]
    if isinstance(state, dict):
        target.state = state


def _append(machine: _Machine, values: list[Any]) -> None:
    if isinstance(machine.stack[-1], list):
        machine.stack[-1].extend(values)


def _set_items(machine: _Machine, values: list[Any]) -> None:
    target = machine.stack[-1]
    if isinstance(target, dict):
        pairs = zip(values[::2], values[1::2], strict=True)
        target.update((key, value) for key, value in pairs if isinstance(key, _PLAIN_KEYS))


def _dict(machine: _Machine, _: Any) -> None:
    values = machine.pop_mark()
    machine.stack.append({})
    _set_items(machine, values)


def _named(argument: str) -> Inert:
    """``module name`` of the opcodes that have both in one argument."""
    return Inert(argument.replace(" ", "."))


def _stack_global(machine: _Machine, _: Any) -> None:
    module, name = machine.pop(2)
    if not isinstance(module, str) or not isinstance(name, str):
        raise PickleError("names what is no name")
    machine.stack.append(Inert(f"{module}.{name}"))


def _object(machine: _Machine, _: Any) -> None:
    named, *args = machine.pop_mark()
    _make(machine, named, tuple(args))


_VALUES = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
        *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    )
)
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": list,  # a set would hash what the file holds
    "MARK": lambda: _MARK,
}
_PUT = frozenset(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"))
_GET = frozenset(("GET", "BINGET", "LONG_BINGET"))
_NOTHING = frozenset(("PROTO", "FRAME", "STOP"))
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "POP": lambda m, _: m.pop(1).clear(),
    "POP_MARK": lambda m, _: m.pop_mark().clear(),
    "DUP": lambda m, _: m.stack.append(m.stack[-1]),
    "TUPLE1": lambda m, _: m.stack.append(tuple(m.pop(1))),
    "TUPLE2": lambda m, _: m.stack.append(tuple(m.pop(2))),
    "TUPLE3": lambda m, _: m.stack.append(tuple(m.pop(3))),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.pop_mark())),
    "LIST": lambda m, _: m.stack.append(m.pop_mark()),
    "FROZENSET": lambda m, _: m.stack.append(m.pop_mark()),
    "DICT": _dict,
    "APPEND": lambda m, _: _append(m, m.pop(1)),
    "APPENDS": lambda m, _: _append(m, m.pop_mark()),
    "ADDITEMS": lambda m, _: _append(m, m.pop_mark()),
    "SETITEM": lambda m, _: _set_items(m, m.pop(2)),
    "SETITEMS": lambda m, _: _set_items(m, m.pop_mark()),
    "GLOBAL": lambda m, argument: m.stack.append(_named(argument)),
    "STACK_GLOBAL": _stack_global,
    "REDUCE": lambda m, _: _make(m, *m.pop(2)),
    "NEWOBJ": lambda m, _: _make(m, *m.pop(2)),
    "NEWOBJ_EX": lambda m, _: _make(m, *m.pop(3)[:2]),
    "OBJ": _object,
    "INST": lambda m, argument: _make(m, _named(argument), tuple(m.pop_mark())),
    "BUILD": _build,
    "PERSID": lambda m, argument: m.stack.append(m.persistent(argument)),
    "BINPERSID": lambda m, _: m.stack.append(m.persistent(m.stack.pop())),
}


# ------------------------------------------------------------------------------------------------ NumPy's arrays

# Functions in NumPy's pickles; NumPy 2 has renamed numpy.core.
_RECONSTRUCT = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
_FROM_BUFFER = ("numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer")


def read_array_pickle(data: bytes, max_bytes: int) -> Any:
    """Read a Python 2 or 3 pickle as ``read_pickle``; arrays are for ``byte_matrix``, Python 2's ``str`` is Latin-1."""
    return read_pickle(data, _decode_bytes, lambda reference: Inert("persistent", (reference,)), max_bytes)


def _decode_bytes(name: str, args: tuple[Any, ...]) -> Any:
    """Decode bytes, which Python 3 writes in protocol 2 as the call of a codec; all else stays inert."""
    if name == "_codecs.encode" and len(args) == 2 and isinstance(args[0], str) and args[1] in ("latin1", "latin-1"):
        return args[0].encode("latin-1")
    return Inert(name, args)


def byte_matrix(value: Any) -> np.ndarray:
    """Convert an array of ``read_array_pickle`` to (N, D) uint8, read-only.

    Raises:
        PickleError: it is no array of two dimensions of uint8, or its content has another size.
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
    """Content, data type, shape and order of an array."""
    if isinstance(value, Inert) and value.name in _RECONSTRUCT:
        if isinstance(value.built, tuple) and len(value.built) == 5:
            _, shape, dtype, is_fortran, content = value.built
            return content, dtype, shape, "F" if is_fortran is True else "C"
    elif isinstance(value, Inert) and value.name in _FROM_BUFFER and len(value.args) == 4:
        content, dtype, shape, order = value.args
        return content, dtype, shape, "F" if order == "F" else "C"
    raise PickleError("has no array where one is expected")
