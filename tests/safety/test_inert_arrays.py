from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detect.safety.inert_pickle import Inert, PickleError, byte_matrix, read_array_pickle

MATRIX = np.arange(256, dtype=np.uint8).reshape(2, 128)  # every byte: 0, control characters, and all above 127

# As Python 2 wrote it: BINSTRING for bytes, numpy.core, the state (1, (2, 128), dtype, False, bytes).
PYTHON_2 = (
    b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    b"(K\x01K\x02K\x80\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    b"\x89T\x00\x01\x00\x00" + bytes(range(256)) + b"tb."
)


def read(data: bytes) -> Any:
    return read_array_pickle(data, 2**20)


def test_python_2() -> None:
    assert (byte_matrix(read(PYTHON_2)) == MATRIX).all()


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("matrix", [MATRIX, np.asfortranarray(MATRIX), MATRIX[:, ::2]])
def test_python_3(matrix: np.ndarray, protocol: int) -> None:
    found = byte_matrix(read(pickle.dumps(matrix, protocol)))
    assert found.shape == matrix.shape
    assert found.dtype == np.uint8
    assert (found == matrix).all()


def test_no_rows() -> None:
    assert byte_matrix(read(pickle.dumps(MATRIX[:0], 4))).shape == (0, 128)


def test_bytes_of_protocol_2() -> None:
    assert read(pickle.dumps([b"a\xff", "text"], 2)) == [b"a\xff", "text"]


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
        byte_matrix(read(pickle.dumps(value, protocol)))


@pytest.mark.parametrize("value", [None, 1, [1], {}, "text", Inert("numpy.ndarray"), Inert(PYTHON_2[3:38].decode())])
def test_no_array(value: Any) -> None:
    with pytest.raises(PickleError, match="has no array where one is expected"):
        byte_matrix(value)


def test_a_content_of_another_size() -> None:
    """The shape says 2 x 129."""
    with pytest.raises(PickleError, match="has an array of 2 x 129 bytes whose content is of another size"):
        byte_matrix(read(PYTHON_2.replace(b"K\x02K\x80", b"K\x02K\x81")))


def test_a_content_that_is_text() -> None:
    value = read(PYTHON_2)
    value.built = (*value.built[:4], "\u20ac" * 256)
    with pytest.raises(PickleError, match="has an array whose content is text"):
        byte_matrix(value)


class Hostile:
    """Unpickling it makes a folder."""

    def __init__(self, target: Path) -> None:
        self.target = str(target)

    def __reduce__(self) -> tuple:
        return os.mkdir, (self.target,)


def test_nothing_is_called(tmp_path: Path) -> None:
    payload = pickle.dumps(Hostile(tmp_path / "made"), 2)
    with pytest.raises(PickleError, match="has no array"):
        byte_matrix(read(payload))
    assert not list(tmp_path.iterdir())
    pickle.loads(payload)  # the payload is what it claims to be
    assert (tmp_path / "made").exists()


def test_too_large() -> None:
    with pytest.raises(PickleError, match=r"at most 100 are read"):
        read_array_pickle(PYTHON_2, 100)
