"""Objects that keep their number from frame to frame, through the library ``trackers`` (Roboflow, Apache-2.0).

Source: Zhang et al., ByteTrack, ECCV 2022. A track begins with a detection that is good enough to be shown; a weaker
one, which would be dropped otherwise, can continue it, so that an object that is half hidden keeps its number.

Letters: N detections of a frame.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from detect.errors import InputError
from detect.inference.frames import Frame
from detect.structures import Detections

WEAK_SCORE = 0.1
"""Detections from here on can continue a track (section 3 of the paper)."""


class Tracks:
    """The objects of one video after the other.

    Args:
        conf: least score of what begins a track.

    Raises:
        InputError: the library is not installed.
    """

    def __init__(self, conf: float) -> None:
        try:
            import supervision
            import trackers
        except ModuleNotFoundError as error:
            raise InputError(f"tracking needs the package {error.name}: pip install -e '.[track]'") from None
        self._conf = conf
        self._tracker_class = trackers.ByteTrackTracker
        self._detections_class = supervision.Detections
        self._tracker: Any = None
        self._source: str | None = None

    def follow(self, frame: Frame, found: Detections) -> Detections:
        """Tell which object each detection is.

        Args:
            frame: the next one of its video, or the first one of another; images have no tracks.
            found: in it, down to ``WEAK_SCORE``.

        Returns:
            Those from ``conf`` on and those that continue a track, with ``track_ids``. An object has its number from
            its second frame on; numbers begin with 1 in each video.
        """
        if frame.clip is None:
            return found.select(found.scores >= self._conf)
        if frame.source != self._source:
            self._source = frame.source
            self._tracker = self._tracker_class(
                frame_rate=frame.clip.fps,
                track_activation_threshold=self._conf,
                high_conf_det_threshold=self._conf,
            )
        # The library may return the rows in another order.
        given = self._detections_class(
            xyxy=found.boxes_xyxy_px, confidence=found.scores, data={"row": np.arange(len(found))}
        )
        tracked = self._tracker.update(given, timestamp=frame.time_s)
        track_ids = np.full(len(found), -1, np.int64)
        if len(tracked):
            track_ids[tracked.data["row"]] = np.where(tracked.tracker_id < 0, -1, tracked.tracker_id + 1)
        return replace(found, track_ids=track_ids).select((found.scores >= self._conf) | (track_ids > 0))
