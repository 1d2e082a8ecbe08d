"""A split of generated scenes as an ``AnnotationTable``.

Letters: N scenes, M objects of all scenes together, S side of a scene in pixels.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from detect.config.data import DataConfig, Ingredient
from detect.data.annotations import AnnotationTable, encode_paths, offsets_of
from detect.data.scenes.scene import CLASSES, Scene, draw_scene
from detect.errors import InputError
from detect.runtime.progress import progress_bar


@dataclass(frozen=True)
class SceneTable(AnnotationTable):
    """The first N scenes of a stream. Their pixels are drawn whenever they are read; no file exists.

    Args:
        side: S.
        seed: of the stream.
        without: ingredients that are left out.
    """

    side: int = 0
    seed: int = 0
    without: tuple[Ingredient, ...] = ()

    def draw(self, index: int) -> Scene:
        """Draw scene ``index`` of the stream, which may be beyond the N of the table."""
        return draw_scene(self.side, self.seed, index, self.without)

    def read_file(self, row: int) -> np.ndarray:
        return self.draw(int(self.image_ids[row]) - 1).image_rgb

    def read_bytes(self, row: int) -> bytes:
        """Return the scene as a PNG file."""
        return bytes(cv2.imencode(".png", self.read(row)[..., ::-1])[1])


def read_scenes(config: DataConfig, split: str) -> SceneTable:
    """Draw the scenes of a split once, for their boxes.

    Raises:
        InputError: the number of scenes is missing, or class names are given.
    """
    section = config.splits[split]
    if section.count is None:
        raise InputError(f"{config.name}: splits.{split}.count: is missing, the number of scenes")
    if config.names is not None:
        raise InputError(f"{config.name}: names: scenes have classes of their own; leave them out")
    seed, side, without = zlib.crc32(section.images.encode()), config.scene_px, config.scene_without
    drawn = progress_bar(range(section.count), f"drawing {split} scenes", section.count, unit="scene")
    scenes = [draw_scene(side, seed, index, without)._replace(image_rgb=np.zeros(0)) for index in drawn]
    ids = np.arange(1, section.count + 1)
    return SceneTable(
        image_paths=encode_paths([Path(config.root) / section.images / f"{number:08d}.png" for number in ids]),
        image_ids=ids,
        has_own_ids=False,
        sizes_hw=np.full((section.count, 2), side, np.int32),
        box_offsets=offsets_of(np.array([len(scene.labels) for scene in scenes])),
        boxes_xyxy_px=np.concatenate([scene.boxes_xyxy_px for scene in scenes]),
        labels=np.concatenate([scene.labels for scene in scenes]),
        is_crowd=np.zeros(sum(len(scene.labels) for scene in scenes), bool),
        areas=np.concatenate([scene.areas for scene in scenes]),
        names=CLASSES,
        category_ids=np.arange(1, len(CLASSES) + 1),
        side=side,
        seed=seed,
        without=without,
    )
