"""Decoding of a head's raw values to boxes: YOLOv5's way, YOLOv3's (with YOLOv4's wider centres), YOLOX's and FCOS's.

Letters: B images, A anchors, H W cells, K classes, n boxes; * any leading dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from detect.boxes.array_coding import MAX_LOG_RATIO, SHORT_SIDE, Offsets, Sizes

CellSize = float | tuple[float, float]
"""Input pixels per cell, in both directions or for x and y."""


@dataclass(frozen=True)
class BoxCoding:
    """Meaning of the raw x, y, w, h of an anchor in a cell.

    With s the sigmoid: centre = (xy_scale * s - (xy_scale - 1) / 2 + cell) * cell size, so that it reaches
    (xy_scale - 1) / 2 cells beyond each side of its cell (``sigmoid``), or (raw + cell) * cell size, which is anywhere
    (``linear``). Width and height are (2s)^2 * anchor (``square``) or exp(raw) * anchor (``exp``). A head without
    anchors has one of the size of a cell. With ``distances`` the values are those of the left, upper, right and lower
    side: each lies exp(raw) - 1 anchors outward from the cell's centre. (FCOS has no - 1. With it a side may lie up to
    a cell on the other side, and a cell beside a tiny object can predict it.) Sides below ``SHORT_SIDE`` anchors go
    exponentially to 0.

    Args:
        xy_scale: of ``sigmoid``: 2 in YOLOv5, 1 in YOLOv3, 1.05 to 1.2 in YOLOv4.
        sizes: ``square`` (YOLOv5), ``exp`` (YOLOv3, YOLOv4, YOLOX) or ``distances`` (FCOS).
        offsets: ``sigmoid`` (YOLOv3, YOLOv4, YOLOv5), ``linear`` (YOLOX) or ``distances``, where ``sizes`` is it.

    Source: YOLOv5 v6.0; YOLOv3 (Redmon and Farhadi, 2018), section 2.1; YOLOv4 (Bochkovskiy et al., 2020), section 3.4;
    YOLOX (Ge et al., 2021), section 2.1; FCOS (Tian et al., 2019), equation 1.
    """

    xy_scale: float
    sizes: Sizes
    offsets: Offsets = "sigmoid"

    def centres(self, raw_xy: Tensor) -> Tensor:
        """Decode raw x, y (*, 2) to centres (*, 2) relative to the cell's corner, in cells."""
        if self.offsets == "linear":
            return raw_xy
        return raw_xy.sigmoid() * self.xy_scale - (self.xy_scale - 1) / 2

    def extents(self, raw_wh: Tensor, anchors: Tensor) -> Tensor:
        """Decode raw w, h (*, 2) to widths and heights (*, 2) in the unit of ``anchors`` (*, 2)."""
        if self.sizes == "square":
            return (raw_wh.sigmoid() * 2).square() * anchors
        return raw_wh.clamp(max=MAX_LOG_RATIO).exp() * anchors

    def decode(self, raw: Tensor, anchors_px: Tensor, cell_px: CellSize) -> Tensor:
        """Decode raw x, y, w, h (B, A, H, W, 4) of anchors (A, 2) to cxcywh in network-input pixels."""
        height, width = raw.shape[2:4]
        if self.sizes == "distances":
            middles = (cell_grid(height, width, raw) + 0.5) * as_xy(cell_px, raw)
            return decode_distances(raw, middles, anchors_px[:, None, None].to(raw.dtype))
        centres = (self.centres(raw[..., :2]) + cell_grid(height, width, raw)) * as_xy(cell_px, raw)
        sizes = self.extents(raw[..., 2:4], anchors_px[:, None, None].to(raw.dtype))
        return torch.cat([centres, sizes], dim=-1)


def decode_distances(raw: Tensor, middles_px: Tensor, unit_px: Tensor) -> Tensor:
    """Decode raw sides (*, 4), by ``distances``, of cells with the middles (*, 2) to cxcywh in network-input pixels.

    ``unit_px`` (*, 2) is the anchors' width and height.
    """
    low, high = (raw.clamp(max=MAX_LOG_RATIO).exp() - 1).split(2, dim=-1)  # left and top, right and bottom
    least = SHORT_SIDE * ((low + high) / SHORT_SIDE).clamp(max=1).sub(1).exp()
    sizes = torch.maximum(low + high, least) * unit_px
    return torch.cat([middles_px + (high - low) / 2 * unit_px, sizes], dim=-1)


def decode_levels(
    raw: Sequence[Tensor], codings: Sequence[BoxCoding], anchors_px: Sequence[Tensor], cells_px: Sequence[CellSize]
) -> Tensor:
    """Decode raw predictions; each argument has an entry per level. P is A*H*W summed over the levels.

    ``raw`` is (B, A, H, W, 5 + K) x, y, w, h, objectness, classes, before any sigmoid; the result (B, P, 5 + K) cxcywh
    in network-input pixels and probabilities.
    """
    levels = []
    for y, coding, anchors, cell_px in zip(raw, codings, anchors_px, cells_px, strict=True):
        boxes = coding.decode(y[..., :4], anchors, cell_px)
        levels.append(torch.cat([boxes, y[..., 4:].sigmoid()], dim=-1).flatten(1, 3))
    return torch.cat(levels, dim=1)


def as_xy(cell_px: CellSize, like: Tensor) -> Tensor | float:
    """Width and height of a cell as (2,) with the device and type of ``like``, or the number for both."""
    return like.new_tensor(cell_px) if isinstance(cell_px, tuple) else cell_px


def cell_grid(height: int, width: int, like: Tensor) -> Tensor:
    """Column and row of each cell, (H, W, 2), with the device and type of ``like``."""
    rows = torch.arange(height, device=like.device, dtype=like.dtype)
    columns = torch.arange(width, device=like.device, dtype=like.dtype)
    grid_y, grid_x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([grid_x, grid_y], dim=-1)
