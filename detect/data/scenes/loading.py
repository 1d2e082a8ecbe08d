"""Training batches of generated scenes: every epoch draws scenes that no epoch had before.

Letters: B images of a batch, S side of the square network input.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from detect.config.recipe import DetectionRecipe
from detect.data.detection.loading import flat_targets
from detect.data.letterbox import letterbox, letterbox_boxes
from detect.data.scenes.table import SceneTable
from detect.data.workers import Loaded, Order, TrainingBatches
from detect.runtime.distributed import rank_slice
from detect.structures import Batch


class SceneOrder(Order):
    """Indices of the scenes of each batch, which go on from epoch to epoch."""

    def __iter__(self) -> Iterator[range]:
        for batch in range(self.start, len(self)):
            first = self.epoch * self.num_images + batch * self.batch_size
            yield range(first, first + self.batch_size)[rank_slice(self.batch_size)]


class SceneSamples(Dataset[Loaded]):
    """Scenes as batches.

    Args:
        table: the stream.
        image_size: S; scenes of another size are resized.
    """

    def __init__(self, table: SceneTable, image_size: int) -> None:
        self.table = table
        self.image_size = image_size

    def __getitem__(self, indices: Sequence[int]) -> Loaded:
        images, targets = [], []
        for index in indices:
            scene = self.table.draw(index)
            image, placement = letterbox(scene.image_rgb, self.image_size)
            images.append(image)
            targets.append((letterbox_boxes(scene.boxes_xyxy_px, placement), scene.labels))
        size = (self.image_size, self.image_size)
        rows = torch.tensor([index % len(self.table) for index in indices])
        return Loaded(Batch(torch.from_numpy(np.stack(images)), flat_targets(targets, size), rows), ())


class SceneLoader(TrainingBatches):
    """Batches of scenes, without further augmentation; an epoch has as many scenes as the table.

    Args:
        table: the stream.
        recipe: ``batch_size``, ``image_size``, ``seed`` and ``workers`` are used.
    """

    def __init__(self, table: SceneTable, recipe: DetectionRecipe) -> None:
        order = SceneOrder(len(table), recipe.batch_size, recipe.seed)
        samples = SceneSamples(table, recipe.image_size)
        super().__init__(samples, order, recipe.workers, num_images=len(table), strict=False)
