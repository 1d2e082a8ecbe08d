"""Drawing of boxes and captions into an image.

Letters: H W pixels of the image, N boxes.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw

from detect.boxes.convert import box_sizes
from detect.boxes.intersections import intersection_areas
from detect.drawing.text import load_font, shorten

TINY_PX = 12
"""A box with a side below this is drawn with the thinnest line, so that the object stays visible."""

SMALL_PX = 48
"""Labels keep off boxes with a side below this; larger objects stay recognisable under a label."""

DASH_PX = 6
"""Length of a dash and of a gap, for a line of one pixel."""

MIN_FONT_PX, MAX_FONT_PX = 10, 40
"""Text below 10 px cannot be read."""

MAX_CAPTION = 40
"""Characters in a label."""

MAX_HIDDEN = 0.5
"""Largest share of a label on other labels; it is left out if no place hides less."""

Rectangle = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels."""

Color = tuple[int, int, int]
"""RGB."""


def draw_boxes(
    image_rgb: np.ndarray,
    boxes_xyxy_px: np.ndarray,
    labels: np.ndarray,
    captions: Sequence[str],
    is_dashed: np.ndarray | None = None,
) -> np.ndarray:
    """Draw boxes (N, 4), best first, with captions into a copy of the image, in the colours of their classes.

    A label stands outside its box where there is room, inside the image always, and keeps off the other labels and
    small boxes; in a crowd later labels are left out. Frames with ``is_dashed`` (N,) have gaps.
    """
    return draw_colored_boxes(image_rgb, boxes_xyxy_px, _class_colors(labels), captions, is_dashed)


def draw_colored_boxes(
    image_rgb: np.ndarray,
    boxes_xyxy_px: np.ndarray,
    colors: Sequence[Color],
    captions: Sequence[str],
    is_dashed: np.ndarray | None = None,
) -> np.ndarray:
    """Draw boxes as ``draw_boxes`` does, in N given colours; a box with an empty caption has no label."""
    canvas = _draw_frames(image_rgb, boxes_xyxy_px, colors, is_dashed)
    if not any(captions):
        return canvas
    picture = Image.fromarray(canvas)
    _draw_labels(picture, boxes_xyxy_px, _short_sides(boxes_xyxy_px), captions, colors)
    return np.array(picture)


def draw_frames(
    image_rgb: np.ndarray, boxes_xyxy_px: np.ndarray, labels: np.ndarray, is_dashed: np.ndarray | None = None
) -> np.ndarray:
    """Draw the frames of ``draw_boxes`` alone."""
    return _draw_frames(image_rgb, boxes_xyxy_px, _class_colors(labels), is_dashed)


def _draw_frames(
    image_rgb: np.ndarray, boxes_xyxy_px: np.ndarray, colors: Sequence[Color], is_dashed: np.ndarray | None
) -> np.ndarray:
    canvas = np.ascontiguousarray(image_rgb).copy()
    height, width = canvas.shape[:2]
    thickness = max(1, round((height + width) / 800))
    sides = _short_sides(boxes_xyxy_px)
    for index in reversed(range(len(boxes_xyxy_px))):
        left, top, right, bottom = edges = _edges(boxes_xyxy_px[index], width, height)
        start = max(left, 0), max(top, 0)
        inside = canvas[start[1] : max(bottom, 0), start[0] : max(right, 0)]  # a view: all that the frame touches
        under = inside.copy() if is_dashed is not None and is_dashed[index] else None
        _draw_box(canvas, edges, colors[index], 1 if sides[index] < TINY_PX else thickness)
        if under is not None:
            _open_gaps(inside, under, start, DASH_PX * thickness)
    return canvas


def _class_colors(labels: np.ndarray) -> list[Color]:
    return [class_color(label) for label in labels.tolist()]


def class_color(label: int) -> Color:
    """RGB of a class. Hues advance by the golden ratio, which spreads any number of them evenly.

    Brightness and saturation alternate to separate similar hues.
    """
    hue = (0.02 + label * 0.6180339887) % 1
    saturation, value = ((0.95, 1.0), (0.6, 1.0), (0.9, 0.75))[label // 8 % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def _short_sides(boxes_xyxy_px: np.ndarray) -> np.ndarray:
    return box_sizes(boxes_xyxy_px).min(axis=1, initial=np.inf)


def _open_gaps(drawn: np.ndarray, under: np.ndarray, start_xy: tuple[int, int], period: int) -> None:
    """Restore every second diagonal stripe of a part of the image that begins at ``start_xy``.

    Diagonal stripes interrupt both upright and level lines.
    """
    height, width = drawn.shape[:2]
    is_gap = (np.add.outer(np.arange(height), np.arange(width)) + sum(start_xy)) // period % 2 == 1
    drawn[is_gap] = under[is_gap]


def _edges(box: np.ndarray, width: int, height: int) -> Rectangle:
    """Round a box outwards to whole pixels, at least one, and cut it at the right and lower edge of the image."""
    left, top = np.floor(box[:2]).astype(int).tolist()
    right, bottom = np.ceil(box[2:]).astype(int).tolist()
    return left, top, min(max(right, left + 1), width), min(max(bottom, top + 1), height)


def _draw_box(canvas: np.ndarray, edges: Rectangle, color: Color, thickness: int) -> None:
    """Draw a frame whose outer edge is ``edges``; pixel i covers [i, i + 1]."""
    left, top, right, bottom = edges
    for step in range(thickness):
        corners = (left + step, top + step), (right - 1 - step, bottom - 1 - step)
        if corners[0][0] <= corners[1][0] and corners[0][1] <= corners[1][1]:
            cv2.rectangle(canvas, *corners, color, 1)


def _draw_labels(
    picture: Image.Image, boxes: np.ndarray, sides: np.ndarray, captions: Sequence[str], colors: Sequence[Color]
) -> None:
    draw = ImageDraw.Draw(picture)
    regular = int(np.clip(min(picture.size) / 32, MIN_FONT_PX, MAX_FONT_PX))
    labels = np.empty((len(boxes), 4))
    num_labels = 0
    objects = boxes[sides < SMALL_PX]
    for box, side, caption, color in zip(boxes, sides, captions, colors, strict=True):
        if not caption:
            continue
        font, text = load_font(shorten(caption, MAX_CAPTION), int(np.clip(side / 2, MIN_FONT_PX, regular)))
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        size = (round(right - left) + 4, round(bottom - top) + 4)
        place = _place(box, size, picture.size, labels[:num_labels], objects)
        if place is None:
            continue
        draw.rectangle((place[0], place[1], place[2] - 1, place[3] - 1), fill=color)
        dark = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] > 140  # luma of ITU-R BT.601
        draw.text((place[0] + 2 - left, place[1] + 2 - top), text, fill="black" if dark else "white", font=font)
        labels[num_labels] = place
        num_labels += 1


def _place(
    box: np.ndarray, size: tuple[int, int], image_wh: tuple[int, int], labels: np.ndarray, objects: np.ndarray
) -> Rectangle | None:
    """Choose the place of a label: the one that hides least, above the box on a tie; None if it hides other labels.

    Args:
        box: (4,) xyxy of the detection.
        size: width and height of the label.
        image_wh: width and height of the image.
        labels: (m, 4) xyxy of the labels drawn before.
        objects: (n, 4) small boxes that should stay visible, perhaps with ``box`` among them.
    """
    left, top = int(box[0]), int(box[1])
    right, bottom = int(np.ceil(box[2])), int(np.ceil(box[3]))
    corners = [
        (left, top - size[1]),  # above
        (left, bottom),  # below
        (right, top),  # to the right
        (left - size[0], top),  # to the left
        (left, top),  # inside
    ]
    candidates = [_moved_inside(corner, size, image_wh) for corner in corners]
    hidden_labels, hidden_objects = (_covered(candidates, others) for others in (labels, objects))
    best = int(np.argmin(2 * hidden_labels + hidden_objects))
    return None if hidden_labels[best] > MAX_HIDDEN * size[0] * size[1] else candidates[best]


def _moved_inside(corner: tuple[int, int], size: tuple[int, int], image_wh: tuple[int, int]) -> Rectangle:
    left = max(0, min(corner[0], image_wh[0] - size[0]))
    top = max(0, min(corner[1], image_wh[1] - size[1]))
    return left, top, left + size[0], top + size[1]


def _covered(rectangles: Sequence[Rectangle], others: np.ndarray) -> np.ndarray:
    """Area (n,) of each of n rectangles on ``others`` (m, 4) xyxy in pixels."""
    places = np.array(rectangles)
    low, high = places[:, :2].min(axis=0), places[:, 2:].max(axis=0)
    near = others[(others[:, :2] < high).all(axis=1) & (others[:, 2:] > low).all(axis=1)]
    return intersection_areas(places, near).sum(axis=1)
