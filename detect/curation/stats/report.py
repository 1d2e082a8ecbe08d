"""Report a data set's statistics and the advice as text, and draw them on one sheet.

matplotlib is imported on use, and without ``pyplot``, which keeps every figure in global state and selects a window
system.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from detect.curation.stats.advice import Advice
from detect.curation.stats.statistics import LIMITS_PX, QUANTILES, DataStatistics, figures, percent
from detect.drawing.text import pad, shorten
from detect.evaluation.pictures import MAX_NAME, plain_text, save_figure, set_fonts

if TYPE_CHECKING:
    from matplotlib.axes import Axes


MAX_CLASSES = 20  # in the table: the most frequent and the rarest half
MAX_BARS = 20  # classes in the picture

MIN_SHOWN_PX = 0.5
"""Smaller boxes are counted in the first bar: a single wrong label of 0.0003 px would stretch the axis."""

_NAME, _WIDTH = 22, 110  # columns of a class name, and of a line of advice
_BAR, _LINE = "#4c78a8", "#d62728"
_HEAT_CELLS = 32  # per side of the map of centres


def statistics_text(statistics: DataStatistics, advice: Sequence[Advice]) -> str:
    """Return the tables and the advice with the figures behind it."""
    found = figures(statistics)
    lines = [
        f"{found['data']} {found['split']}: {found['images']:,} images, {found['boxes']:,} boxes, "
        f"{len(statistics.names):,} classes; at --image-size {found['image_size']}",
        "",
        *_box_lines(found),
        "",
        *_spread_lines(found),
        "",
        *_class_lines(found["classes"]),
        "",
        *_advice_lines(advice),
    ]
    return "\n".join(lines)


def _box_lines(found: dict[str, Any]) -> list[str]:
    sides, areas = found["shorter_side_px"], found["area_in_image"]
    shares = ",  ".join(f"{percent(sides[f'under_{limit}'])} under {limit} px" for limit in LIMITS_PX)
    sizes = ", ".join(f"{size['width']} x {size['height']} ({size['images']:,})" for size in found["image_sizes"])
    more = found["different_image_sizes"] - len(found["image_sizes"])
    return [
        f"boxes, shorter side after scaling:  {shares}",
        "boxes in the original image, COCO:  "
        + ",  ".join(f"{percent(share)} {name}" for name, share in areas.items()),
        f"images: {sizes}{f' and {more:,} other sizes' if more else ''}",
        f"images without boxes: {found['images_without_boxes']:,}; crowd regions, not counted here: "
        f"{found['crowd_regions']:,}; most boxes in an image: {found['boxes_per_image']['max']:,}",
    ]


def _spread_lines(found: dict[str, Any]) -> list[str]:
    rows = {
        f"shorter side, px at {found['image_size']}": found["shorter_side_px"],
        "box width / height": found["box_width_by_height"],
        "boxes in an image": found["boxes_per_image"],
        "image width / height": found["image_width_by_height"],
    }
    keys = [f"q{100 * q:.0f}" for q in QUANTILES]
    titles = ["median" if q == 0.5 else f"{100 * q:.0f} %" for q in QUANTILES]
    return [
        f"{'':<{_NAME + 4}}" + "".join(f"{title:>9}" for title in titles),
        *(f"{name:<{_NAME + 4}}" + "".join(f"{values[key]:>9.4g}" for key in keys) for name, values in rows.items()),
    ]


def _class_lines(classes: list[dict[str, Any]]) -> list[str]:
    lines = [f"{'class':<{_NAME}}{'boxes':>9}{'share':>9}{'images':>9}{'median px':>11}{'under 8 px':>12}"]
    total, half = sum(row["boxes"] for row in classes), MAX_CLASSES // 2
    for index, row in enumerate(classes):
        if len(classes) > MAX_CLASSES and half <= index < len(classes) - half:
            if index == half:
                lines.append(f"... {len(classes) - MAX_CLASSES} more ...")
            continue
        sizes = f"{row['median_px']:>11.1f}{percent(row['under_8_px']):>12}" if row["boxes"] else f"{'-':>11}{'-':>12}"
        name = pad(shorten(row["name"], _NAME - 2), _NAME)
        lines.append(f"{name}{row['boxes']:>9,}{percent(row['boxes'] / total):>9}{row['images']:>9,}{sizes}")
    return lines


def _advice_lines(advice: Sequence[Advice]) -> list[str]:
    if not advice:
        return ["Nothing in these figures asks for other settings."]
    lines = ["What follows from that:"]
    for number, (why, what) in enumerate(advice, start=1):
        lines += [*textwrap.wrap(f"{number}. {why}.", _WIDTH, subsequent_indent="   "), f"   {what}"]
    return lines


# ------------------------------------------------------------------------------------------------- picture


def draw_statistics(path: Path, statistics: DataStatistics) -> None:
    """Draw sizes, classes, places, counts and shapes to a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 8), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 3).ravel()
    for axes, draw in zip(panels, (_sizes, _classes, _centres, _per_image, _box_shapes, _images), strict=True):
        draw(axes, statistics)
    title = f"{shorten(statistics.name, 40)} {shorten(statistics.split, 20)}"
    counts = f"{len(statistics.sizes_hw):,} images, {len(statistics.labels):,} boxes"
    set_fonts([figure.suptitle(plain_text(f"{title}: {counts}; at {statistics.image_size} px"))])
    save_figure(figure, path)


def _sizes(axes: Axes, statistics: DataStatistics) -> None:
    sides = statistics.sizes_px.min(axis=1).clip(min=MIN_SHOWN_PX)
    low, high = min(sides.min(), LIMITS_PX[0] / 2), max(sides.max(), LIMITS_PX[-1] * 2)
    axes.hist(sides, bins=np.geomspace(low, high, 50).tolist(), color=_BAR)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    for limit in LIMITS_PX:
        axes.axvline(limit, color=_LINE, linewidth=1)
        share = f" {100 * statistics.share_under(limit):.0f} % < {limit}"
        axes.text(
            limit, 0.99, share, color=_LINE, rotation=90, ha="right", va="top", transform=axes.get_xaxis_transform()
        )
    axes.margins(y=0.3)  # the labels stand above the bars
    axes.set(title="Shorter side of the boxes after scaling", xlabel="network-input pixels", ylabel="boxes")


def _classes(axes: Axes, statistics: DataStatistics) -> None:
    counts = statistics.boxes_per_class
    shown = np.argsort(-counts, kind="stable")[:MAX_BARS][::-1]
    bars = axes.barh(range(len(shown)), counts[shown], color=_BAR)
    axes.bar_label(bars, [f"{count:,}" for count in counts[shown]], fontsize=8, padding=2)
    axes.set_yticks(range(len(shown)), [plain_text(shorten(statistics.names[label], MAX_NAME)) for label in shown])
    set_fonts(axes.get_yticklabels())
    more = len(counts) - len(shown)
    axes.set(title=f"Boxes of each class{f' ({more} rarer ones not shown)' if more else ''}", xlabel="boxes")
    axes.margins(x=0.15)


def _centres(axes: Axes, statistics: DataStatistics) -> None:
    x, y = np.clip(statistics.centres, 0, 1).T
    heat, _, _ = np.histogram2d(y, x, bins=_HEAT_CELLS, range=((0, 1), (0, 1)))
    image = axes.imshow(heat, extent=(0, 1, 1, 0), cmap="viridis", aspect="auto")
    axes.figure.colorbar(image, ax=axes, label="boxes")
    axes.set(title="Where the centres are", xlabel="share of the width", ylabel="share of the height")


def _per_image(axes: Axes, statistics: DataStatistics) -> None:
    counts = statistics.boxes_per_image
    step = max(1, -(-int(counts.max() + 1) // 50))
    axes.hist(counts, bins=(np.arange(0, counts.max() + 2 * step, step) - 0.5).tolist(), color=_BAR)
    background = int((counts == 0).sum())
    axes.set(title=f"Boxes in an image ({background:,} without)", xlabel="boxes", ylabel="images")


def _box_shapes(axes: Axes, statistics: DataStatistics) -> None:
    widths, heights = statistics.sizes_px.T
    ratios = np.clip(widths / heights, 1 / 16, 16)
    axes.hist(ratios, bins=np.geomspace(1 / 16, 16, 49).tolist(), color=_BAR)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set(title="Shape of the boxes", xlabel="width / height", ylabel="boxes")


def _images(axes: Axes, statistics: DataStatistics) -> None:
    sizes, counts = np.unique(statistics.sizes_hw, axis=0, return_counts=True)
    axes.scatter(sizes[:, 1], sizes[:, 0], s=20 + 180 * counts / counts.max(), color=_BAR, alpha=0.5)
    largest = statistics.sizes_hw.max() * 1.1
    axes.axline((0, 0), slope=1, color="grey", linewidth=0.5)
    axes.set(title=f"Images: {len(sizes):,} different sizes", xlabel="width, pixels", ylabel="height, pixels")
    axes.set(xlim=(0, largest), ylim=(0, largest))
