"""Folders of data sets as they are usually laid out, without a config.

=========  =============================================================================================
COCO       ``annotations/instances_<split>*.json`` (or in the folder itself), images in a folder of that name;
           ``<split>/_annotations.coco.json`` (Roboflow); one file for all images, ``result.json`` (Label Studio)
YOLO       ``images/<split>`` and ``labels/<split>``, ``<split>/images`` and ``<split>/labels``, or ``images``,
           ``labels`` and ``<split>.txt``, or images and txt files side by side, in ``<split>`` or in the folder
VOC        ``JPEGImages``, ``Annotations``, ``ImageSets/Main/<split>.txt``; or ``images`` and ``annotations``, or
           images and XML files side by side, each in ``<split>`` or in the folder itself
VisDrone   ``<split>/images`` and ``<split>/annotations``; ``VisDrone2019-DET-<split>`` is a split, too
shards     ``dataset.json`` and ``<split>-000000.tar``, with any number
=========  =============================================================================================
"""

from __future__ import annotations

import glob
import re
from pathlib import Path
from typing import NamedTuple

from detect.config.data import DataConfig, SplitConfig
from detect.data.formats.coco_layouts import CocoSplits, find_coco, find_unnamed_coco
from detect.data.formats.shards import DATASET_FILE
from detect.data.formats.split_names import split_of
from detect.data.walking import is_image_name
from detect.errors import InputError
from detect.runtime.logs import LOGGER

LOOKED_FOR = (
    "data.yaml; obj.data; COCO's annotations/instances_*.json, <split>/_annotations.coco.json or one file for all; "
    "YOLO's images and labels; VOC's JPEGImages and Annotations; images with txt (YOLO) or XML files (VOC) beside "
    "them; VisDrone's <split>/images and <split>/annotations; dataset.json and <split>-000000.tar"
)
"""Layouts that a message names."""

_VOC_SPLITS: tuple[str, ...] = ("train", "val", "trainval", "test")
_SHARD_FILE = re.compile(r"(.+)-\d+\.tar")
_VISDRONE_FOLDER = re.compile(r"(?:VisDrone\d*-DET-)?(.+)")


class _Layout(NamedTuple):
    """One way to read a folder."""

    title: str
    format: str
    splits: dict[str, SplitConfig]


def recognise_layout(folder: Path) -> DataConfig:
    """The config of a data set whose folder is laid out in a usual way; what was recognised is logged.

    Args:
        folder: the data set's.

    Raises:
        InputError: it is no usual layout, or several at once.
    """
    layouts, left_out = _readings(folder)
    if not layouts:
        found = "".join(f"; {line}" for line in left_out)
        raise InputError(
            f"{folder}: is not recognised as a data set{found}; looked for {LOOKED_FOR}; or write a data config"
        )
    if len(layouts) > 1:
        titles = " or ".join(f"{layout.title} ({', '.join(layout.splits)})" for layout in layouts)
        raise InputError(f"{folder}: could be {titles}; write a data config that says which")
    ((title, kind, splits),) = layouts
    shown = "; ".join(f"{split}: {' + '.join(_parts(section))}" for split, section in splits.items())
    LOGGER.info("%s: recognised as %s: %s", folder, title, shown)
    for line in left_out if kind == "coco" else ():
        LOGGER.warning("%s", line)
    root = folder.resolve()
    return DataConfig(name=root.name or "data", root=str(root), splits=splits, format=kind)  # type: ignore[arg-type]


def has_layout(folder: Path) -> bool:
    """Tell whether a folder is laid out in a usual way."""
    return bool(_readings(folder)[0])


def _readings(folder: Path) -> tuple[list[_Layout], list[str]]:
    """The usual ways that a folder is laid out in, and what was left out of them."""
    coco = find_coco(folder)
    others = (_yolo(folder), _voc(folder), _visdrone(folder), _shards(folder))
    if not coco.splits and not any(layout.splits for layout in others):
        unnamed = find_unnamed_coco(folder)
        coco = CocoSplits(unnamed.splits, [*coco.left_out, *unnamed.left_out])
    layouts = (_Layout("COCO JSON", "coco", _sorted(coco.splits)), *others)
    return [layout for layout in layouts if layout.splits], coco.left_out


def _parts(section: SplitConfig) -> list[str]:
    return [part for part in (section.images, section.annotations, section.list) if part is not None]


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _sorted(splits: dict[str, SplitConfig]) -> dict[str, SplitConfig]:
    """In the order train, val, then the others."""
    return dict(sorted(splits.items(), key=lambda item: (item[0] != "train", item[0] != "val", item[0])))


def _yolo(folder: Path) -> _Layout:
    splits: dict[str, SplitConfig] = {}
    for path in _subfolders(folder):
        if (path / "images").is_dir() and (path / "labels").is_dir():
            splits[split_of(path.name) or path.name] = SplitConfig(f"{path.name}/images", f"{path.name}/labels")
    if not ((folder / "images").is_dir() and (folder / "labels").is_dir()):
        return _Layout("YOLO", "yolo", _sorted(splits or _side_by_side(folder, ".txt")))
    for path in _subfolders(folder / "images"):
        if (folder / "labels" / path.name).is_dir():
            splits[split_of(path.name) or path.name] = SplitConfig(f"images/{path.name}", f"labels/{path.name}")
    if not splits:
        lists = {split: path for path in sorted(folder.glob("*.txt")) if (split := split_of(path.stem)) is not None}
        splits = {split: SplitConfig("images", "labels", path.name) for split, path in lists.items()}
        splits = splits or {"train": SplitConfig("images", "labels")}
    return _Layout("YOLO", "yolo", _sorted(splits))


def _voc(folder: Path) -> _Layout:
    images, annotations, lists = "JPEGImages", "Annotations", "ImageSets/Main"
    if not ((folder / images).is_dir() and (folder / annotations).is_dir()):
        return _Layout("Pascal VOC", "voc", _voc_folders(folder) or _side_by_side(folder, ".xml"))
    splits: dict[str, SplitConfig] = {}
    for path in sorted((folder / lists).glob("*.txt")):
        split = _split_of_list(path.stem)
        if split is not None:
            splits.setdefault(split, SplitConfig(images, annotations, f"{lists}/{path.name}"))
    splits = {split: splits[split] for split in _VOC_SPLITS if split in splits}
    return _Layout("Pascal VOC", "voc", splits or {"train": SplitConfig(images, annotations)})


def _split_of_list(name: str) -> str | None:
    """The split of a list in ``ImageSets/Main``; CVAT calls it ``Train``, ``Validation`` or ``default``."""
    split = {"validation": "val", "valid": "val", "default": "train"}.get(name.lower(), name.lower())
    return split if split in _VOC_SPLITS else None


def _voc_folders(folder: Path) -> dict[str, SplitConfig]:
    """``images`` and ``annotations`` with XML files, in the folder or in one for each split."""
    splits: dict[str, SplitConfig] = {}
    for path in (folder, *_subfolders(folder)):
        inside = "" if path == folder else f"{path.name}/"
        for images, xmls in (("images", "annotations"), ("Images", "Annotations"), ("images", "xmls")):
            if (path / images).is_dir() and _has_suffix(path / xmls, ".xml"):
                splits[_split_name(path, folder)] = SplitConfig(f"{inside}{images}", f"{inside}{xmls}")
    return _sorted(splits)


def _side_by_side(folder: Path, suffix: str) -> dict[str, SplitConfig]:
    """Folders in which files of a suffix lie beside images of their names, as Roboflow and LabelImg write them."""
    splits: dict[str, SplitConfig] = {}
    for path in (folder, *_subfolders(folder)):
        names = list(path.iterdir()) if _has_suffix(path, suffix) else []
        stems = {name.stem for name in names if name.suffix.lower() == suffix}
        if any(name.stem in stems and is_image_name(name.name) for name in names):
            inside = "." if path == folder else path.name
            splits[_split_name(path, folder)] = SplitConfig(inside, inside if suffix == ".xml" else None)
    return _sorted(splits)


def _split_name(path: Path, folder: Path) -> str:
    """The split of a folder in the data set's; ``obj_train_data`` is how CVAT calls one."""
    name = path.name.lower().removeprefix("obj_").replace("validation", "valid")
    return "train" if path == folder else split_of(name) or path.name


def _has_suffix(folder: Path, suffix: str) -> bool:
    return folder.is_dir() and any(path.suffix.lower() == suffix for path in folder.iterdir())


def _visdrone(folder: Path) -> _Layout:
    splits: dict[str, SplitConfig] = {}
    for path in (folder, *_subfolders(folder)):
        if (path / "images").is_dir() and any((path / "annotations").glob("*.txt")):
            found = _VISDRONE_FOLDER.fullmatch(path.resolve().name)
            split = (split_of(found[1]) if found else None) or ("train" if path == folder else path.name)
            inside = "" if path == folder else f"{path.name}/"
            splits[split] = SplitConfig(f"{inside}images", f"{inside}annotations")
    return _Layout("VisDrone", "visdrone", _sorted(splits))


def _shards(folder: Path) -> _Layout:
    names = [found[1] for path in folder.glob("*.tar") if (found := _SHARD_FILE.fullmatch(path.name))]
    is_whole = (folder / DATASET_FILE).is_file()
    splits = {name: SplitConfig(f"{glob.escape(name)}-[0-9]*.tar") for name in names if is_whole}
    return _Layout("shards", "shards", _sorted(splits))
