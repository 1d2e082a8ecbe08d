"""A detector behind a web server: facts about it, and predictions on the content of image files, as plain values."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from detect.browser import describe_classes, shown_name
from detect.data.images import decode_image
from detect.data.pixel_values import MAX_PIXELS
from detect.errors import InputError, did_you_mean
from detect.evaluation.tiling import Tiling
from detect.inference.detector import DetectOptions, Detector
from detect.inference.instances import FixedCostError
from detect.inference.rows import to_record
from detect.inference.stream import FoundFrame

MAX_VIEWS = 1000
"""Tiles of an image. A network of 15 ms needs 15 seconds for them, and all other requests wait."""
MAX_DETECTIONS = 1000
"""Of an image. A large one in tiles may have more than the 300 of ``detect predict``."""
MAX_PICTURE_PX = 4096
"""Long side of ``picture``; browsers limit the area of a canvas."""
_WHERE = "the image"
_SQUARE = 64
"""Side of the image of the first prediction."""


@dataclass(frozen=True)
class Query:
    """Options of a prediction.

    Args:
        conf: minimum score, from 0 to 1.
        cost: share of the full cost, of a file with measured instances; None: the full network.
        tile: side of tiles in pixels of the image; None for none.
    """

    conf: float = 0.25
    cost: float | None = None
    tile: int | None = None


def parse_query(given: Mapping[str, str]) -> Query:
    """Read the options of an address; ``InputError`` for an unknown one or a value that is no number."""
    kinds = {"conf": float, "cost": float, "tile": int}
    assert kinds.keys() == {field.name for field in fields(Query)}
    values: dict[str, Any] = {}
    for name, text in given.items():
        if name not in kinds:
            raise InputError(f"{name}: is not an option{did_you_mean(name, kinds)}")
        try:
            values[name] = kinds[name](text)
        except ValueError:
            raise InputError(f"{name}: must be a {_kind(kinds[name])} number, found {text!r}") from None
    return Query(**values)


class ServedDetector:
    """A detector for one request after the other; its methods must not run at the same time.

    Args:
        detector: of any network.
        source: its file, whose name is shown.

    Raises:
        InputError: the network does not run, or its measured instances are damaged.
    """

    def __init__(self, detector: Detector, source: Path) -> None:
        self._detector, self._source = detector, source
        self._costs = _costs(detector)
        self._reading = detector.read_settings()
        # The first prediction, and the first count, take seconds; nobody shall wait for them.
        detector.predict(np.full((_SQUARE, _SQUARE, 3), 114, np.uint8))
        self._multiply_adds([(_SQUARE, _SQUARE)])

    def describe(self) -> dict[str, Any]:
        """Facts about the model: what ``GET /api/model`` returns."""
        detector = self._detector
        return {
            "file": shown_name(self._source.name),
            "model": shown_name(detector.network.name),
            "device": detector.network.device_name,
            "image_size": detector.image_size,
            "max_pixels": MAX_PIXELS,
            "classes": describe_classes(detector.names),
            "costs": self._costs,
        }

    def predict(self, data: bytes, query: Query) -> dict[str, Any]:
        """Detect the objects of an image: what ``POST /api/predict`` returns.

        Raises:
            ImageError: ``data`` is not an image that the toolkit reads.
            InputError: an option is out of range, or not one of this model.
        """
        start = time.perf_counter()
        image = decode_image(data, _WHERE, self._reading)
        was_read = time.perf_counter()
        self._choose(query.cost)
        views_hw = self._views((image.shape[0], image.shape[1]), query.tile)
        options: DetectOptions = {"conf": query.conf, "tile": query.tile, "max_det": MAX_DETECTIONS}
        before = time.perf_counter()
        found = self._detector.predict(image, **options)
        end = time.perf_counter()
        record = to_record(FoundFrame(source=_WHERE, image_rgb=image, detections=found))
        return {
            "width": image.shape[1],
            "height": image.shape[0],
            "detections": record["detections"],
            "reached_limit": found.reached_limit,
            "views": len(views_hw),
            "ms": {"read": round(1000 * (was_read - start), 2), "detect": round(1000 * (end - before), 2)},
            "cost": self._detector.cost,
            "multiply_adds": self._multiply_adds(views_hw),
        }

    def picture(self, data: bytes) -> bytes:
        """A JPEG file of an image, upright and as the detector sees it, for browsers that do not read its format."""
        image = decode_image(data, _WHERE, self._reading)
        scale = MAX_PICTURE_PX / max(image.shape[:2])
        if scale < 1:
            size_wh = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
            image = cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA)
        return cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()

    def _choose(self, cost: float | None) -> None:
        """Switch to the instance of a cost; requests before have left another one in use."""
        if self._costs is not None or cost is not None:
            self._detector.cost = 1.0 if cost is None else cost

    def _views(self, image_hw: tuple[int, int], tile: int | None) -> list[tuple[int, int]]:
        """Height and width of each part of the image that goes through the network."""
        if tile is None:
            return [image_hw]
        windows = Tiling(tile).windows(image_hw)
        if len(windows) > MAX_VIEWS:
            raise InputError(f"tile: {tile} px make {len(windows)} tiles of this image; at most {MAX_VIEWS} are served")
        return [(bottom - top, right - left) for left, top, right, bottom in windows.tolist()]

    def _multiply_adds(self, views_hw: list[tuple[int, int]]) -> int | None:
        network = self._detector.network
        counts = [network.multiply_adds(self._detector.network_hw(view_hw)) for view_hw in views_hw]
        return None if None in counts else sum(count for count in counts if count is not None)


def _costs(detector: Detector) -> dict[str, Any] | None:
    """The networks to choose from, cheapest first, with their costs rounded as in tables; None for a fixed cost."""
    try:
        menu = detector.network.menu()
    except FixedCostError:
        return None
    networks = [
        {
            "name": entry.name,
            "cost": round(entry.cost, 3),
            "multiply_adds": entry.macs,
            "ms": entry.ms,
            "metric": entry.metric,
            "is_best": entry in menu.front_macs,
        }
        for entry in sorted(menu.entries, key=lambda entry: entry.macs)
    ]
    return {"metric": menu.metric, "measured_on": menu.measured, "networks": networks}


def _kind(number: type) -> str:
    return "whole" if number is int else "decimal"
