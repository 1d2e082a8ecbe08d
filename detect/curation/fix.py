"""Write a mended copy of a data set: only mends that are certain, each counted; everything else is left to decide.

Certain are: boxes are clipped to their image; boxes without area, of less than a pixel or wholly outside are left out,
as are repeated boxes, damaged entries and images that cannot be decoded; ids, sizes and areas that are wrong are
written anew; a category that only groups others goes.

Letters: N images, M boxes.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detect.boxes.convert import box_sizes, xyxy_to_xywh
from detect.config.data import DataConfig
from detect.curation.check.kinds import CORNERS, NORMALISED, REFUSED, UNDECODABLE
from detect.curation.check.pixels import find_undecodable
from detect.curation.check.run import CheckReport, Finding, check_data
from detect.curation.convert import FORMATS, Conversion, Images, convert
from detect.data.annotations import AnnotationTable, offsets_of
from detect.data.formats.writing import CONFIG
from detect.data.recognition import open_data
from detect.drawing.text import pad, shorten
from detect.errors import InputError

MIN_SIDE_PX = 1.0
"""Smaller boxes are left out."""

_UNCERTAIN = (REFUSED, CORNERS, NORMALISED)
"""Problems with which no box of a split can be trusted."""


@dataclass(frozen=True)
class Mending:
    """Options of a mended copy.

    Args:
        out: the new folder.
        images: copied, linked (hard links), or left in place.
        workers: processes that decode images.
    """

    out: Path
    images: Images = "copy"
    workers: int = 2


def fix_data(config: DataConfig, options: Mending) -> list[str]:
    """Write a mended copy of a data set in its own format, or COCO's for a labelling tool's, and return the report.

    The report has a table of all problems before and after. The original is only read, and the new folder appears when
    it is complete.

    Raises:
        InputError: a split cannot be read, or its boxes are in doubt as a whole; or the folder is not empty.
    """
    before = check_data(config, list(config.splits), decode=True, workers=options.workers)
    for finding in before.findings:
        if finding.kind in _UNCERTAIN:
            found = f"{finding.count} {finding.kind}: {'; '.join(finding.examples[:1])}"
            raise InputError(f"{config.name} {finding.split}: cannot be mended for certain: {found}")
    to = config.format if config.format in FORMATS and config.format != "shards" else "coco"
    is_decoded = {finding.split for finding in before.findings if finding.kind == UNDECODABLE}

    def change(table: AnnotationTable, split: str) -> AnnotationTable:
        if split in is_decoded:
            images = [table.stored(row) for row in range(len(table))]
            table = table.select(~find_undecodable(images, options.workers, table.read_settings))
        return mended(table)

    lines = convert(config, Conversion(to, options.out, options.images, command="fix"), change)
    copy = open_data(str(options.out / CONFIG))
    after = check_data(copy, list(copy.splits), decode=True, workers=options.workers)
    return [*lines, "", *_report(before, after)]


def mended(table: AnnotationTable) -> AnnotationTable:
    """Return the table with boxes clipped to their images, without those that are then too small and repeats."""
    rows = table.image_of_box
    limits_xyxy = np.tile(table.sizes_hw[rows][:, ::-1], 2)
    clipped = np.clip(table.boxes_xyxy_px, 0, limits_xyxy)
    is_changed = (clipped != table.boxes_xyxy_px).any(axis=1)
    xywh = np.where(is_changed[:, None], xyxy_to_xywh(clipped), table.exact_xywh_px)
    keep = (box_sizes(clipped) >= MIN_SIDE_PX).all(axis=1)
    keys = np.column_stack([rows, table.labels, xywh])
    is_first = np.zeros(len(rows), bool)
    is_first[np.unique(keys, axis=0, return_index=True)[1]] = True
    keep &= is_first
    return dataclasses.replace(
        table,
        box_offsets=offsets_of(np.bincount(rows[keep], minlength=len(table))),
        boxes_xyxy_px=clipped[keep],
        labels=table.labels[keep],
        is_crowd=table.is_crowd[keep],
        areas=np.where(is_changed, np.minimum(table.areas, xywh[:, 2:].prod(axis=1)), table.areas)[keep],
        boxes_xywh_px=None if table.boxes_xywh_px is None else xywh[keep],
        marks={name: values[keep] for name, values in table.marks.items()},
        attributes=None if table.attributes is None else table.attributes[keep],
        positions=None if table.positions is None else table.positions[keep],
    )


# ------------------------------------------------------------------------------------------------ report


def _report(before: CheckReport, after: CheckReport) -> list[str]:
    """Return the table of all problems, and what is left to decide."""
    counts_after = {(one.split, one.kind): one.count for one in after.findings}
    found = [one for one in before.findings if one.severity != "note" or (one.split, one.kind) not in counts_after]
    lines = [f"{pad('split', 8)}{'before':>8}{'after':>8}  problem"]
    for one in found:
        numbers = f"{one.count:>8,}{counts_after.get((one.split, one.kind), 0):>8,}"
        lines.append(f"{pad(shorten(one.split, 7), 8)}{numbers}  {one.kind.partition(' (')[0]}")
    left = [one for one in after.findings if one.severity != "note"]
    if not found:
        lines = ["nothing to mend"]
    if left:
        return [*lines, "", "left to decide, because no mend is certain:", *map(_left_line, left)]
    return [*lines, "", "detect data check finds nothing more in the copy"]


def _left_line(finding: Finding) -> str:
    mend = f": {finding.mend}" if finding.mend else ""
    examples = "; ".join(finding.examples[:2])
    return f"  {finding.split}: {finding.count:,} {finding.kind.partition(' (')[0]} ({examples}){mend}"
