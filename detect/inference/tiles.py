"""Advice for networks that were trained on tiles."""

from __future__ import annotations

from detect.runtime.logs import LOGGER


def warn_of_tiles(trained_px: int, tile: int | None) -> None:
    """Warn of whole images for a network that was trained on tiles of ``trained_px`` pixels; 0: it was not."""
    if trained_px and tile is None:
        LOGGER.warning(
            "trained on tiles of %d px: in whole images objects are smaller than in training; take --tile %d",
            *(trained_px, trained_px),
        )
