"""Reading the structure of a pickle without running it.

A pickle is a program: its opcodes name functions, and ``pickle`` calls them. Here nothing is called or imported. The
opcodes are decoded (``pickletools``) and build plain values; whatever the program names becomes an ``Inert`` record of
what it would have called, and with what. Code inside a file therefore has nothing to run on.
"""

from __future__ import annotations

import io
import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any

MAX_BYTES = 2**24
"""Of a pickle that is read, unless its reader expects more. Tensors are beside it in the archive; the structure of a
detector has some 100 kB."""

_MARK = object()
_PLAIN_KEYS = (str, int, float, bytes, type(None))
"""Kinds of keys that are kept. Others cannot name weights, and hashing a deep one can end the process."""


@dataclass(eq=False)
class Inert:
    """What a pickle would have made by calling something, or a thing that it names.

    Args:
        name: ``module.name`` of what is named, or was to be called.
        args: with what it was to be called.
        state: what the object was to be given as its attributes.
        built: all that it was to be given, which objects in C (arrays) have in a form of their own.
    """

    name: str
    args: tuple[Any, ...] = ()
    state: dict[str, Any] = field(default_factory=dict)
    built: Any = None


class PickleError(ValueError):
    """The bytes are no pickle, or use what only running them could resolve."""


def read_pickle(
    data: bytes,
    call: Callable[[str, tuple[Any, ...]], Any],
    persistent: Callable[[Any], Any],
    max_bytes: int = MAX_BYTES,
) -> Any:
    """The value that a pickle describes, with ``Inert`` in place of everything that would need code.

    Args:
        data: the pickle.
        call: gives the value of calling ``module.name`` with arguments; ``Inert`` for all that it does not know.
        persistent: gives the value of a persistent id.
        max_bytes: larger pickles are refused.

    Raises:
        PickleError: see there.
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
    """``read_pickle`` of a pickle of at most ``MAX_BYTES`` that others follow; the stream then is behind it.

    Raises:
        PickleError: as ``read_pickle``.
    """
    machine = _Machine(call, persistent)
    start = stream.tell()
    window = io.BytesIO(stream.read(MAX_BYTES))  # of a file as many bytes would be asked for as an opcode claims
    try:
        for opcode, argument, _ in pickletools.genops(window):
            machine.run(opcode.name, argument)
        stream.seek(start + window.tell())
        return machine.stack.pop()
    except (ValueError, LookupError, TypeError, AttributeError, struct.error) as error:
        raise PickleError(str(error) or "is damaged") from None


class _Machine:
    """The stack and the memo of a pickle.

    Args:
        call: see ``read_pickle``.
        persistent: see ``read_pickle``.
    """

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
        """What stands above the last mark, which goes too."""
        above: list[Any] = []
        while (value := self.stack.pop()) is not _MARK:
            above.append(value)
        return above[::-1]

    def pop(self, count: int) -> list[Any]:
        """The upper ``count`` values, the lowest first."""
        return [self.stack.pop() for _ in range(count)][::-1]


def _make(machine: _Machine, named: Any, args: Any) -> None:
    """Push what calling something would have given."""
    if not isinstance(named, Inert) or not isinstance(args, tuple):
        raise PickleError("calls what is no function")
    # Only a bare name can be one of those that are known; the result of a call, called again, stays inert.
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
    """``module name``, as the opcodes that hold both in one give it."""
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
