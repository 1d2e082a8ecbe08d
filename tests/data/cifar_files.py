"""CIFAR's files, written small, in all the ways in which they are around."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

NAMES_10 = ["cat", "dog", "yak"]
NAMES_100 = ["ant", "bee", "cod", "elk"]
COARSE = ["insect", "other"]


def batch(num_images: int, num_classes: int, seed: int) -> tuple[np.ndarray, list[int]]:
    """Rows (N, 3072) uint8 and labels; the bytes above 127 tell bytes from UTF-8."""
    generator = np.random.default_rng(seed)
    rows = generator.integers(0, 256, (num_images, 3072), np.uint8)
    return rows, generator.integers(0, num_classes, num_images).tolist()


# ---------------------------------------------------------------------------- pickles as Python 2 writes them


def _text(text: bytes) -> bytes:
    """SHORT_BINSTRING, or BINSTRING for 256 bytes and more: Python 2's ``str``."""
    return b"U" + bytes([len(text)]) + text if len(text) < 256 else b"T" + struct.pack("<i", len(text)) + text


def _number(number: int) -> bytes:
    """BININT."""
    return b"J" + struct.pack("<i", number)


def _python2_value(value: Any) -> bytes:
    if isinstance(value, np.ndarray):
        return _python2_array(value)
    if isinstance(value, int):
        return _number(value)
    if isinstance(value, str):
        return _text(value.encode("latin-1"))
    assert isinstance(value, list)
    return b"](" + b"".join(_python2_value(entry) for entry in value) + b"e"  # EMPTY_LIST MARK ... APPENDS


def _python2_array(array: np.ndarray) -> bytes:
    """NumPy's ``__reduce__``: ``_reconstruct(ndarray, (0,), 'b')`` and a state (1, shape, dtype, False, str)."""
    shape = b"".join(_number(side) for side in array.shape)
    dtype = (
        b"cnumpy\ndtype\n" + _text(b"u1") + _number(0) + _number(1) + b"\x87R"  # TUPLE3 REDUCE
        # its state: (3, '|', None, None, None, -1, -1, 0)
        + b"(" + _number(3) + _text(b"|") + b"NNN" + _number(-1) + _number(-1) + _number(0) + b"tb"
    )  # fmt: skip
    return (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + _number(0) + b"\x85" + _text(b"b") + b"\x87R"
        + b"(" + _number(1) + shape + b"\x86" + dtype + b"\x89" + _text(array.tobytes()) + b"tb"
    )  # fmt: skip


def python2_pickle(content: dict[str, Any]) -> bytes:
    """A dictionary in protocol 2: PROTO 2, EMPTY_DICT, MARK, the entries, SETITEMS, STOP."""
    entries = b"".join(_text(key.encode()) + _python2_value(value) for key, value in content.items())
    return b"\x80\x02}(" + entries + b"u."


def python3_pickle(content: dict[str, Any], protocol: int = 2) -> bytes:
    """As Python 3 writes what it has loaded with ``encoding="bytes"``; protocol 2 makes its bytes a call of a codec."""
    return pickle.dumps({key.encode(): value for key, value in content.items()}, protocol)


# --------------------------------------------------------------------------------------------- the four forms


def python10(write: Any = python2_pickle) -> dict[str, bytes]:
    """Files of CIFAR-10's python version: 5 x 2 training images, 3 test images."""
    files = {"batches.meta": write({"num_cases_per_batch": 2, "label_names": NAMES_10, "num_vis": 3072})}
    for name, (rows, labels) in _batches10().items():
        names = [f"{number}.png" for number in labels]
        files[name] = write({"batch_label": name, "labels": labels, "data": rows, "filenames": names})
    return files


def binary10() -> dict[str, bytes]:
    files = {"batches.meta.txt": "\n".join([*NAMES_10, "", ""]).encode()}
    for name, (rows, labels) in _batches10().items():
        files[f"{name}.bin"] = np.column_stack([np.array(labels, np.uint8), rows]).tobytes()
    return files


def _batches10() -> dict[str, tuple[np.ndarray, list[int]]]:
    train = {f"data_batch_{number}": batch(2, 3, number) for number in range(1, 6)}
    return {**train, "test_batch": batch(3, 3, 6)}


def python100(write: Any = python2_pickle) -> dict[str, bytes]:
    files = {"meta": write({"fine_label_names": NAMES_100, "coarse_label_names": COARSE})}
    for name, (rows, labels) in _batches100().items():
        coarse = [label // 2 for label in labels]
        files[name] = write({"data": rows, "fine_labels": labels, "coarse_labels": coarse})
    return files


def binary100() -> dict[str, bytes]:
    files = {
        "fine_label_names.txt": "\n".join(NAMES_100).encode(),
        "coarse_label_names.txt": "\n".join(COARSE).encode(),
    }
    for name, (rows, labels) in _batches100().items():
        fine = np.array(labels, np.uint8)
        files[f"{name}.bin"] = np.column_stack([fine // 2, fine, rows]).tobytes()
    return files


def _batches100() -> dict[str, tuple[np.ndarray, list[int]]]:
    return {"train": batch(5, 4, 7), "test": batch(2, 4, 8)}


def write_folder(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def write_archive(path: Path, files: dict[str, bytes], mode: str = "w:gz") -> Path:
    """The files in one folder, as in the published archives."""
    with tarfile.open(path, mode) as archive:
        folder = tarfile.TarInfo("cifar")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path
