"""A data set in another format: COCO JSON, YOLO txt, Pascal VOC XML, VisDrone txt, shards.

Everything is written into a folder beside, which takes its place when it is complete. What a format cannot hold is
counted and told.

Letters: N images, K classes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from detect.config.data import DataConfig, SplitConfig
from detect.curation.coco_files import write_coco
from detect.curation.image_transfer import transfer_images
from detect.curation.names import check_safe, relative_names, safe_classes, safe_names, split_folder
from detect.curation.new_config import CONFIG, write_data_config
from detect.curation.remains import count_remains
from detect.curation.shards import report_renamed, write_shards
from detect.curation.target import Target
from detect.curation.visdrone_files import visdrone_names, write_visdrone
from detect.curation.voc_files import write_voc
from detect.curation.yolo_files import write_yolo, write_yolo_yaml
from detect.data.annotations import AnnotationTable, Problems
from detect.data.checks import check_split
from detect.data.datasets import open_split
from detect.data.recognition import TITLES, Format
from detect.errors import InputError
from detect.runtime.files import atomic_folder

FORMATS: tuple[Format, ...] = ("coco", "yolo", "voc", "visdrone", "shards")
_AS_IN_COCO = ("coco", "shards")
"""Formats that hold any class name, and splits without annotations."""
"""What can be written."""

Images = Literal["copy", "link", "none"]


@dataclass(frozen=True)
class Conversion:
    """What is wanted.

    Args:
        to: the format.
        out: the new folder.
        images: copied, linked (hard links), or left where they are.
        splits: those that are converted; default, all.
        strict: refuse damaged images and boxes instead of leaving them out.
    """

    to: Format
    out: Path
    images: Images = "copy"
    splits: tuple[str, ...] = ()
    strict: bool = False


def convert(config: DataConfig, wanted: Conversion) -> list[str]:
    """Write a data set in another format, with its data config.

    Args:
        config: the data set.
        wanted: what becomes of it.

    Returns:
        The report, line by line.

    Raises:
        InputError: the data cannot be read or written so, or the folder has something in it.
    """
    splits = wanted.splits or tuple(config.splits)
    for split in splits:
        check_split(config, split)
        split_folder(split)
    if wanted.to == "shards" and wanted.images != "copy":
        raise InputError(f"--images {wanted.images}: shards hold copies of the images; use --images copy")
    with atomic_folder(wanted.out) as folder:
        tables = {split: open_split(config, split, wanted.strict) for split in splits}
        report = [f"{config.name}: {TITLES[config.format]} to {TITLES[wanted.to]} in {wanted.out}"]  # type: ignore[index]
        for split in [one for one in splits if not tables[one].is_labelled and wanted.to not in _AS_IN_COCO]:
            number, title = len(tables.pop(split)), TITLES[wanted.to]
            report.append(f"{split}: left out: its {number} images have no annotations, which {title} cannot say")
        if not tables:
            raise InputError(f"{config.name}: no split has annotations, so there is nothing to convert")
        changes = Problems()
        names = _names(tables, wanted.to, changes)
        report += [f"  changed: {line}" for line in changes.summary()]
        targets = _targets(config, tables, wanted, names)
        sections = {}
        if wanted.to == "shards":
            sections = {split: SplitConfig(images) for split, images in write_shards(tables, folder).items()}
        for target in targets:
            if wanted.to == "shards":
                report_renamed(target.table, target.image_names, target.losses)
            else:
                sections[target.split] = _write(target, folder, wanted, targets)
            report += _report(target, sections[target.split], wanted.to)
        _write_configs(folder, config, wanted, sections, names)
    return [*report, f"data config: {wanted.out / CONFIG}"]


# -------------------------------------------------------------------------------------------------- names


def _names(tables: dict[str, AnnotationTable], to: Format, changes: Problems) -> tuple[str, ...]:
    """Class names as the format writes them; ``changes`` gets those that are others."""
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
    config: DataConfig, tables: dict[str, AnnotationTable], wanted: Conversion, names: tuple[str, ...]
) -> list[Target]:
    targets = []
    for split, table in tables.items():
        source = Path(os.path.normpath(Path(config.root, config.splits[split].images)))
        images, losses, stays = str(source), Problems(), wanted.images == "none"
        image_names = relative_names(table, source)
        if stays:
            outside = [row for row, name in enumerate(image_names) if not (source / name).is_file()]
            if outside:
                raise InputError(f"{table.path(outside[0])}: is not in {source}; use --images copy")
            if wanted.to != "coco":
                check_safe(image_names, "use --images copy, which can change them")
        else:
            images = _images_folder(split, wanted.to)
            if wanted.to not in _AS_IN_COCO:
                image_names = safe_names(image_names, wanted.to == "visdrone", losses)
        targets.append(Target(config, split, table, images, image_names, names, stays, losses))
    return targets


def _images_folder(split: str, to: Format) -> str:
    """Where the images of a split lie in the new data set, as its format's own layout has it."""
    return {"coco": split, "shards": "", "yolo": f"images/{split}", "voc": "JPEGImages", "visdrone": f"{split}/images"}[
        to
    ]


# -------------------------------------------------------------------------------------------------- files


def _write(target: Target, folder: Path, wanted: Conversion, targets: Sequence[Target]) -> SplitConfig:
    """Write the files of a split."""
    own_folder = wanted.to == "voc" and _share_names(targets)
    if own_folder and not target.stays:
        target = Target(**{**vars(target), "images": f"{target.images}/{target.split}"})
    if not target.stays:
        transfer_images(target.table, target.image_names, folder / target.images, wanted.images == "link")
    if wanted.to == "coco":
        return write_coco(target, folder)
    if wanted.to == "yolo":
        return write_yolo(target, folder)
    if wanted.to == "voc":
        return write_voc(target, folder, own_folder)
    return write_visdrone(target, folder)


def _share_names(targets: Sequence[Target]) -> bool:
    """Whether an image of one split is called like one of another."""
    stems = [Path(name).with_suffix("").as_posix().casefold() for target in targets for name in target.image_names]
    return len(set(stems)) < len(stems)


def _write_configs(
    folder: Path, config: DataConfig, wanted: Conversion, sections: dict[str, SplitConfig], names: tuple[str, ...]
) -> None:
    written: tuple[str, ...] | None = names
    if wanted.to == "visdrone":
        written = visdrone_names(names)
    elif wanted.to in _AS_IN_COCO and config.names is None:
        written = None
    write_data_config(folder, config, "convert", wanted.to, sections, written)
    if wanted.to == "yolo" and wanted.images != "none":
        write_yolo_yaml(folder, sections, names)


# ------------------------------------------------------------------------------------------------- report


def _report(target: Target, section: SplitConfig, to: Format) -> list[str]:
    """What was written of a split, what was not, and what is different."""
    table = target.table
    background = int((table.box_offsets[1:] == table.box_offsets[:-1]).sum())
    num_crowds = int(table.is_crowd.sum())
    lines = [
        f"{target.split}: {len(table)} images ({background} without boxes), {len(table.labels) - num_crowds} boxes, "
        f"{num_crowds} crowd regions -> {section.annotations or section.images}"
    ]
    lines += [f"  skipped or changed while reading: {line}" for line in table.problems.summary()]
    remains = count_remains(target.config, target.split, target.table, to)
    if remains:
        lines.append(f"  not kept: {', '.join(f'{count} {words}' for words, count in remains.items())}")
    return lines + [f"  changed or left out: {line}" for line in target.losses.summary()]
