"""The images of a split at their own size, read by worker processes: for views of them, such as tiles.

Letters: H W pixels of an image.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from torch.utils.data import Dataset

from detect.data.annotations import AnnotationTable
from detect.data.cache import read_original
from detect.data.images import ImageError
from detect.data.workers import MISSED, Loaded, WorkerBatches
from detect.runtime.distributed import shard
from detect.structures import Batch, Letterbox, Targets


class OriginalSamples(Dataset[Loaded]):
    """Reads images; lives in the workers.

    Args:
        table: the split.
    """

    def __init__(self, table: AnnotationTable) -> None:
        self.table = table

    def __getitem__(self, row: int) -> Loaded:
        start = time.perf_counter()
        try:
            image = read_original(self.table, row)
        except ImageError as error:
            return Loaded(None, ((row, str(error)),))
        nothing = torch.zeros(0, dtype=torch.int64)
        targets = Targets(nothing, nothing, torch.zeros(0, 4))
        placement = Letterbox((1.0, 1.0), (image.shape[0], image.shape[1]))
        images = torch.from_numpy(np.require(image, requirements="W"))[None]  # some decoders give what is read-only
        seconds = time.perf_counter() - start
        return Loaded(Batch(images, targets, torch.tensor([row]), [placement], seconds), ())


class OriginalLoader(WorkerBatches):
    """Batches of one image each, (1, H, W, 3), unscaled and without targets; otherwise as ``EvaluationLoader``.

    Args:
        table: the split; it need not be labelled.
        workers: processes; 0 loads in this one.
        strict: refuse an image that cannot be read instead, by an ``InputError`` from the iteration.
    """

    def __init__(self, table: AnnotationTable, workers: int, *, strict: bool = False) -> None:
        super().__init__(
            OriginalSamples(table),
            shard(range(len(table))),
            workers,
            keep_workers=False,
            num_images=len(table),
            consequence=MISSED,
            strict=strict,
        )
