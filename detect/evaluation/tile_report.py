"""What tiles change, as text for people."""

from __future__ import annotations

from detect.drawing.text import columns, pad, shorten
from detect.evaluation.coco import ABSENT, METRICS
from detect.evaluation.engine import Evaluation
from detect.evaluation.report import MAX_NAME, absent_line, number
from detect.evaluation.tiling import Tiling


def tiles_table(without: Evaluation, tiled: Evaluation, tiling: Tiling) -> str:
    """The twelve numbers, AP of each class that has objects and the time of an image, without and with tiles.

    Returns:
        Lines without a newline at the end.
    """
    both = [evaluation.metrics for evaluation in (without, tiled) if evaluation.metrics is not None]
    assert len(both) == 2, "an unlabelled split has no metrics"
    sizes = without.table.sizes_hw.tolist()
    views = sum(len(tiling.windows((height, width))) for height, width in sizes) / max(1, len(sizes))
    rows = [(name, [metrics[name] for metrics in both]) for name in METRICS]
    present = [name for name, row in both[0].per_class.items() if row["objects"]]
    classes = [(shorten(name, MAX_NAME), [m.per_class[name]["AP"] for m in both]) for name in present]
    times = [(part, (without.speed_ms[part], tiled.speed_ms[part])) for part in without.speed_ms]
    width = max([10, *(columns(name) for name, _ in classes)])

    lines = [f"tiles of {tiling.tile} px, overlap {tiling.overlap:g}; with the whole image {views:.1f} views per image"]
    lines += ["", f"  {pad('', width)}{'without':>9}{'with':>9}"]
    lines += [f"  {pad(name, width)}   {number(first)}   {number(second)}" for name, (first, second) in rows]
    lines += ["", "AP of each class"]
    lines += [f"  {pad(name, width)}   {number(first)}   {number(second)}" for name, (first, second) in classes]
    lines += absent_line(len(both[0].per_class) - len(present), "objects")
    lines += ["", "ms per image"]
    lines += [f"  {pad(part, width)}{first:9.1f}{second:9.1f}" for part, (first, second) in times]
    if any(ABSENT in values for _, values in rows + classes):
        lines += ["", "-1: there is no such object in the ground truth"]
    return "\n".join(lines)
