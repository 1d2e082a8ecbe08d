"""Views of the training images that an epoch has: the ``tiles`` section of a detector's recipe."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Interval

from detect.boxes.tiles import MAX_OVERLAP, MIN_TILE_PX
from detect.config.base import Share, Strict, Unit


@dataclass(frozen=True)
class TilesConfig(Strict):
    """Training on tiles of large images. Validation then detects in the same tiles, as ``detect val --tile``."""

    size_px: Annotated[int, Ge(0), Unit("px")] = 0
    """Side of a tile in pixels of the original images, each of which is scaled to ``image_size``; smaller images stay
    whole. 0 trains on whole images."""
    overlap: Annotated[float, Interval(ge=0, le=MAX_OVERLAP)] = 0.2
    """Least share of its side that a tile has in common with the next one."""
    empty: Share = 0.1
    """Largest share of tiles without objects in an epoch; of more, each epoch leaves out others."""

    @property
    def is_on(self) -> bool:
        return self.size_px > 0

    def contradictions(self) -> Iterator[tuple[str, str]]:
        if 0 < self.size_px < MIN_TILE_PX:
            yield "size_px", f"must be 0 or at least {MIN_TILE_PX}, found {self.size_px}"
