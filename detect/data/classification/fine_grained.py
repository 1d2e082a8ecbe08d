"""CUB-200-2011 and Stanford Dogs, as they are distributed.

Letters: N images, K classes.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from detect.config.data import DataConfig
from detect.data.annotations import Problems
from detect.data.checks import find_file, find_folder, path_inside
from detect.data.classification.image_folders import read_lines, table_of_files
from detect.data.classification.table import ClassTable
from detect.errors import InputError

CUB_PARTS = {"test": "0", "train": "1"}
"""Values of ``train_test_split.txt``."""
MAX_LIST_BYTES = 2**22
"""Stanford Dogs' largest list has 0.3 MB."""
BAD_LINE = "lines without a number and a value (skipped)"
NO_FOLDER = "images whose class folder is not there (skipped)"
NO_CLASS = "images without a class in classes.txt (skipped)"


def read_cub(config: DataConfig, split: str) -> ClassTable:
    """Read a part of CUB-200-2011: ``annotations: train`` or ``test``, by default the split's own name.

    The files ``images.txt``, ``classes.txt``, ``image_class_labels.txt`` and ``train_test_split.txt`` lie in the root,
    each line a number and a value. A class is called by its folder without the number: ``Black footed Albatross``.

    Raises:
        InputError: a file or folder is missing, the part is unknown, a name leads out of its folder, or no image can be
            used.
    """
    part = config.splits[split].annotations or split
    if part not in CUB_PARTS:
        raise InputError(f"{config.name} {split}: annotations: must be train or test, found {part!r}")
    problems = Problems()
    folder = find_folder(config, config.splits[split].images).resolve()
    values = {
        word: dict(_numbered(find_file(config, f"{word}.txt"), problems))
        for word in ("images", "classes", "image_class_labels", "train_test_split")
    }
    labels = {number: label for label, number in enumerate(values["classes"])}
    paths, classes = [], []
    for number, name in values["images"].items():
        if values["train_test_split"].get(number) == CUB_PARTS[part]:
            label = labels.get(values["image_class_labels"].get(number, ""))
            if label is None:
                problems.add(NO_CLASS, repr(name))
            else:
                paths.append(str(path_inside(folder, name, "images.txt")))
                classes.append(label)
    names = tuple(name.split(".", 1)[-1].replace("_", " ") for name in values["classes"].values())
    return table_of_files(paths, classes, names, problems, f"{config.name} {split}", config.max_pixels)


def _numbered(path: Path, problems: Problems) -> Iterator[tuple[str, str]]:
    """Numbers and values of the lines of a file, in its order."""
    for count, line in enumerate(read_lines(path), start=1):
        number, _, value = line.strip().partition(" ")
        if number and value:
            yield number, value
        elif line.strip():
            problems.add(BAD_LINE, f"line {count} of {path.name}")


def read_stanford_dogs(config: DataConfig, split: str) -> ClassTable:
    """Read a split of Stanford Dogs; ``annotations`` is its list, ``train_list.mat`` or ``test_list.mat``.

    The list names files in ``images`` (``n02085620-Chihuahua/n02085620_5927.jpg``). The classes are the folders there,
    sorted, as the list's own labels have them; each is called by what follows its WordNet id: ``Chihuahua``.

    Raises:
        InputError: a file or folder is missing, the list is none, a name leads out of its folder, or no image can be
            used.
    """
    annotations = config.splits[split].annotations
    if annotations is None:
        raise InputError(f"{config.name} {split}: annotations: must be the split's list, such as train_list.mat")
    path = find_file(config, annotations)
    folder = find_folder(config, config.splits[split].images).resolve()
    folders = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    label_of = {name: label for label, name in enumerate(folders)}
    problems, paths, labels = Problems(), [], []
    for name in _read_list(path):
        image_path, label = str(path_inside(folder, name, str(path))), label_of.get(name.split("/")[0])
        if label is None:
            problems.add(NO_FOLDER, repr(name))
        else:
            paths.append(image_path)
            labels.append(label)
    names = tuple(name.partition("-")[2].replace("_", " ") or name for name in folders)
    return table_of_files(paths, labels, names, problems, f"{config.name} {split}", config.max_pixels)


def _read_list(path: Path) -> list[str]:
    """File names of a list, a MATLAB file of version 5 with a cell array of texts."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    if path.stat().st_size > MAX_LIST_BYTES:
        raise InputError(f"{path}: is larger than {MAX_LIST_BYTES} bytes, so it is no list of Stanford Dogs")
    try:
        return [_text(entry) for entry in np.ravel(loadmat(path, variable_names=("file_list",))["file_list"])]
    except (OSError, LookupError, TypeError, ValueError, NotImplementedError, MatReadError, zlib.error) as error:
        raise InputError(f"{path}: is no list of Stanford Dogs ({str(error)[:100]})") from None


def _text(entry: Any) -> str:
    """Text of a cell, (1,) in MATLAB's form."""
    text = np.ravel(entry)
    if len(text) != 1 or text.dtype.kind != "U":
        raise ValueError("a file name is no text")
    return str(text[0])
