"""Parts of the training images in an epoch: the sections ``tiles`` and ``sampling`` of a detector's recipe."""

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


@dataclass(frozen=True)
class SamplingConfig(Strict):
    """Repeat-factor sampling: images of rare classes come more often in an epoch, which is longer then.

    Source: Gupta et al., LVIS, arXiv:1908.03195, appendix B.2.
    """

    rare_below: Share = 0.0
    """t: a class that a share f < t of the images (or tiles) has is rare. An image comes sqrt(t / f) times, by its
    rarest class; a fraction of that by chance, in each epoch for other images. The paper has 0.001. 0 repeats none."""
