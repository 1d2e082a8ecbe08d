"""From what a user calls a data set to its config: a name, a YAML file in either style, or a folder.

What is recognised is said in one line; what could be two things is refused.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from detect.config.base import CONFIGS, find_config, load_yaml
from detect.config.data import DataConfig, load_data_config
from detect.data.annotations import Problems
from detect.data.checks import find_folder
from detect.data.formats.label_files import read_lines
from detect.data.formats.layouts import has_layout, recognise_layout
from detect.data.formats.yolo import CLASSES_FILES, find_files
from detect.data.formats.yolo_rows import split_row
from detect.data.formats.yolo_yaml import DARKNET_SUFFIX, config_of_darknet_data, config_of_yolo_yaml, is_yolo_yaml
from detect.data.walking import walk_files
from detect.errors import InputError
from detect.runtime.logs import LOGGER

Format = Literal["coco", "voc", "yolo", "visdrone", "shards"]
TITLES: dict[Format, str] = {
    "coco": "COCO JSON",
    "voc": "Pascal VOC",
    "yolo": "YOLO",
    "visdrone": "VisDrone",
    "shards": "shards",
}
"""The formats that can be recognised, as messages call them."""

CONFIG_FILES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml", "obj.data")
"""Where a data set's folder says itself what it is, the first first."""

_NUM_LISTED = 10_000  # files of a folder
_NUM_LINES = 20  # lines that are looked at


def open_data(name: str, data_root: str | None = None) -> DataConfig:
    """A data set's configuration, with ``root`` as an absolute path, and with its format where its folder is there.

    Args:
        name: a shipped data config's name (before a folder that is called so); a YAML file, of this toolkit or as YOLO
            tools have it (``path``, ``train``, ``val``, ``names``); Darknet's ``obj.data``; or the folder of a data set
            in a usual layout.
        data_root: replaces the file's ``root``; relative to the current folder.

    Raises:
        InputError: there is no such thing, it is wrong, or it could be two things.
    """
    is_shipped = Path(name).name == name and (CONFIGS / "data" / f"{name}.yaml").is_file()
    if not Path(name).is_dir() or is_shipped:
        config = _config_of_file(name, data_root)
    elif data_root is None:
        config = _config_of_folder(Path(name))
    else:
        raise InputError(f"--data-root {data_root}: --data {name} is the data set's folder already; leave one out")
    if config.format is not None or not Path(config.root).is_dir():
        return config
    kind, reason = _recognise_format(config)
    LOGGER.info("%s: read as %s, because %s (format: %s)", config.name, TITLES[kind], reason, kind)
    return dataclasses.replace(config, format=kind)


def with_format(config: DataConfig) -> DataConfig:
    """The config with its format, recognised from what its splits name where it has none.

    Raises:
        InputError: the splits are of several formats, or of none that is known.
    """
    return config if config.format is not None else dataclasses.replace(config, format=_recognise_format(config)[0])


def _recognise_format(config: DataConfig) -> tuple[Format, str]:
    """The format of all splits that show one, and by what it was recognised."""
    found: dict[Format, str] = {}
    problems = []
    for split in config.splits:
        try:
            kind, reason = _recognise(config, split)
            found.setdefault(kind, reason)
        except InputError as error:
            problems.append(str(error))
    if len(found) > 1:
        both = " and ".join(f"{TITLES[kind]} ({reason})" for kind, reason in found.items())
        raise InputError(f"{config.name}: its splits are of different formats: {both}; one config has one format")
    if not found:
        raise InputError(problems[0])
    return next(iter(found.items()))


def _config_of_file(name: str, data_root: str | None) -> DataConfig:
    if name.endswith(DARKNET_SUFFIX) and Path(name).is_file():
        return config_of_darknet_data(Path(name), data_root)
    path = find_config("data", name)
    content = load_yaml(path)
    if not is_yolo_yaml(content):
        return load_data_config(name, data_root)
    return config_of_yolo_yaml(path, content, data_root)


def _config_of_folder(folder: Path) -> DataConfig:
    for name in CONFIG_FILES:
        if (folder / name).is_file():
            LOGGER.info("%s: its %s is read", folder, name)
            return _config_of_file(str(folder / name), None)
    inner = [] if has_layout(folder) else [path for path in sorted(folder.iterdir()) if _is_data_set(path)]
    if len(inner) == 1:
        LOGGER.info("%s: the data set in its folder %s is taken", folder, inner[0].name)
        return _config_of_folder(inner[0])
    return recognise_layout(folder)


def _is_data_set(folder: Path) -> bool:
    """Tell whether a folder, such as the project's in an unpacked archive, holds a data set."""
    is_visible = folder.is_dir() and not folder.name.startswith((".", "__"))
    return is_visible and (any((folder / name).is_file() for name in CONFIG_FILES) or has_layout(folder))


def _recognise(config: DataConfig, split: str) -> tuple[Format, str]:
    """The format of a split, and by what it was recognised."""
    section = config.splits[split]
    if section.images.endswith(".tar"):
        return "shards", f"{section.images} are tar files"
    if section.annotations is None:
        return _recognise_labels(config, split)
    path = Path(config.root, section.annotations)
    if path.suffix.lower() == ".json" or (path.is_file() and _starts_like_json(path)):
        return "coco", f"{section.annotations} is JSON"
    if path.is_file():
        raise InputError(
            f"{path}: is neither a JSON file (COCO) nor a folder of XML (VOC) or txt files (YOLO, VisDrone)"
        )
    folder = find_folder(config, section.annotations)
    files = list(itertools.islice(walk_files(folder, folder, lambda _: None), _NUM_LISTED))
    by_suffix = {suffix: [path for path in files if path.lower().endswith(suffix)] for suffix in (".xml", ".txt")}
    texts = [Path(path) for path in by_suffix[".txt"] if not _is_no_label(Path(path).name)]
    if by_suffix[".xml"] and texts:
        raise InputError(
            f"{folder}: has {len(by_suffix['.xml'])} XML and {len(texts)} txt files, so it could be Pascal VOC or "
            "YOLO; say which with format: voc or format: yolo"
        )
    if by_suffix[".xml"]:
        return "voc", f"{section.annotations} has XML files"
    if not texts:
        hint = "; for COCO name the JSON file itself" if any(path.endswith(".json") for path in files) else ""
        raise InputError(f"{folder}: has neither XML (VOC) nor txt files (YOLO, VisDrone){hint}")
    return _format_of_texts(texts, section.annotations)


def _is_no_label(name: str) -> bool:
    """Whether a text file beside annotations is none of them, by its name."""
    return name in CLASSES_FILES or name.upper().startswith("README")


def _recognise_labels(config: DataConfig, split: str) -> tuple[Format, str]:
    """YOLO, if the images have label files."""
    labels = find_files(config, split, Problems())[1]
    there = [path for path in labels[:_NUM_LISTED] if path.is_file()]
    if not there:
        raise InputError(
            f"{config.name}: splits.{split}.annotations: is missing, and no image has a YOLO label file such as "
            f"{labels[0]}; name the annotations, or the format if it needs none (format: folders for classification)"
        )
    kind, reason = _format_of_texts(there, str(there[0].parent))
    if kind != "yolo":
        raise InputError(f"{config.name}: splits.{split}.annotations: is missing, which format {kind} needs")
    return kind, reason


def _format_of_texts(paths: Iterable[Path], folder: str) -> tuple[Format, str]:
    """YOLO or VisDrone, as the first lines of the files say."""
    lines = itertools.islice((line for path in paths for line in read_lines(path) if line.strip()), _NUM_LINES)
    kinds = {kind for line in lines if (kind := _format_of_line(line)) is not None}
    if len(kinds) > 1:
        raise InputError(
            f"{folder}: has lines of both YOLO and VisDrone; say which with format: yolo or format: visdrone"
        )
    if not kinds:
        raise InputError(
            f"{folder}: its txt files have no line of YOLO (class cx cy w h) or VisDrone (eight numbers with commas); "
            "if it is one of them, say so with format: yolo or format: visdrone"
        )
    kind = kinds.pop()
    columns = {"yolo": "a class number and shares of the image", "visdrone": "eight numbers with commas"}[kind]
    return kind, f"{folder} has txt files with {columns}"


def _format_of_line(line: str) -> Format | None:
    words = split_row(line)
    commas = line.strip().rstrip(",").split(",")
    if len(commas) == 8 and all(map(_is_number, commas)):
        return "visdrone"
    if len(words) >= 5 and all(map(_is_number, words)):
        return "yolo"
    return None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _starts_like_json(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(100).lstrip(b"\xef\xbb\xbf\xff\xfe").replace(b"\0", b"")  # the marks and zeros of UTF-16
        return start.lstrip().startswith((b"{", b"["))
