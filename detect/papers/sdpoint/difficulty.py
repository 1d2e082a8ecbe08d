"""Images of a classification split by the least cost at which an instance gets them right (SDPoint, Figure 5).

Letters: N images.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from detect.data.classification.geometry import center_crop
from detect.data.classification.table import ClassTable
from detect.data.images import ImageError, write_image
from detect.drawing.sheets import Panel, heading, panel_sheet, sheet_width
from detect.evaluation.class_pictures import spread
from detect.papers.sdpoint.comparison import Comparison
from detect.papers.sdpoint.instances import InstanceRecord

GROUPS, COLUMNS = 4, 8
"""Maximum number of costs, and of images of each."""


def least_costs(comparison: Comparison) -> list[tuple[InstanceRecord, np.ndarray]]:
    """Group the images that the best network has right.

    Returns:
        Instances of the Pareto front, cheapest first, at most ``GROUPS`` and the best one among them; of each the rows
        that it has right and no cheaper one of them has.
    """
    front = comparison.front
    places = np.unique(np.linspace(0, len(front) - 1, GROUPS).round().astype(int)).tolist()
    chosen = [front[place] for place in places]
    is_open = comparison.is_right[chosen[-1].instance].copy()  # the paper groups what the full network gets right
    groups = []
    for record in chosen:
        is_right = is_open & comparison.is_right[record.instance]
        groups.append((record, np.flatnonzero(is_right)))
        is_open &= ~is_right
    return groups


def draw_least_costs(path: Path, comparison: Comparison, table: ClassTable, crop: float) -> None:
    """Draw a row of images for each group of ``least_costs``, evenly spaced over the split, with their classes.

    Args:
        path: the image file.
        comparison: of a classifier.
        table: the split.
        crop: share of an image's short side that the network sees.
    """
    parts = []
    for record, rows in least_costs(comparison):
        share = record.macs / comparison.full_macs
        text = f"{record.instance.name}, {share:.2f} of the full cost: {len(rows)} images"
        parts.append(heading(text, sheet_width(COLUMNS)))
        shown = spread(rows, COLUMNS).tolist()
        panels = [panel for row in shown if (panel := _panel(table, row, crop)) is not None]
        if panels:
            parts.append(panel_sheet(panels, COLUMNS))
    write_image(path, np.concatenate(parts))


def _panel(table: ClassTable, row: int, crop: float) -> Panel | None:
    """Draw what the network sees of an image; None if it cannot be read any more."""
    try:
        image = table.read(row)
    except ImageError:
        return None
    return Panel(center_crop(image, min(image.shape[:2]), crop), table.names[table.labels[row]])
