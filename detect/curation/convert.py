"""Convert a data set to another format: COCO JSON, YOLO txt, Pascal VOC XML, VisDrone txt, shards.

Everything is written into a temporary folder, which is renamed when it is complete. Data that a format cannot hold is
counted and reported.

Letters: N images, M boxes, K classes.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np

from detect.config.data import DataConfig, SplitConfig
from detect.data.annotations import MARKS, AnnotationTable, Problems
from detect.data.checks import check_split, find_file
from detect.data.datasets import open_split
from detect.data.formats.annotation_files import list_files
from detect.data.formats.coco_annotations import id_key
from detect.data.formats.coco_json import load_coco
from detect.data.formats.coco_writing import write_coco
from detect.data.formats.shards import report_renamed, write_shards
from detect.data.formats.visdrone import visdrone_names, write_visdrone
from detect.data.formats.voc import read_xml, write_voc
from detect.data.formats.writing import (
    CONFIG,
    Target,
    check_safe,
    relative_names,
    safe_classes,
    safe_names,
    split_folder,
    write_data_config,
)
from detect.data.formats.yolo import write_yolo, write_yolo_yaml
from detect.data.recognition import TITLES, Format
from detect.errors import InputError
from detect.runtime.files import atomic_folder
from detect.runtime.progress import progress_bar

FORMATS: tuple[Format, ...] = ("coco", "yolo", "voc", "visdrone", "shards")
"""Formats that can be written."""

_AS_IN_COCO = ("coco", "shards")
"""Formats that hold any class name, and splits without annotations."""

OWN_AREA = "areas of their own (of outlines; they become width * height)"
UNWANTED = "annotations of categories that the data config does not list in names (left out)"

_POLYGONS = "outlines (segmentation: polygons)"
_MASKS = "outlines (segmentation: run-length masks)"
_ANNOTATION_KEYS = {"id", "image_id", "category_id", "bbox", "area", "iscrowd", "ignore", *MARKS}
_IMAGE_KEYS = {"id", "file_name", "height", "width"}
_LISTS = {"images", "annotations", "categories"}
_OBJECT_TAGS = {"name", "bndbox", "difficult", *MARKS}
_FILE_TAGS = {"filename", "size", "object", "folder", "path"}  # the last two are the file's former place
_EMPTY_TEXTS = {"", "0", "Unspecified", "Unknown"}

Images = Literal["copy", "link", "none"]


@dataclass(frozen=True)
class Conversion:
    """Options of a conversion.

    Args:
        to: the format.
        out: the new folder.
        images: copied, linked (hard links), or left in place.
        splits: to convert; default, all.
        strict: refuse damaged images and boxes instead of skipping them.
        command: of ``detect data``, for the comment in the data config.
    """

    to: Format
    out: Path
    images: Images = "copy"
    splits: tuple[str, ...] = ()
    strict: bool = False
    command: str = "convert"


def convert(
    config: DataConfig,
    options: Conversion,
    change: Callable[[AnnotationTable, str], AnnotationTable] = lambda table, split: table,
) -> list[str]:
    """Write a data set in another format, with its data config, and return the lines of the report.

    ``change`` gets each split's table and name, and returns the table to write.

    Raises:
        InputError: the data cannot be read or written in the format, or the folder is not empty.
    """
    splits = options.splits or tuple(config.splits)
    for split in splits:
        check_split(config, split)
        split_folder(split)
    if options.to == "shards" and options.images != "copy":
        raise InputError(f"--images {options.images}: shards hold copies of the images; use --images copy")
    with atomic_folder(options.out) as folder:
        tables = {split: change(open_split(config, split, options.strict), split) for split in splits}
        report = [f"{config.name}: {TITLES[config.format]} to {TITLES[options.to]} in {options.out}"]  # type: ignore[index]
        for split in [one for one in splits if not tables[one].is_labelled and options.to not in _AS_IN_COCO]:
            number, title = len(tables.pop(split)), TITLES[options.to]
            report.append(f"{split}: left out: its {number} images have no annotations, which {title} cannot say")
        if not tables:
            raise InputError(f"{config.name}: no split has annotations, so there is nothing to convert")
        changes = Problems()
        names = _names(tables, options.to, changes)
        report += [f"  changed: {line}" for line in changes.summary()]
        targets = _targets(config, tables, options, names)
        sections = {}
        if options.to == "shards":
            sections = {split: SplitConfig(images) for split, images in write_shards(tables, folder).items()}
        for target in targets:
            if options.to == "shards":
                report_renamed(target.table, target.image_names, target.losses)
            else:
                sections[target.split] = _write(target, folder, options, targets)
            report += _report(target, sections[target.split], options.to)
        _write_configs(folder, config, options, sections, names)
    return [*report, f"data config: {options.out / CONFIG}"]


# -------------------------------------------------------------------------------------------------- names


def _names(tables: dict[str, AnnotationTable], to: Format, changes: Problems) -> tuple[str, ...]:
    """Return class names that the format can hold; ``changes`` gets the changed ones."""
    (first, names), *others = ((split, table.names) for split, table in tables.items())
    for split, other in others:
        if other != names:
            differing = ", ".join(map(repr, sorted({*names} ^ {*other})[:3])) or "in another order"
            raise InputError(
                f"splits {first} and {split} have different classes ({differing}); "
                "list the same ones under names in the data config, or convert them one by one with --split"
            )
    return names if to in (*_AS_IN_COCO, "visdrone") else safe_classes(names, changes)


def _targets(
    config: DataConfig, tables: dict[str, AnnotationTable], options: Conversion, names: tuple[str, ...]
) -> list[Target]:
    targets = []
    for split, table in tables.items():
        source = Path(os.path.normpath(Path(config.root, config.splits[split].images)))
        images, losses, stays = str(source), Problems(), options.images == "none"
        image_names = relative_names(table, source)
        if stays:
            outside = [row for row, name in enumerate(image_names) if not (source / name).is_file()]
            if outside:
                raise InputError(f"{table.path(outside[0])}: is not in {source}; use --images copy")
            if options.to != "coco":
                check_safe(image_names, "use --images copy, which can change them")
        else:
            images = _images_folder(split, options.to)
            if options.to not in _AS_IN_COCO:
                image_names = safe_names(image_names, options.to == "visdrone", losses)
        targets.append(Target(config, split, table, images, image_names, names, stays, losses))
    return targets


def _images_folder(split: str, to: Format) -> str:
    """Return the folder of a split's images in the usual layout of the format."""
    return {"coco": split, "shards": "", "yolo": f"images/{split}", "voc": "JPEGImages", "visdrone": f"{split}/images"}[
        to
    ]


# -------------------------------------------------------------------------------------------------- files


def _write(target: Target, folder: Path, options: Conversion, targets: Sequence[Target]) -> SplitConfig:
    own_folder = options.to == "voc" and _share_names(targets)
    if own_folder and not target.stays:
        target = replace(target, images=f"{target.images}/{target.split}")
    if not target.stays:
        transfer_images(target.table, target.image_names, folder / target.images, options.images == "link")
    if options.to == "coco":
        return write_coco(target, folder)
    if options.to == "yolo":
        return write_yolo(target, folder)
    if options.to == "voc":
        return write_voc(target, folder, own_folder)
    return write_visdrone(target, folder)


def _share_names(targets: Sequence[Target]) -> bool:
    """Tell whether two splits have images of the same name."""
    stems = [Path(name).with_suffix("").as_posix().casefold() for target in targets for name in target.image_names]
    return len(set(stems)) < len(stems)


def _write_configs(
    folder: Path, config: DataConfig, options: Conversion, sections: dict[str, SplitConfig], names: tuple[str, ...]
) -> None:
    written: tuple[str, ...] | None = names
    if options.to == "visdrone":
        written = visdrone_names(names)
    elif options.to in _AS_IN_COCO and config.names is None:
        written = None
    write_data_config(folder, config, options.command, options.to, sections, written)
    if options.to == "yolo" and options.images != "none":
        write_yolo_yaml(folder, sections, names)


# ------------------------------------------------------------------------------------------------- report


def _report(target: Target, section: SplitConfig, to: Format) -> list[str]:
    """Return the lines of a split: its size, losses and changes."""
    table = target.table
    background = int((table.box_offsets[1:] == table.box_offsets[:-1]).sum())
    num_crowds = int(table.is_crowd.sum())
    lines = [
        f"{target.split}: {len(table)} images ({background} without boxes), {len(table.labels) - num_crowds} boxes, "
        f"{num_crowds} crowd regions -> {section.annotations or section.images}"
    ]
    lines += [f"  skipped or changed while reading: {line}" for line in table.problems.summary()]
    losses = count_losses(target.config, target.split, target.table, to)
    if losses:
        lines.append(f"  not kept: {', '.join(f'{count} {kind}' for kind, count in losses.items())}")
    return lines + [f"  changed or left out: {line}" for line in target.losses.summary()]


# ------------------------------------------------------------------------------------------------- images


def transfer_images(table: AnnotationTable, names: Sequence[str], folder: Path, link: bool) -> None:
    """Copy or link all images of a split into a folder.

    Args:
        table: the split.
        names: N paths relative to the folder, with ``/``.
        folder: the new one.
        link: make hard links instead of copies: they use no space, but share their content.

    Raises:
        InputError: a link cannot be made, as between disks.
    """
    if link and table.shards is not None:
        raise InputError("images in shards cannot be linked: use --images copy")
    done: set[str] = set()
    for row, name in enumerate(progress_bar(names, folder.name, unit=" images", is_shown=len(names) > 1000)):
        if name in done:  # several entries of a COCO file share an image
            continue
        done.add(name)
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if table.shards is not None:
            target.write_bytes(table.read_bytes(row))
        elif link:
            _link(table.path(row), target)
        else:
            _copy(table.path(row), target)


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        error.filename = str(target)  # not the source, whose header could be read
        raise


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError as error:
        raise InputError(
            f"{source}: cannot be linked: {error.strerror or error}; links need one disk: use --images copy or none"
        ) from None


# ------------------------------------------------------------------------------------------------- losses


def count_losses(config: DataConfig, split: str, table: AnnotationTable, to: str) -> dict[str, int]:
    """Count the data of a split that the format ``to`` cannot hold, by its description.

    Neither losses that the writers report themselves are counted, nor damaged data, which is in the table's
    ``problems``.
    """
    counts: Counter[str] = Counter()
    if config.format == "coco":
        counts.update(_of_coco(config, split, table, keeps_all=to == "coco"))
    elif config.format == "voc":
        counts.update(_of_voc(config, split))
    if to != "coco" and table.attributes is not None:
        counts["attributes of boxes"] = int((table.attributes != "").sum())
    if to == "shards":
        counts["annotation ids"] = len(table.labels) if config.format == "coco" else 0
    elif to != "coco":
        counts.update(_of_table(table, config.format in ("coco", "shards")))
    return {kind: count for kind, count in counts.items() if count}


def _of_table(table: AnnotationTable, is_coco: bool) -> dict[str, int]:
    areas = table.exact_xywh_px[:, 2:].prod(axis=1)
    counts = {OWN_AREA: int((~np.isclose(table.areas, areas, rtol=1e-6, atol=0)).sum())}
    if is_coco:
        counts |= {"image ids": len(table), "category ids": len(table.names), "annotation ids": len(table.labels)}
    return counts


def _of_coco(config: DataConfig, split: str, table: AnnotationTable, keeps_all: bool) -> Counter[str]:
    outlines: Counter[str] = Counter()

    def without_outline(item: dict[str, Any]) -> dict[str, Any]:
        segmentation = item.pop("segmentation", None)
        if segmentation:
            outlines[_MASKS if isinstance(segmentation, dict) else _POLYGONS] += 1
        return item

    content = load_coco(find_file(config, config.splits[split].annotations or ""), hook=without_outline)
    annotations = [entry for entry in content.get("annotations", []) if isinstance(entry, dict)]
    unwanted = {str(id_key(one["id"])) for one in content["categories"]} - {*map(str, table.category_ids_of_file)}
    counts = Counter({UNWANTED: sum(str(id_key(one.get("category_id"))) in unwanted for one in annotations)})
    if keeps_all:
        return counts
    counts += outlines
    counts.update(f"{key!r} of annotations" for one in annotations for key in one if key not in _ANNOTATION_KEYS)
    images = [entry for entry in content["images"] if isinstance(entry, dict)]
    counts.update(f"{key!r} of images" for one in images for key in one if key not in _IMAGE_KEYS)
    counts.update(f"{key!r} of categories" for one in content["categories"] for key in one if key not in ("id", "name"))
    counts.update(f"{key!r} of the file" for key in content if key not in _LISTS)
    return counts


def _of_voc(config: DataConfig, split: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    folder = Path(config.root, config.splits[split].annotations or "").resolve()
    for path in list_files(config, split, folder, ".xml", Problems()).values():
        try:
            root = read_xml(path)
        except InputError:  # was reported when the split was read
            continue
        counts.update(f"<{tag}> of objects" for item in root.iterfind("object") for tag in _tags(item, _OBJECT_TAGS))
        counts.update(f"<{tag}> of images" for tag in _tags(root, _FILE_TAGS))
    return counts


def _tags(element: ElementTree.Element, known: set[str]) -> Iterator[str]:
    """Yield the tags of other children with a meaningful text."""
    for child in element:
        texts = {(text or "").strip() for text in child.itertext()}
        if child.tag not in known and not texts <= _EMPTY_TEXTS:
            yield str(child.tag)[:40]
