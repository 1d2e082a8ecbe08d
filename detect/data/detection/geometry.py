"""Geometric transforms of an image with its boxes: affine and perspective warps, flips, quarter turns.

Letters: H W pixels of an image, N boxes. Coordinates are continuous (pixel i covers [i, i + 1]); boxes are
xyxy in pixels of the image they come with.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from detect.boxes.convert import box_sizes
from detect.config.augment import AugmentConfig
from detect.data.letterbox import PAD_VALUE

MIN_SIDE_PX = 1.5
"""Least side of a box that is trained on. Objects of 2 px, far below the 8 px of the finest level's cell, are still
detected; of less than one and a half, nothing is left after interpolation."""
MIN_VISIBLE_SHARE = 0.1
"""Least visible share of a box that is trained on; less does not show the class."""
MAX_ASPECT = 100.0
"""Limit of length over width; longer boxes are slivers left by clipping."""
MIN_DEPTH = 0.25
"""Least divisor of the perspective, 1 + (px, py) . (x, y), over the image, which limits enlargement to four times; the
coefficients are reduced accordingly."""


@dataclass(frozen=True)
class Sample:
    """An image with its ground truth.

    Args:
        image_rgb: (H, W, 3) uint8.
        boxes_xyxy_px: (N, 4) float64, pixels of this image, inside it.
        labels: (N,) int64.
    """

    image_rgb: np.ndarray
    boxes_xyxy_px: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Scene:
    """Source image of a warp, of any size.

    Args:
        image_rgb: (H, W, 3) uint8.
        full_xyxy_px: (N, 4) float64, boxes of the objects, also outside the image.
        visible_xyxy_px: (N, 4) float64, visible part of each; empty if nothing is visible.
        labels: (N,) int64.
        centre_xy_px: point that a warp moves to the middle of its output.
    """

    image_rgb: np.ndarray
    full_xyxy_px: np.ndarray
    visible_xyxy_px: np.ndarray
    labels: np.ndarray
    centre_xy_px: tuple[float, float]


def moves(augment: AugmentConfig) -> bool:
    """Return True if ``random_matrix`` can be more than a shift of the centre."""
    return any((augment.degrees, augment.translate, augment.scale, augment.shear, augment.perspective))


def random_matrix(
    rng: np.random.Generator, augment: AugmentConfig, scene: Scene, output_hw: tuple[int, int]
) -> np.ndarray:
    """Draw a warp: perspective, then rotation and zoom, then shear about the scene's centre, then the shift.

    Args:
        rng: drawn from equally often, whatever the settings.
        augment: the ranges.
        scene: the source.
        output_hw: height and width of the output.

    Returns:
        (3, 3) float64, source pixels (x, y, 1) to output pixels, both continuous coordinates.
    """
    draw = rng.uniform(-1, 1, size=8)
    to_centre = np.eye(3)
    to_centre[:2, 2] = -np.asarray(scene.centre_xy_px)

    height, width = scene.image_rgb.shape[:2]
    centre_x, centre_y = scene.centre_xy_px
    coefficients = augment.perspective * draw[0:2]
    nearest = np.abs(coefficients) @ (max(centre_x, width - centre_x), max(centre_y, height - centre_y))
    perspective = np.eye(3)
    perspective[2, :2] = coefficients * min(1.0, (1 - MIN_DEPTH) / max(nearest, 1e-12))

    angle = np.deg2rad(augment.degrees * draw[2])
    zoom = 1 + augment.scale * draw[3]
    cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
    rotation = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])

    shear = np.eye(3)
    shear[0, 1], shear[1, 0] = np.tan(np.deg2rad(augment.shear * draw[4:6]))

    to_output = np.eye(3)
    to_output[:2, 2] = np.array(output_hw[::-1]) * (0.5 + augment.translate * draw[6:8])
    return to_output @ shear @ rotation @ perspective @ to_centre


def warp(scene: Scene, matrix: np.ndarray, output_hw: tuple[int, int]) -> Sample:
    """Warp a scene by ``matrix`` (3, 3), source to output pixels, and keep the boxes that ``are_trainable``."""
    image, matrix = warp_image(scene.image_rgb, matrix, output_hw)
    full = warp_boxes(scene.full_xyxy_px, matrix)
    visible = np.clip(warp_boxes(scene.visible_xyxy_px, matrix), 0, np.array([*output_hw, *output_hw])[[1, 0, 1, 0]])
    keep = are_trainable(full, visible)
    return Sample(image, visible[keep], scene.labels[keep])


def warp_image(image_rgb: np.ndarray, matrix: np.ndarray, output_hw: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Warp pixels.

    Args:
        image_rgb: (H, W, 3) uint8.
        matrix: (3, 3) float64, source pixels to output pixels, continuous coordinates.
        output_hw: height and width of the output.

    Returns:
        (*output_hw, 3) uint8, ``PAD_VALUE`` outside the source; and the exact matrix: a mere zoom is rounded by less
        than a pixel at each end, so that whole pixels are mapped to whole pixels.
    """
    if not (matrix[0, 1] or matrix[1, 0] or matrix[2, 0] or matrix[2, 1]):
        return _zoom_image(image_rgb, matrix, output_hw)
    # OpenCV puts integer coordinates on pixel centres, we put them on pixel edges: half a pixel on either side.
    shift = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    centred = np.linalg.inv(shift) @ matrix @ shift
    size, border = (output_hw[1], output_hw[0]), (PAD_VALUE, PAD_VALUE, PAD_VALUE)
    if matrix[2, 0] == 0 and matrix[2, 1] == 0:
        image = cv2.warpAffine(image_rgb, centred[:2], size, flags=cv2.INTER_LINEAR, borderValue=border)
    else:
        image = cv2.warpPerspective(image_rgb, centred, size, flags=cv2.INTER_LINEAR, borderValue=border)
    return image, matrix


def _zoom_image(image_rgb: np.ndarray, matrix: np.ndarray, output_hw: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """``warp_image`` without rotation, shear and perspective: a third of the time, by resizing the visible part."""
    height, width = image_rgb.shape[:2]
    x_source, x_output = _rounded_range(matrix[0, 0], matrix[0, 2], width, output_hw[1])
    y_source, y_output = _rounded_range(matrix[1, 1], matrix[1, 2], height, output_hw[0])
    image = np.full((*output_hw, 3), PAD_VALUE, dtype=np.uint8)
    # Linear sampling skips pixels when four or more become one.
    interpolation = cv2.INTER_AREA if matrix[0, 0] * matrix[1, 1] < 0.25 else cv2.INTER_LINEAR
    size = (x_output.stop - x_output.start, y_output.stop - y_output.start)
    image[y_output, x_output] = cv2.resize(image_rgb[y_source, x_source], size, interpolation=interpolation)
    exact = np.eye(3)
    for axis, source, output in ((0, x_source, x_output), (1, y_source, y_output)):
        zoom = (output.stop - output.start) / (source.stop - source.start)
        exact[axis, axis], exact[axis, 2] = zoom, output.start - zoom * source.start
    return image, exact


def _rounded_range(zoom: float, shift: float, source_size: int, output_size: int) -> tuple[slice, slice]:
    """Visible source pixels, and their output pixels zoom * x + shift; whole pixels, at least one of each."""
    start = min(max(round(-shift / zoom), 0), source_size - 1)
    stop = max(min(round((output_size - shift) / zoom), source_size), start + 1)
    output_start = min(max(round(zoom * start + shift), 0), output_size - 1)
    output_stop = max(min(round(zoom * stop + shift), output_size), output_start + 1)
    return slice(start, stop), slice(output_start, output_stop)


def warp_boxes(boxes_xyxy_px: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Axis-aligned bounding boxes of warped boxes, (N, 4) to (N, 4), not clipped."""
    corners = boxes_xyxy_px[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
    points = corners @ matrix[:2, :2].T + matrix[:2, 2]
    points /= corners @ matrix[2, :2, None] + matrix[2, 2]
    return np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)


def are_trainable(full_xyxy_px: np.ndarray, visible_xyxy_px: np.ndarray) -> np.ndarray:
    """Boxes that are large enough and visible enough to be trained on: (N,) bool.

    ``visible_xyxy_px`` are the boxes ``full_xyxy_px`` (N, 4) clipped to the image.
    """
    sides, full_sides = box_sizes(visible_xyxy_px), box_sizes(full_xyxy_px)
    large_enough = (sides >= MIN_SIDE_PX).all(axis=1)
    in_view = sides.prod(axis=1) >= MIN_VISIBLE_SHARE * full_sides.prod(axis=1)
    no_sliver = sides.max(axis=1, initial=0) < MAX_ASPECT * sides.min(axis=1, initial=np.inf)
    return large_enough & in_view & no_sliver


def flip_left_right(sample: Sample) -> Sample:
    boxes = sample.boxes_xyxy_px.copy()
    boxes[:, [0, 2]] = sample.image_rgb.shape[1] - sample.boxes_xyxy_px[:, [2, 0]]
    return Sample(cv2.flip(sample.image_rgb, 1), boxes, sample.labels)


def flip_up_down(sample: Sample) -> Sample:
    boxes = sample.boxes_xyxy_px.copy()
    boxes[:, [1, 3]] = sample.image_rgb.shape[0] - sample.boxes_xyxy_px[:, [3, 1]]
    return Sample(cv2.flip(sample.image_rgb, 0), boxes, sample.labels)


def rotate90(sample: Sample, turns: int) -> Sample:
    """Rotate clockwise by 90 degrees, ``turns`` = 1, 2 or 3 times."""
    rotation = (cv2.ROTATE_90_CLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_COUNTERCLOCKWISE)[turns - 1]
    height, width = sample.image_rgb.shape[:2]
    boxes = sample.boxes_xyxy_px
    for _ in range(turns):
        # A point (x, y) of an image of height h goes to (h - y, x).
        boxes = np.stack([height - boxes[:, 3], boxes[:, 0], height - boxes[:, 1], boxes[:, 2]], axis=1)
        height, width = width, height
    return Sample(cv2.rotate(sample.image_rgb, rotation), boxes, sample.labels)
