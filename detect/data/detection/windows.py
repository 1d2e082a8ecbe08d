"""Training on tiles of large images: a table with a row for each tile.

Letters: N images, W windows (tiles) of all images, M boxes of all images together, P pairs of a window and a box in it.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from detect.boxes.convert import box_sizes
from detect.boxes.tiles import tile_windows
from detect.config.sampling import TilesConfig
from detect.data.annotations import AnnotationTable, Windows, offsets_of
from detect.data.detection.geometry import are_trainable
from detect.data.detection.repeats import num_empty_kept, objects_per_image


def cut_windows(table: AnnotationTable, tiles: TilesConfig, image_size: int) -> AnnotationTable:
    """Divide the images into tiles, each of which becomes a row with the visible part of its boxes.

    Args:
        table: the whole images; one that is no larger than a tile stays whole.
        tiles: side and overlap.
        image_size: long side of a tile in the network input, for ``are_trainable``, as in a mosaic.

    Returns:
        W rows in the order of the images, with the id of their image.
    """
    windows, source = _all_windows(table, tiles)
    window, box = _pairs(table, source)
    origins, ends = windows[window, :2], windows[window, 2:]
    full = table.boxes_xyxy_px[box] - np.tile(origins, 2)
    visible = np.clip(full, 0, np.tile(ends - origins, 2))
    zoom = image_size / (ends - origins).max(axis=1, keepdims=True, initial=1)
    crowd = table.is_crowd[box]
    keep = np.where(crowd, (box_sizes(visible) > 0).all(axis=1), are_trainable(full * zoom, visible * zoom))
    window, box, visible = window[keep], box[keep], visible[keep]
    return dataclasses.replace(
        table,
        image_paths=table.image_paths[source],
        image_ids=table.image_ids[source],
        sizes_hw=(windows[:, 2:] - windows[:, :2])[:, ::-1].astype(np.int32),
        box_offsets=offsets_of(np.bincount(window, minlength=len(windows))),
        boxes_xyxy_px=visible,
        labels=table.labels[box],
        is_crowd=table.is_crowd[box],
        areas=box_sizes(visible).prod(axis=1),
        boxes_xywh_px=None,
        marks={name: values[box] for name, values in table.marks.items()},
        positions=None,
        image_ids_json=None if table.image_ids_json is None else table.image_ids_json[source],
        shards=None if table.shards is None else table.shards.select(source),
        windows=Windows(windows, table.sizes_hw[source]),
    )


def _all_windows(table: AnnotationTable, tiles: TilesConfig) -> tuple[np.ndarray, np.ndarray]:
    """Windows (W, 4) int64 xyxy of all images, and the row of each one's image, (W,) int64."""
    # The last view, the whole image, is no tile, unless it is the only one.
    views = [tile_windows((height, width), tiles.size_px, tiles.overlap) for height, width in table.sizes_hw.tolist()]
    cut = [view[: max(len(view) - 1, 1)] for view in views]
    source = np.repeat(np.arange(len(table)), [len(view) for view in cut])
    return np.concatenate([np.zeros((0, 4), np.int64), *cut]), source


def _pairs(table: AnnotationTable, source: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each window with each box of its image: indices of windows and boxes, (P,) int64 each."""
    counts = np.diff(table.box_offsets)[source]
    window = np.repeat(np.arange(len(source)), counts)
    position = np.arange(len(window)) - np.repeat(np.cumsum(counts) - counts, counts)  # of the box in its image
    return window, table.box_offsets[source[window]] + position


def describe_windows(whole: AnnotationTable, cut: AnnotationTable, tiles: TilesConfig) -> str:
    """Describe the tiles in a line for the log."""
    has_objects = objects_per_image(cut) > 0
    empty = int((~has_objects).sum())
    left_out = empty - num_empty_kept(empty, int(has_objects.sum()), tiles.empty)
    return (
        f"tiles of {tiles.size_px} px: {len(whole)} images are {len(cut)} tiles, {empty} of them without objects, of "
        f"which each epoch leaves out {left_out} (tiles.empty {tiles.empty:g})"
    )
