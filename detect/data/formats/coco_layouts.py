"""COCO files in a folder without a config, as the tools lay them out that write them.

COCO itself and CVAT name a file after its split, ``annotations/instances_Train.json``; Roboflow puts
``_annotations.coco.json`` beside the images of each split; Label Studio (``result.json``), FiftyOne (``labels.json``)
and others write one file for all images.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from detect.config.data import SplitConfig
from detect.data.formats.split_names import split_of
from detect.data.walking import is_image_name

ROBOFLOW_FILE = "_annotations.coco.json"

_COCO_FILE = re.compile(r"(?:(instances|image_info)_)?(.+)", re.IGNORECASE)
_WHOLE = "default"  # CVAT's name of the subset where there are none
_FOLDERS = ("images", "data", "jpegimages", "image", "imgs", "img")
_LOOKED_AT = 2**16  # bytes at either end of a file


class CocoSplits(NamedTuple):
    """The COCO files of a folder.

    Args:
        splits: those whose images were found.
        left_out: a line for each other one, with the reason.
    """

    splits: dict[str, SplitConfig]
    left_out: list[str]


def find_coco(folder: Path) -> CocoSplits:
    """The COCO files that are called after their splits, or are Roboflow's."""
    found = CocoSplits({}, [])
    for path in _json_files(folder / "annotations", folder):
        match = _COCO_FILE.fullmatch(path.stem)
        name = match[2] if match else ""
        split = split_of(name) or ("train" if name.lower() == _WHOLE else name if match and match[1] else None)
        if split is not None and path.name != ROBOFLOW_FILE:
            _add(found, folder, split, path, _image_folder(folder, name, split))
    if not found.splits:
        for path in _subfolders(folder):
            if (path / ROBOFLOW_FILE).is_file():
                _add(found, folder, split_of(path.name) or path.name, path / ROBOFLOW_FILE, path.name)
    return found


def find_unnamed_coco(folder: Path) -> CocoSplits:
    """The one COCO file of each split's folder or, for all images, of the folder; told by what is in it."""
    found = CocoSplits({}, [])
    for path in _subfolders(folder):
        split = split_of(path.name)
        files = [file for file in _json_files(path) if _looks_like_coco(file)] if split else []
        if split and len(files) == 1:
            inside = _image_folder(path, split, split) or "."
            _add(found, folder, split, files[0], f"{path.name}/{inside}" if inside != "." else path.name)
    if found.splits:
        return found
    files = [file for file in _json_files(folder / "annotations", folder) if _looks_like_coco(file)]
    if len(files) == 1:
        _add(found, folder, "train", files[0], _image_folder(folder, files[0].stem, "train"))
    elif files:
        names = ", ".join(file.relative_to(folder).as_posix() for file in files[:3])
        found.left_out.append(
            f"{folder}: has {len(files)} COCO files ({names}); name the split of each in a data config"
        )
    return found


def _add(found: CocoSplits, folder: Path, split: str, path: Path, images: str | None) -> None:
    file = path.relative_to(folder).as_posix()
    if split in found.splits:
        found.left_out.append(f"{path}: left out: the split {split} has {found.splits[split].annotations} already")
    elif images is None:
        found.left_out.append(
            f"{path}: left out: there is no folder of its images ({path.stem}, {split}, images/{split} or images)"
        )
    else:
        found.splits[split] = SplitConfig(images, file)


def _image_folder(folder: Path, name: str, split: str) -> str | None:
    """The folder of a split's images, relative to the data set's; ``.`` for this itself.

    Args:
        folder: the data set's.
        name: of the annotation file without prefix and suffix.
        split: its split.
    """
    folders = [path for top in (folder, folder / "images") for path in _subfolders(top)]
    by_name = {path.relative_to(folder).as_posix().lower(): path for path in reversed(folders)}
    wanted = [*(f"{inside}{one}".lower() for one in (name, split) for inside in ("", "images/"))]
    of_split = [path for path in folders if split_of(path.name) == split and _has_images(path)]
    usual = [by_name[one] for one in _FOLDERS if one in by_name]
    for path in [*(by_name[one] for one in wanted if one in by_name), *of_split, *usual]:
        return path.relative_to(folder).as_posix()
    return "." if _has_images(folder) else None


def _json_files(*folders: Path) -> Iterator[Path]:
    for folder in folders:
        if folder.is_dir():
            yield from sorted(path for path in folder.iterdir() if path.suffix.lower() == ".json" and path.is_file())


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _has_images(folder: Path) -> bool:
    return any(is_image_name(path.name) for path in folder.iterdir())


def _looks_like_coco(path: Path) -> bool:
    """Tell whether a file has keys of COCO at its ends; it may be too large to be read twice."""
    try:
        with path.open("rb") as file:
            content = file.read(_LOOKED_AT)
            file.seek(max(len(content), path.stat().st_size - _LOOKED_AT))
            content += file.read(_LOOKED_AT)
    except OSError:
        return False
    content = content.replace(b"\0", b"")  # of UTF-16
    has_images = b'"images"' in content or b'"file_name"' in content
    return has_images and any(key in content for key in (b'"categories"', b'"category_id"', b'"annotations"'))
