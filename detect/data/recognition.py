"""Open a data set by its name: a shipped data config, a YAML file in either style, or a folder.

The recognised format is logged in one line; an ambiguous data set is refused. Layouts of folders without a config:

=========  =============================================================================================
COCO       ``annotations/instances_<split>*.json`` (or in the folder itself), images in a folder of that name;
           ``<split>/_annotations.coco.json`` (Roboflow); one file for all images, ``result.json`` (Label Studio)
YOLO       ``images/<split>`` and ``labels/<split>``, ``<split>/images`` and ``<split>/labels``, or ``images``,
           ``labels`` and ``<split>.txt``, or images and txt files side by side, in ``<split>`` or in the folder
VOC        ``JPEGImages``, ``Annotations``, ``ImageSets/Main/<split>.txt``; or ``images`` and ``annotations``, or
           images and XML files side by side, each in ``<split>`` or in the folder itself
VisDrone   ``<split>/images`` and ``<split>/annotations``; ``VisDrone2019-DET-<split>`` is also a split
shards     ``dataset.json`` and ``<split>-000000.tar``, with any number
others     files of labelling tools, by their content: CVAT's XML, Label Studio's and VIA's JSON (and VIA's CSV) for all
           images or one in ``<split>``; labelme's JSON beside images; Supervisely's ``meta.json``, ``ann`` and ``img``
classes    ``<split>/<class>`` with images, for classification
=========  =============================================================================================
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from detect.config.data import DataConfig, SplitConfig, load_data_config
from detect.config.yaml_files import CONFIGS, find_config, load_yaml
from detect.data.annotations import Problems
from detect.data.checks import find_folder
from detect.data.classification.image_folders import find_image_folders
from detect.data.folders import is_image_name, walk_files
from detect.data.formats.annotation_files import read_lines
from detect.data.formats.coco import find_coco, find_unnamed_coco
from detect.data.formats.cvat import find_cvat, is_cvat
from detect.data.formats.label_studio import find_label_studio
from detect.data.formats.labelme import find_labelme
from detect.data.formats.layouts import json_tool, sorted_splits
from detect.data.formats.shards import find_shard_splits
from detect.data.formats.supervisely import ANNOTATIONS, find_supervisely
from detect.data.formats.via import find_via, is_via
from detect.data.formats.visdrone import find_visdrone
from detect.data.formats.voc import find_voc
from detect.data.formats.yolo import CLASSES_FILES, find_files, find_yolo
from detect.data.formats.yolo_rows import split_row
from detect.data.formats.yolo_yaml import DARKNET_SUFFIX, config_of_darknet_data, config_of_yolo_yaml, is_yolo_yaml
from detect.errors import InputError
from detect.runtime.logs import LOGGER

Format = Literal[
    "coco", "voc", "yolo", "visdrone", "shards", "cvat", "label-studio", "labelme", "via", "supervisely", "folders"
]
TITLES: dict[Format, str] = {
    "coco": "COCO JSON",
    "voc": "Pascal VOC",
    "yolo": "YOLO",
    "visdrone": "VisDrone",
    "shards": "shards",
    "cvat": "CVAT XML",
    "label-studio": "Label Studio JSON",
    "labelme": "labelme",
    "via": "VIA",
    "supervisely": "Supervisely",
    "folders": "class folders",
}
"""Title of each recognised format, for messages."""

CONFIG_FILES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml", "obj.data")
"""Configs inside a data set's folder, in order of precedence."""

LOOKED_FOR = (
    "data.yaml; obj.data; COCO's annotations/instances_*.json, <split>/_annotations.coco.json or one file for all; "
    "YOLO's images and labels; VOC's JPEGImages and Annotations; images with txt (YOLO) or XML files (VOC) beside "
    "them; VisDrone's <split>/images and <split>/annotations; dataset.json and <split>-000000.tar; files of CVAT, "
    "Label Studio, labelme, VIA and Supervisely; for classification <split>/<class>"
)
"""The layouts, for messages."""

_NUM_LISTED = 10_000  # files of a folder
_NUM_LINES = 20


def check_root(data: DataConfig) -> None:
    """Raise an ``InputError`` for a data set whose folder is missing, or is another one than it was generated into."""
    root = Path(data.root)
    if data.generate is not None:
        missing = [split.annotations for split in data.splits.values() if not (root / str(split.annotations)).is_file()]
        if root.exists() and missing:
            raise InputError(
                f"{data.name}: {root} is not this data set, which is generated (it has no {missing[0]}); leave "
                "--data-root out, or name a folder that does not exist yet"
            )
    elif data.format != "scenes" and not root.is_dir():
        raise InputError(f"{data.name}: there is no folder {data.root}; say with --data-root where the data set is")


def open_data(name: str, data_root: str | None = None) -> DataConfig:
    """Open a data set's configuration, with ``root`` as an absolute path, and with its format where its folder exists.

    Args:
        name: a shipped data config's name (which has precedence over a folder); a YAML file, of this toolkit or of YOLO
            tools (``path``, ``train``, ``val``, ``names``); Darknet's ``obj.data``; or the folder of a data set in a
            known layout.
        data_root: replaces the file's ``root``; relative to the current folder.

    Raises:
        InputError: it does not exist, is invalid, or is ambiguous.
    """
    is_shipped = Path(name).name == name and (CONFIGS / "data" / f"{name}.yaml").is_file()
    if is_shipped and Path(name).is_dir():
        LOGGER.warning("%s: the shipped data set of that name is taken; the folder here is ./%s", name, name)
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
    """Return the config with its format; a missing one is recognised from the files of the splits."""
    return config if config.format is not None else dataclasses.replace(config, format=_recognise_format(config)[0])


def _recognise_format(config: DataConfig) -> tuple[Format, str]:
    """Return the common format of the splits, and the reason for it."""
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
    inner = [] if _layouts(folder)[0] else [path for path in sorted(folder.iterdir()) if _is_data_set(path)]
    if len(inner) == 1:
        LOGGER.info("%s: the data set in its folder %s is taken", folder, inner[0].name)
        return _config_of_folder(inner[0])
    return recognise_layout(folder)


def _is_data_set(folder: Path) -> bool:
    """Tell whether a folder, such as the project's in an unpacked archive, holds a data set."""
    is_visible = folder.is_dir() and not folder.name.startswith((".", "__"))
    return is_visible and (any((folder / name).is_file() for name in CONFIG_FILES) or bool(_layouts(folder)[0]))


def _recognise(config: DataConfig, split: str) -> tuple[Format, str]:
    """Return the format of a split, and the reason for it."""
    section = config.splits[split]
    if section.images.endswith(".tar"):
        return "shards", f"{section.images} are tar files"
    if section.annotations is None:
        return _recognise_labels(config, split)
    path = Path(config.root, section.annotations)
    if path.suffix.lower() == ".json" or path.is_file():
        return _format_of_file(path, section.annotations)
    folder = find_folder(config, section.annotations)
    files = list(itertools.islice(walk_files(folder, folder, lambda _: None), _NUM_LISTED))
    suffixes = (".xml", ".txt", ".json")
    by_suffix = {suffix: [path for path in files if path.lower().endswith(suffix)] for suffix in suffixes}
    texts = [Path(path) for path in by_suffix[".txt"] if not _is_no_label(Path(path).name)]
    if by_suffix[".xml"] and texts:
        raise InputError(
            f"{folder}: has {len(by_suffix['.xml'])} XML and {len(texts)} txt files, so it could be Pascal VOC or "
            "YOLO; say which with format: voc or format: yolo"
        )
    if by_suffix[".xml"]:
        return "voc", f"{section.annotations} has XML files"
    jsons = [] if texts else [Path(path) for path in by_suffix[".json"]]
    if any(path.parent.name == ANNOTATIONS for path in jsons):
        return "supervisely", f"{section.annotations} has JSON files in a folder {ANNOTATIONS}"
    if any(json_tool(path) == "labelme" for path in jsons[:_NUM_LINES]):
        return "labelme", f"{section.annotations} has labelme's JSON files"
    if not texts:
        hint = "; for COCO name the JSON file itself" if jsons else ""
        raise InputError(f"{folder}: has neither XML (VOC) nor txt files (YOLO, VisDrone){hint}")
    return _format_of_texts(texts, section.annotations)


def _format_of_file(path: Path, shown: str) -> tuple[Format, str]:
    """Return the format of one file for all images, and the reason."""
    if path.is_file() and is_cvat(path):
        return "cvat", f"{shown} is CVAT's XML"
    if path.is_file() and is_via(path):
        return "via", f"{shown} is VIA's"
    if path.is_file() and json_tool(path) == "label-studio":
        return "label-studio", f"{shown} is Label Studio's JSON"
    if path.suffix.lower() == ".json" or _starts_like_json(path):
        return "coco", f"{shown} is JSON"
    raise InputError(
        f"{path}: is neither a JSON file (COCO) nor a folder of XML (VOC) or txt files (YOLO, VisDrone), nor "
        "a file of a labelling tool"
    )


def _is_no_label(name: str) -> bool:
    """Tell by its name whether a text file beside annotations is another file."""
    return name in CLASSES_FILES or name.upper().startswith("README")


def _recognise_labels(config: DataConfig, split: str) -> tuple[Format, str]:
    """Return YOLO, if the images have label files, and the reason."""
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
    """Return YOLO or VisDrone, by the first lines of the files, and the reason."""
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


# -------------------------------------------------------------------------------------------- layouts


def recognise_layout(folder: Path) -> DataConfig:
    """Make the data config of a folder in a known layout, and log what was recognised.

    Raises:
        InputError: the layout is unknown or ambiguous.
    """
    layouts, left_out = _layouts(folder)
    if not layouts:
        if not _has_images(folder):
            raise InputError(
                f"{folder}: there is no image in it; if the labels were exported without images, put these into a "
                "folder images, or beside the labels"
            )
        found = "".join(f"; {line}" for line in dict.fromkeys(left_out))
        raise InputError(
            f"{folder}: is not recognised as a data set{found}; looked for {LOOKED_FOR}; or write a data config"
        )
    if len(layouts) > 1:
        titles = " or ".join(f"{TITLES[kind]} ({', '.join(splits)})" for kind, splits in layouts.items())
        raise InputError(f"{folder}: could be {titles}; write a data config that says which")
    ((kind, splits),) = layouts.items()
    shown = "; ".join(f"{split}: {' + '.join(_paths_of(section))}" for split, section in splits.items())
    LOGGER.info("%s: recognised as %s: %s", folder, TITLES[kind], shown)
    for line in () if kind in ("yolo", "voc", "visdrone", "shards") else left_out:
        LOGGER.warning("%s", line)
    root = folder.resolve()
    return DataConfig(name=root.name or "data", root=str(root), splits=splits, format=kind)


def _has_images(folder: Path) -> bool:
    """Tell whether one of the first files of a folder is an image, or a tar file, which may hold some."""
    files = itertools.islice(walk_files(folder, folder, lambda _: None), _NUM_LISTED)
    return any(is_image_name(path) or path.lower().endswith(".tar") for path in files)


def _layouts(folder: Path) -> tuple[dict[Format, dict[str, SplitConfig]], list[str]]:
    """Return the splits of the folder by format, and a line for each file that is left out.

    Files of labelling tools count only where nothing else is: their users convert them and leave them where they are.
    """
    coco = find_coco(folder)
    layouts: dict[Format, dict[str, SplitConfig]] = {
        "coco": sorted_splits(coco.splits),
        "yolo": find_yolo(folder),
        "voc": find_voc(folder),
        "visdrone": find_visdrone(folder),
        "shards": find_shard_splits(folder),
    }
    left_out = coco.left_out
    if not any(layouts.values()):
        finders = {"coco": find_unnamed_coco, "cvat": find_cvat, "label-studio": find_label_studio, "via": find_via}
        found = {kind: find(folder) for kind, find in finders.items()}
        layouts = {kind: sorted_splits(one.splits) for kind, one in found.items()}  # type: ignore[misc]
        layouts |= {"labelme": find_labelme(folder), "supervisely": find_supervisely(folder)}
        left_out = [*left_out, *(line for one in found.values() for line in one.left_out)]
    if not any(layouts.values()):
        layouts = {"folders": find_image_folders(folder)}
    return {kind: splits for kind, splits in layouts.items() if splits}, left_out


def _paths_of(section: SplitConfig) -> list[str]:
    return [part for part in (section.images, section.annotations, section.list, *section.parts) if part is not None]
