from __future__ import annotations

import os
import pickle
import pickletools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detect.safety.inert_pickle import (
    MAX_BYTES,
    Inert,
    PickleError,
    byte_matrix,
    read_array_pickle,
    read_pickle,
)

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def read(data: bytes) -> Any:
    """The value, with every call inert and persistent ids as they are."""
    return read_pickle(data, Inert, lambda reference: reference)


class Reduced:
    """Unpickling it calls something."""

    def __init__(self, *value: Any) -> None:
        self.value = value

    def __reduce__(self) -> tuple:
        return self.value


class Stateful:
    """Unpickling it runs ``__setstate__``, which makes a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __getnewargs_ex__(self) -> tuple:
        return (), {"a": 1}

    def __new__(cls, *_: Path, **__: Any) -> Stateful:
        return super().__new__(cls)

    def __setstate__(self, state: dict[str, Any]) -> None:
        os.mkdir(state["target"])  # noqa: PTH102 (what an attacker would do)


# -------------------------------------------------------------------------------------------- what is plain

PLAIN = {
    "numbers": [0, 1, -1, 255, 256, 65536, 2**31, -(2**63), 2**200, 0.5, -1e300, True, False, None],
    "text": ["", "a", "é\n", "x" * 300, b"", b"\x00\xff", b"y" * 300, bytearray(b"z")],
    "nested": ({"a": [1, (2,), (3, 4), (5, 6, 7), ()]}, {1: {}, 2.5: [], b"k": None}, [[]], {}),
    "shared": [[1]] * 3,
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", PLAIN)
def test_plain_values(name: str, protocol: int) -> None:
    if protocol < 3 and name in ("text", "nested"):  # there bytes are a call of a codec
        value = [entry for entry in PLAIN["text"] if isinstance(entry, str)]
    else:
        value = PLAIN[name]
    if protocol < 5 and name == "text":
        value = [entry for entry in value if not isinstance(entry, bytearray)]
    assert read(pickle.dumps(value, protocol)) == value


def test_a_list_that_holds_itself() -> None:
    value: list[Any] = []
    value.append(value)
    found = read(pickle.dumps(value))
    assert found[0] is found


def test_sets_are_lists() -> None:
    """Nothing of the file is hashed but plain keys."""
    assert sorted(read(pickle.dumps({3, 1, 2}, 4))) == [1, 2, 3]
    assert sorted(read(pickle.dumps(frozenset((3, 1, 2)), 4))) == [1, 2, 3]


def test_keys_that_are_not_plain_are_dropped() -> None:
    assert read(pickle.dumps({(1, 2): 3, "a": 4})) == {"a": 4}


# ------------------------------------------------------------------------------------------- what would be code


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_calls_are_inert(tmp_path: Path, protocol: int) -> None:
    target = tmp_path / "made"
    data = pickle.dumps([Reduced(os.mkdir, (str(target),)), Reduced(eval, ("1 + 1",))], protocol)
    made, evaluated = read(data)
    assert made.name in ("posix.mkdir", "nt.mkdir")
    assert made.args == (str(target),)
    assert evaluated.name in ("builtins.eval", "__builtin__.eval")
    assert evaluated.args == ("1 + 1",)
    assert not target.exists()
    pickle.loads(data)  # the payload is what it claims to be
    assert target.exists()


@pytest.mark.parametrize("protocol", [2, 4])
def test_states_are_inert(tmp_path: Path, protocol: int) -> None:
    value = Stateful(tmp_path / "made")
    found = read(pickle.dumps(value, protocol))
    assert isinstance(found, Inert)
    assert found.state["target"].name.endswith("Path")
    assert not (tmp_path / "made").exists()
    pickle.loads(pickle.dumps(value, protocol))  # the payload is what it claims to be
    assert (tmp_path / "made").exists()


def test_a_state_that_is_no_dictionary_is_kept_as_it_is() -> None:
    """Arrays have a tuple. An object with slots has (attributes, slots), of which the attributes are taken."""
    array = read(pickle.dumps(np.arange(3, dtype=np.uint8), 2))
    version, shape, dtype, is_fortran, content = array.built
    assert (version, shape, dtype.name, is_fortran) == (1, (3,), "numpy.dtype", False)
    assert (content.name, content.args) == ("_codecs.encode", ("\0\1\2", "latin1"))
    assert array.state == {}
    slotted = read(b"cm\nf\n)R(}Va\nI1\ns}Vb\nI2\nstb.")
    assert slotted.state == {"a": 1}
    assert slotted.built == ({"a": 1}, {"b": 2})


def test_calls_of_what_a_call_gave(tmp_path: Path) -> None:
    """``getattr(os, "mkdir")(target)``, as nested reductions."""
    target = str(tmp_path / "made")
    # GLOBAL builtins.getattr; (GLOBAL os.path, "mkdir"); REDUCE; (target,); REDUCE
    data = b"cbuiltins\ngetattr\n(cos\npath\nVmkdir\ntR(V" + target.encode() + b"\ntR."
    found = read(data)
    assert (found.name, found.args) == ("builtins.getattr", (target,))
    assert not Path(target).exists()


def test_the_result_of_a_call_is_not_taken_for_what_is_known() -> None:
    """Only a bare name can be a function that the reader knows; the attributes of a name do not make it another."""
    calls = []

    def call(name: str, args: tuple[Any, ...]) -> Any:
        calls.append(name)
        return Inert(name, args)

    # f(1)(2): the second call is of a result. g, given a state of either form, then called.
    read_pickle(b"(cm\nf\n(I1\ntR(I2\ntRcm\ng\n}Va\nI1\nsb)Rcm\ng\n(I1\ntb)Rl.", call, lambda reference: reference)
    assert calls == ["m.f"]


@pytest.mark.parametrize(
    "data",
    [
        b"(ithis\nModule\n.",  # INST
        b"(cthis\nModule\no.",  # OBJ
        b"cthis\nModule\n)R.",  # REDUCE
        b"\x80\x02cthis\nModule\n)\x81.",  # NEWOBJ
        b"\x80\x04\x8c\x04this\x8c\x06Module\x93)}\x92.",  # STACK_GLOBAL, NEWOBJ_EX
    ],
)
def test_nothing_is_imported(data: bytes) -> None:
    """``this`` prints a poem when it is imported."""
    sys.modules.pop("this", None)
    found = read(data)
    assert (found.name, found.args) == ("this.Module", ())
    assert "this" not in sys.modules


def test_numpy_scalars_are_inert() -> None:
    assert isinstance(read(pickle.dumps(np.float64(1.5))), Inert)
    assert isinstance(read(pickle.dumps(np.arange(3))), Inert)


# ------------------------------------------------------------------------------------------------- what is none


def test_every_opcode_is_known_or_refused() -> None:
    """Those that need a registry of this process or memory of another are refused."""
    refused = set()
    for opcode in pickletools.opcodes:
        argument = b"" if opcode.arg is None else {"EXT4": bytes(4), "EXT2": bytes(2)}.get(opcode.name, b"\x01")
        try:
            read(b"N" + opcode.code.encode("latin-1") + argument + b".")
        except PickleError as error:
            if "cannot be read without running code" in str(error):
                refused.add(opcode.name)
    assert refused == {"EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b".",
        b"0.",
        b"t.",
        b"(0t.",
        b"g7\n.",
        b"I1\nI2\nR.",  # calls a number
        b"cm\nf\nI1\nR.",  # with what is no tuple
        b"cm\nf",
        b"\x80\x04I1\nI2\n\x93.",  # names numbers
        b"}(I1\nu.",  # a key without a value
        b"Iabc\n.",
        b"\xff",
        b"\x8d" + b"\xff" * 8 + b"a.",  # a text of 2**64 - 1 bytes
    ],
)
def test_damaged(data: bytes) -> None:
    with pytest.raises(PickleError):
        read(data)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_every_truncation_and_every_flipped_byte(protocol: int) -> None:
    """Each gives a value or the one exception."""
    data = pickle.dumps([PLAIN["nested"], Reduced(os.getcwd, ()), Inert("a", (1,))], protocol)
    for end in range(len(data)):
        with pytest.raises(PickleError):
            read(data[:end])
    for position in range(len(data)):
        for bits in (0x01, 0x20, 0xFF):
            changed = bytearray(data)
            changed[position] ^= bits
            try:
                read(bytes(changed))
            except PickleError:
                continue


def test_a_deep_one() -> None:
    """Nesting costs no stack, and a number in the memo no memory."""
    found = read(b")" + b"\x85" * 20_000 + b"r\xff\xff\xff\x7f.")
    for _ in range(20_000):
        (found,) = found
    assert found == ()


def test_a_large_one() -> None:
    with pytest.raises(PickleError, match=r"has 16,777,217 bytes; at most 16,777,216 are read"):
        read(bytes(MAX_BYTES + 1))
    with pytest.raises(PickleError, match=r"has 3 bytes; at most 2 are read"):
        read_pickle(b"I1\n", Inert, lambda reference: reference, max_bytes=2)


# ------------------------------------------------------------------------------------------------ NumPy's arrays

MATRIX = np.arange(256, dtype=np.uint8).reshape(2, 128)  # every byte: 0, control characters, and all above 127

# As Python 2 wrote it: BINSTRING for bytes, numpy.core, the state (1, (2, 128), dtype, False, bytes).
PYTHON_2 = (
    b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    b"(K\x01K\x02K\x80\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    b"\x89T\x00\x01\x00\x00" + bytes(range(256)) + b"tb."
)


def read_arrays(data: bytes) -> Any:
    return read_array_pickle(data, 2**20)


def test_an_array_of_python_2() -> None:
    assert (byte_matrix(read_arrays(PYTHON_2)) == MATRIX).all()


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("matrix", [MATRIX, np.asfortranarray(MATRIX), MATRIX[:, ::2]])
def test_an_array_of_python_3(matrix: np.ndarray, protocol: int) -> None:
    found = byte_matrix(read_arrays(pickle.dumps(matrix, protocol)))
    assert found.shape == matrix.shape
    assert found.dtype == np.uint8
    assert (found == matrix).all()


def test_an_array_without_rows() -> None:
    assert byte_matrix(read_arrays(pickle.dumps(MATRIX[:0], 4))).shape == (0, 128)


def test_bytes_of_protocol_2() -> None:
    assert read_arrays(pickle.dumps([b"a\xff", "text"], 2)) == [b"a\xff", "text"]


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "value",
    [
        MATRIX.astype(np.int8),
        MATRIX.astype(np.uint16),
        MATRIX.astype(object),
        MATRIX.astype([("a", np.uint8)]),
        MATRIX[0],
        MATRIX[None],
        np.zeros((), np.uint8),
    ],
)
def test_other_arrays_are_refused(value: np.ndarray, protocol: int) -> None:
    with pytest.raises(PickleError, match="has an array that is not of two dimensions of uint8"):
        byte_matrix(read_arrays(pickle.dumps(value, protocol)))


@pytest.mark.parametrize("value", [None, 1, [1], {}, "text", Inert("numpy.ndarray"), Inert(PYTHON_2[3:38].decode())])
def test_no_array(value: Any) -> None:
    with pytest.raises(PickleError, match="has no array where one is expected"):
        byte_matrix(value)


def test_a_content_of_another_size() -> None:
    """The shape says 2 x 129."""
    with pytest.raises(PickleError, match="has an array of 2 x 129 bytes whose content is of another size"):
        byte_matrix(read_arrays(PYTHON_2.replace(b"K\x02K\x80", b"K\x02K\x81")))


def test_a_content_that_is_text() -> None:
    value = read_arrays(PYTHON_2)
    value.built = (*value.built[:4], "\u20ac" * 256)
    with pytest.raises(PickleError, match="has an array whose content is text"):
        byte_matrix(value)


def test_nothing_is_called_for_an_array(tmp_path: Path) -> None:
    payload = pickle.dumps(Reduced(os.mkdir, (str(tmp_path / "made"),)), 2)
    with pytest.raises(PickleError, match="has no array"):
        byte_matrix(read_arrays(payload))
    assert not list(tmp_path.iterdir())
    pickle.loads(payload)  # the payload is what it claims to be
    assert (tmp_path / "made").exists()


def test_a_large_pickle_of_arrays() -> None:
    with pytest.raises(PickleError, match=r"at most 100 are read"):
        read_array_pickle(PYTHON_2, 100)
