"""CIFAR-10 and CIFAR-100 as distributed: four archives, or the folders that they unpack to.

Letters: N images, K classes.

Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009), and the data set's page,
https://www.cs.toronto.edu/~kriz/cifar.html, for the layout of the files.
"""

from __future__ import annotations

import glob
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from detect.config.data import DataConfig
from detect.data.checks import find_file
from detect.data.classification.table import ClassTable
from detect.errors import InputError
from detect.runtime.logs import LOGGER
from detect.safety.archives import MAX_UNPACKED, read_members
from detect.safety.inert_pickle import PickleError, byte_matrix, read_array_pickle

PARTS = ("train", "test")
IMAGE_BYTES = 3 * 32 * 32
"""A row of pixels: 1,024 red values, then green, then blue, each plane row by row."""


class _Form(NamedTuple):
    """One of the four distributions of CIFAR.

    Args:
        title: name in messages.
        names_file: file of the class names; its name distinguishes the forms.
        train: files of the training images.
        test: files of the test images.
        read_names: class names of that file; the arguments are the content and the file's name in messages.
        read_batch: rows (N, 3072) uint8 and labels (N,) int64 of a file of images; the same arguments.
    """

    title: str
    names_file: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    read_names: Callable[[bytes, str], list[str]]
    read_batch: Callable[[bytes, str], tuple[np.ndarray, np.ndarray]]

    def files(self, part: str) -> tuple[str, ...]:
        return self.train if part == "train" else self.test


def read_cifar(config: DataConfig, split: str) -> ClassTable:
    """Read one split. CIFAR-100's classes are the 100 fine ones.

    Args:
        config: the data set. Its form is recognised by its content, not by its name. The pickles in it are not run.
        split: a key of ``config.splits``, whose ``annotations`` name the part, ``train`` or ``test``.

    Raises:
        InputError: nothing is there, or it is no CIFAR, incomplete or damaged.
    """
    part = _part(config, split)
    path = _find(config, split)
    members = read_members(path, _wanted(part))
    form = _form(path, members)
    names = _names(form, members, f"{path}/{form.names_file}")
    rows, labels, image_names = [], [], []
    for file in form.files(part):
        if file not in members:
            raise InputError(f"{path}: is {form.title}, but its file {file} is missing; download or unpack it again")
        pixels, batch_labels = form.read_batch(members.pop(file), f"{path}/{file}")
        _check_labels(batch_labels, names, f"{path}/{file}")
        rows.append(pixels)
        labels.append(batch_labels)
        image_names += [f"{path}/{file}#{number}" for number in range(len(pixels))]
    LOGGER.info("%s %s: the %s images of %s in %s", config.name, split, part, form.title, path)
    return ClassTable(
        image_paths=np.array([name.encode("utf-8", "surrogateescape") for name in image_names], np.bytes_),
        labels=np.concatenate(labels),
        names=names,
        pixels=np.ascontiguousarray(np.concatenate(rows).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)),
    )


def _part(config: DataConfig, split: str) -> str:
    part = config.splits[split].annotations or split
    if part not in PARTS:
        raise InputError(
            f"{config.name}: splits.{split}.annotations: is {part!r}; CIFAR has the parts {' and '.join(PARTS)} "
            "and no validation images: write annotations: test"
        )
    return part


def _find(config: DataConfig, split: str) -> Path:
    """Archive or folder of a split; the first of several that match its pattern."""
    root, pattern = Path(config.root), config.splits[split].images
    if (root / pattern).exists():
        return (root / pattern).resolve()
    found = sorted(glob.glob(pattern, root_dir=root))
    return (root / found[0] if found else find_file(config, pattern)).resolve()


def _wanted(part: str) -> frozenset[str]:
    return frozenset(name for form in _FORMS for name in (form.names_file, *form.files(part)))


def _form(path: Path, members: dict[str, bytes]) -> _Form:
    for form in _FORMS:
        if form.names_file in members:
            return form
    known = ", ".join(f"{form.names_file} ({form.title})" for form in _FORMS)
    raise InputError(f"{path}: is no CIFAR, or incomplete: it must have one of {known}")


def _names(form: _Form, members: dict[str, bytes], where: str) -> tuple[str, ...]:
    names = form.read_names(members.pop(form.names_file), where)
    if not names or len(set(names)) < len(names):
        raise InputError(f"{where}: has no class names, or one of them twice")
    return tuple(names)


def _check_labels(labels: np.ndarray, names: tuple[str, ...], where: str) -> None:
    """Refuse a file without images, and labels outside of [0, K)."""
    if not len(labels):
        raise InputError(f"{where}: has no images")
    wrong = labels[(labels < 0) | (labels >= len(names))]
    if len(wrong):
        raise InputError(f"{where}: has the label {wrong[0]}, but there are {len(names)} classes; download it again")


# ------------------------------------------------------------------------------------------------------ pickles


def _open_pickle(content: bytes, where: str) -> dict[Any, Any]:
    try:
        value = read_array_pickle(content, MAX_UNPACKED)
    except PickleError as error:
        raise InputError(f"{where}: is no pickle of CIFAR: {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"{where}: is no pickle of CIFAR: it holds no dictionary")
    return value


def _entry(content: dict[Any, Any], key: str, where: str) -> Any:
    """Entry of a name written by Python 2, which Python 3 may have converted to bytes."""
    for spelling in (key, key.encode()):
        if spelling in content:
            return content[spelling]
    raise InputError(f"{where}: has no entry {key!r}")


def _pickled_names(key: str) -> Callable[[bytes, str], list[str]]:
    def read(content: bytes, where: str) -> list[str]:
        names = _entry(_open_pickle(content, where), key, where)
        if not isinstance(names, list) or not all(isinstance(name, (str, bytes)) for name in names):
            raise InputError(f"{where}: {key!r} is no list of names")
        return [name.decode("latin-1") if isinstance(name, bytes) else name for name in names]

    return read


def _pickled_batch(key: str) -> Callable[[bytes, str], tuple[np.ndarray, np.ndarray]]:
    def read(content: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
        batch = _open_pickle(content, where)
        labels = _entry(batch, key, where)
        if not isinstance(labels, list) or not all(type(label) is int and abs(label) < 2**31 for label in labels):
            raise InputError(f"{where}: {key!r} is no list of class numbers")
        try:
            rows = byte_matrix(_entry(batch, "data", where))
        except PickleError as error:
            raise InputError(f"{where}: {error}") from None
        if rows.shape != (len(labels), IMAGE_BYTES):
            found = f"{rows.shape[0]} x {rows.shape[1]}"
            raise InputError(f"{where}: has {found} bytes of pixels; wanted are {len(labels)} x {IMAGE_BYTES}")
        return rows, np.array(labels, np.int64)

    return read


# ------------------------------------------------------------------------------------------------------- binary


def _listed_names(content: bytes, where: str) -> list[str]:
    try:
        lines = content.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{where}: is no text") from None
    return [line.strip() for line in lines if line.strip()]


def _binary_batch(num_label_bytes: int) -> Callable[[bytes, str], tuple[np.ndarray, np.ndarray]]:
    """Reader of records: label bytes, of which the last one is the class, then the pixels."""

    def read(content: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
        record = num_label_bytes + IMAGE_BYTES
        if len(content) % record:
            raise InputError(
                f"{where}: has {len(content):,} bytes, which is no multiple of {record:,}; it is truncated"
            )
        records = np.frombuffer(content, np.uint8).reshape(-1, record)
        return records[:, num_label_bytes:], records[:, num_label_bytes - 1].astype(np.int64)

    return read


_FORMS = (
    _Form(
        "CIFAR-10 (python version)",
        "batches.meta",
        train=tuple(f"data_batch_{number}" for number in range(1, 6)),
        test=("test_batch",),
        read_names=_pickled_names("label_names"),
        read_batch=_pickled_batch("labels"),
    ),
    _Form(
        "CIFAR-10 (binary version)",
        "batches.meta.txt",
        train=tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
        test=("test_batch.bin",),
        read_names=_listed_names,
        read_batch=_binary_batch(1),
    ),
    _Form(
        "CIFAR-100 (python version)",
        "meta",
        train=("train",),
        test=("test",),
        read_names=_pickled_names("fine_label_names"),
        read_batch=_pickled_batch("fine_labels"),
    ),
    _Form(
        "CIFAR-100 (binary version)",
        "fine_label_names.txt",
        train=("train.bin",),
        test=("test.bin",),
        read_names=_listed_names,
        read_batch=_binary_batch(2),  # the coarse class, then the fine one
    ),
)
