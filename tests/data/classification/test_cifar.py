from __future__ import annotations

import logging
import os
import pickle
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detect.config.data import DataConfig, SplitConfig
from detect.data.classification.cifar import read_cifar
from detect.data.classification.table import ClassTable
from detect.errors import InputError
from tests.data.cifar_files import (
    NAMES_10,
    NAMES_100,
    batch,
    binary10,
    binary100,
    python2_pickle,
    python3_pickle,
    python10,
    python100,
    write_archive,
    write_folder,
)

CIFAR_10 = {
    "python 2": python10,
    "python 3, protocol 2": partial(python10, python3_pickle),
    "python 3, protocol 4": partial(python10, partial(python3_pickle, protocol=4)),
    "python 3, protocol 5": partial(python10, partial(python3_pickle, protocol=5)),
    "binary": binary10,
}
CIFAR_100 = {
    "python 2": python100,
    "python 3, protocol 2": partial(python100, python3_pickle),
    "python 3, protocol 4": partial(python100, partial(python3_pickle, protocol=4)),
    "python 3, protocol 5": partial(python100, partial(python3_pickle, protocol=5)),
    "binary": binary100,
}


def read(path: Path, split: str = "train", part: str | None = None) -> ClassTable:
    return read_cifar(DataConfig("small", str(path.parent), {split: SplitConfig(path.name, part)}, "cifar"), split)


def assert_holds(table: ClassTable, batches: list[tuple[np.ndarray, list[int]]], names: list[str]) -> None:
    """Pixel (row y, column x) of channel c is byte 1024 c + 32 y + x of its row."""
    assert table.names == tuple(names)
    assert table.labels.tolist() == [label for _, labels in batches for label in labels]
    assert table.labels.dtype == np.int64
    rows = np.concatenate([rows for rows, _ in batches])
    assert table.pixels.shape == (len(rows), 32, 32, 3)
    assert table.pixels.dtype == np.uint8
    assert table.pixels.flags.c_contiguous
    for channel, y, x in ((0, 0, 0), (0, 0, 31), (1, 3, 7), (2, 31, 31)):
        assert (table.pixels[:, y, x, channel] == rows[:, 1024 * channel + 32 * y + x]).all()
    assert (table.read(1) == rows[1].reshape(3, 32, 32).transpose(1, 2, 0)).all()
    assert not table.problems


# ----------------------------------------------------------------------------------------------- all forms


def test_the_handwritten_pickle_is_what_python_reads() -> None:
    rows, labels = batch(2, 3, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy 2 tells of numpy.core, and of such a dtype
        content = pickle.loads(python2_pickle({"data": rows, "labels": labels}), encoding="bytes")
    assert (content[b"data"] == rows).all()
    assert content[b"labels"] == labels


@pytest.mark.parametrize("is_archive", [False, True], ids=["folder", "archive"])
@pytest.mark.parametrize("form", CIFAR_10)
def test_cifar_10(tmp_path: Path, form: str, is_archive: bool) -> None:
    write = write_archive if is_archive else write_folder
    path = write(tmp_path / "any name", CIFAR_10[form]())
    train, test = read(path), read(path, "val", "test")
    assert_holds(train, [batch(2, 3, seed) for seed in range(1, 6)], NAMES_10)
    assert_holds(test, [batch(3, 3, 6)], NAMES_10)
    suffix = ".bin" if form == "binary" else ""
    assert train.path(0) == path / f"data_batch_1{suffix}#0"
    assert train.path(9) == path / f"data_batch_5{suffix}#1"


@pytest.mark.parametrize("is_archive", [False, True], ids=["folder", "archive"])
@pytest.mark.parametrize("form", CIFAR_100)
def test_cifar_100_has_the_fine_classes(tmp_path: Path, form: str, is_archive: bool) -> None:
    write = write_archive if is_archive else write_folder
    path = write(tmp_path / "any name", CIFAR_100[form]())
    assert_holds(read(path), [batch(5, 4, 7)], NAMES_100)
    assert_holds(read(path, "test"), [batch(2, 4, 8)], NAMES_100)


def test_an_archive_that_is_not_compressed(tmp_path: Path) -> None:
    assert len(read(write_archive(tmp_path / "a.tar", binary10(), "w:"))) == 10


def test_an_array_in_fortran_order(tmp_path: Path) -> None:
    rows, labels = batch(3, 4, 0)
    files = {**python100(), "train": python3_pickle({"data": np.asfortranarray(rows), "fine_labels": labels})}
    assert_holds(read(write_folder(tmp_path / "a", files)), [(rows, labels)], NAMES_100)


# ------------------------------------------------------------------------------------------ what a split names


def test_the_log_says_what_was_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_folder(tmp_path / "a", python100())
    with caplog.at_level(logging.INFO, logger="detect"):
        read(path, "val", "test")
    assert caplog.messages == [f"small val: the test images of CIFAR-100 (python version) in {path}"]


def test_a_pattern_takes_the_first_and_keeps_10_and_100_apart(tmp_path: Path) -> None:
    write_archive(tmp_path / "cifar-100-python.tar.gz", python100())
    with pytest.raises(InputError, match=r"cifar-10-\*: no such file; the data set's root .* has cifar-100-python"):
        read(tmp_path / "cifar-10-*")
    write_archive(tmp_path / "cifar-10-python.tar.gz", python10())
    assert read(tmp_path / "cifar-10-*").path(0).parent.name == "cifar-10-python.tar.gz"
    write_folder(tmp_path / "cifar-10-batches-py", python10())
    assert read(tmp_path / "cifar-10-*").path(0).parent.name == "cifar-10-batches-py"


def test_a_split_that_is_no_part(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "a", binary10())
    with pytest.raises(InputError, match=r"small: splits\.val\.annotations: is 'val'; CIFAR has the parts train and"):
        read(path, "val")


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.tar\.gz: no such file; the data set's root .* has nothing"):
        read(tmp_path / "a.tar.gz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: is no CIFAR, or incomplete: it must have one of batches\.meta \(CIF"):
        read(tmp_path / "empty")


# ---------------------------------------------------------------------------------------------- hostile pickles


class MakesFolder:
    """Unpickling it makes a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("place", ["names", "whole", "data", "labels", "label"])
def test_a_hostile_pickle_is_not_run_and_refused(tmp_path: Path, place: str) -> None:
    target = tmp_path / "made"
    rows, labels = batch(1, 4, 0)
    content: Any = {b"data": rows, b"fine_labels": labels}
    file = "train"
    if place == "names":
        file, content = "meta", {b"fine_label_names": MakesFolder(target)}
    elif place == "whole":
        content = MakesFolder(target)
    elif place == "label":
        content[b"fine_labels"] = [MakesFolder(target)]
    else:
        content[{"data": b"data", "labels": b"fine_labels"}[place]] = MakesFolder(target)
    payload = pickle.dumps(content, 2)
    path = write_folder(tmp_path / "a", {**python100(), file: payload})
    with pytest.raises(InputError, match=rf"a/{file}: "):
        read(path)
    assert not target.exists()
    pickle.loads(payload)  # the payload is what it claims to be
    assert target.exists()


# --------------------------------------------------------------------------------------------- damaged files


def _changed(files: dict[str, bytes], name: str, content: dict[str, Any] | bytes) -> dict[str, bytes]:
    return {**files, name: content if isinstance(content, bytes) else python2_pickle(content)}


ROWS, LABELS = batch(2, 4, 0)
DAMAGED: dict[str, tuple[Callable[[], dict[str, bytes]], str, Any, str]] = {
    "no pickle": (python100, "train", b"\xffabc", r"train: is no pickle of CIFAR: "),
    "empty pickle": (python100, "train", b"", r"train: is no pickle of CIFAR: "),
    "truncated": (python100, "train", python100()["train"][:5000], r"train: is no pickle of CIFAR: "),
    "a list": (python100, "train", pickle.dumps([1]), r"train: is no pickle of CIFAR: it holds no dictionary"),
    "no labels": (python100, "train", {"data": ROWS}, r"train: has no entry 'fine_labels'"),
    "no data": (python100, "train", {"fine_labels": LABELS}, r"train: has no entry 'data'"),
    "text labels": (
        python100,
        "train",
        {"data": ROWS, "fine_labels": ["1", "2"]},
        r"'fine_labels' is no list of class",
    ),
    "data is a list": (python100, "train", {"data": [1], "fine_labels": LABELS}, r"has no array where one is expected"),
    "fewer labels": (
        python100,
        "train",
        {"data": ROWS, "fine_labels": [1]},
        r"has 2 x 3072 bytes.* wanted are 1 x 3072",
    ),
    "grey": (
        python100,
        "train",
        {"data": ROWS[:, :1024], "fine_labels": LABELS},
        r"has 2 x 1024 bytes of pixels; want",
    ),
    "label 4": (
        python100,
        "train",
        {"data": ROWS, "fine_labels": [0, 4]},
        r"train: has the label 4, but there are 4 cl",
    ),
    "label -1": (
        python100,
        "train",
        {"data": ROWS, "fine_labels": [0, -1]},
        r"train: has the label -1, but there are 4",
    ),
    "no images": (python100, "train", {"data": ROWS[:0], "fine_labels": []}, r"train: has no images"),
    "floats": (
        python100,
        "train",
        python3_pickle({"data": ROWS.astype(np.float32), "fine_labels": LABELS}),
        r"train: has an array that is not of two dimensions of uint8",
    ),
    "images": (
        python100,
        "train",
        python3_pickle({"data": ROWS.reshape(2, 3, 32, 32), "fine_labels": LABELS}),
        r"train: has an array that is not of two dimensions of uint8",
    ),
    "names are text": (python100, "meta", {"fine_label_names": "ant"}, r"meta: 'fine_label_names' is no list of names"),
    "a name twice": (
        python100,
        "meta",
        {"fine_label_names": ["a"] * 4},
        r"meta: has no class names, or one of them tw",
    ),
    "no names": (python100, "meta", {"fine_label_names": []}, r"meta: has no class names"),
    "CIFAR-10 names": (python100, "meta", {"label_names": ["a"]}, r"meta: has no entry 'fine_label_names'"),
    "a byte too many": (
        binary10,
        "data_batch_3.bin",
        bytes(3074),
        r"data_batch_3\.bin: has 3,074 bytes, which is no mul",
    ),
    "fine record": (binary100, "train.bin", bytes(3073), r"train\.bin: has 3,073 bytes, which is no multiple of 3,074"),
    "empty binary": (binary10, "data_batch_1.bin", b"", r"data_batch_1\.bin: has no images"),
    "binary label": (binary10, "data_batch_2.bin", b"\3" + bytes(3072), r"has the label 3, but there are 3 classes"),
    "names are bytes": (binary10, "batches.meta.txt", b"\xff\xfe", r"batches\.meta\.txt: is no text"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_files_are_refused(tmp_path: Path, damage: str) -> None:
    files, name, content, message = DAMAGED[damage]
    path = write_folder(tmp_path / "a", _changed(files(), name, content))
    with pytest.raises(InputError, match=message):
        read(path)


def test_a_missing_batch(tmp_path: Path) -> None:
    files = python10()
    del files["data_batch_4"]
    path = write_archive(tmp_path / "a.tar.gz", files)
    with pytest.raises(InputError, match=r"is CIFAR-10 \(python version\), but its file data_batch_4 is missing"):
        read(path)
    assert len(read(path, "test")) == 3  # which has its own file
