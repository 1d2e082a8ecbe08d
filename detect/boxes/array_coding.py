"""Decoding of a level's raw values as arrays, for programs without PyTorch; see ``detect.boxes.coding``.

Letters: B images, A anchors, H W cells, K classes.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

Sizes = Literal["square", "exp", "distances"]
Offsets = Literal["sigmoid", "linear", "distances"]
"""``distances`` is a way of both: the four values are of the sides of a box."""
SHORT_SIDE = 0.1
"""With ``distances``, sides shorter than this share of a cell's approach 0 instead of falling below it."""
MAX_LOG_RATIO = math.log(1000)
"""Limit of a side over the anchor's; without it, areas overflow float32, and overlaps are NaN."""


def decode_level(
    raw: np.ndarray,
    anchors_px: np.ndarray,
    cell_px: tuple[float, float],
    xy_scale: float,
    sizes: Sizes,
    offsets: Offsets,
) -> np.ndarray:
    """Decode raw x, y, w, h, objectness, classes of a level as ``detect.boxes.coding.decode_levels`` does.

    Args:
        raw: (B, A, H, W, 5 + K) float32.
        anchors_px: (A, 2) widths and heights.
        cell_px: input pixels per cell, x and y.
        xy_scale: as of ``BoxCoding``.
        sizes: as of ``BoxCoding``.
        offsets: as of ``BoxCoding``.

    Returns:
        (B, A * H * W, 5 + K): cxcywh in network-input pixels and probabilities.
    """
    height, width = raw.shape[2:4]
    rows = _sigmoid(raw)
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)  # (H, W, 2)
    if sizes == "distances":
        sides, unit = np.exp(np.minimum(raw[..., :4], np.float32(MAX_LOG_RATIO))) - 1, anchors_px[:, None, None]
        low, high = sides[..., :2], sides[..., 2:]
        least = np.float32(SHORT_SIDE) * np.exp(np.minimum((low + high) / np.float32(SHORT_SIDE), 1) - 1)
        rows[..., :2] = (grid + np.float32(0.5)) * np.array(cell_px, np.float32) + (high - low) / 2 * unit
        rows[..., 2:4] = np.maximum(low + high, least) * unit
        return rows.reshape(len(rows), -1, rows.shape[4])
    is_linear = offsets == "linear"
    centres = raw[..., :2] if is_linear else rows[..., :2] * np.float32(xy_scale) - np.float32((xy_scale - 1) / 2)
    rows[..., :2] = (centres + grid) * np.array(cell_px, np.float32)
    if sizes == "square":
        factors = np.square(2 * rows[..., 2:4])
    else:
        factors = np.exp(np.minimum(raw[..., 2:4], np.float32(MAX_LOG_RATIO)))
    rows[..., 2:4] = factors * anchors_px[:, None, None]
    return rows.reshape(len(rows), -1, rows.shape[4])


def _sigmoid(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # exp of a large number is infinite, and its inverse 0
        values: np.ndarray = 1 / (1 + np.exp(-x))
    return values
