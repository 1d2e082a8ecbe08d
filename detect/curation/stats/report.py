"""A data set's figures and what follows from them, in words."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from detect.curation.stats.advice import Advice
from detect.curation.stats.statistics import LIMITS_PX, QUANTILES, DataStatistics, figures
from detect.drawing.text import pad, shorten

MAX_CLASSES = 20
"""Classes that are listed: the commonest and the rarest half of so many."""

_NAME, _WIDTH = 22, 110  # columns of a class name, and of a line of advice


def statistics_text(statistics: DataStatistics, advice: Sequence[Advice]) -> str:
    """The tables, then the advice, each with the number that it follows from."""
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
    shares = ",  ".join(f"{_percent(sides[f'under_{limit}'])} under {limit} px" for limit in LIMITS_PX)
    sizes = ", ".join(f"{size['width']} x {size['height']} ({size['images']:,})" for size in found["image_sizes"])
    more = found["different_image_sizes"] - len(found["image_sizes"])
    return [
        f"boxes, shorter side after scaling:  {shares}",
        "boxes in the original image, COCO:  "
        + ",  ".join(f"{_percent(share)} {name}" for name, share in areas.items()),
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
        sizes = f"{row['median_px']:>11.1f}{_percent(row['under_8_px']):>12}" if row["boxes"] else f"{'-':>11}{'-':>12}"
        name = pad(shorten(row["name"], _NAME - 2), _NAME)
        lines.append(f"{name}{row['boxes']:>9,}{_percent(row['boxes'] / total):>9}{row['images']:>9,}{sizes}")
    return lines


def _advice_lines(advice: Sequence[Advice]) -> list[str]:
    if not advice:
        return ["Nothing in these figures asks for other settings."]
    lines = ["What follows from that:"]
    for number, (why, what) in enumerate(advice, start=1):
        lines += [*textwrap.wrap(f"{number}. {why}.", _WIDTH, subsequent_indent="   "), f"   {what}"]
    return lines


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
