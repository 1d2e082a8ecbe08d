"""From sources to single images with what is known of them, and what was found in them.

Letters: H W pixels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from detect.data.animations import Animation
from detect.data.images import ImageError
from detect.data.pixel_values import PLAIN, ReadSettings
from detect.errors import InputError
from detect.inference.inputs import as_image
from detect.inference.sources import Source
from detect.inference.video import Clip, Video
from detect.inference.video_probe import VideoError
from detect.runtime.logs import LOGGER
from detect.structures import Detections


@dataclass(frozen=True, kw_only=True)
class Frame:
    """An image, or a frame of a video, camera or stream.

    Args:
        source: the name of its source.
        image_rgb: (H, W, 3) uint8.
        index: the frame's number in its video, from 0; None for images.
        time_s: the frame's time in seconds from the start of its video; None for images.
        clip: what is known of the video; None for images.
    """

    source: str
    image_rgb: np.ndarray
    index: int | None = None
    time_s: float | None = None
    clip: Clip | None = None


@dataclass(frozen=True, kw_only=True)
class FoundFrame(Frame):
    """A frame with what was found in it.

    Args:
        detections: in its pixels.
    """

    detections: Detections

    def line(self) -> str:
        """The source and how many objects of each class were found, in one line."""
        return " ".join(f"{self.source}: {counted(Counter(self.detections.class_names))}".split())


def counted(classes: Counter[str]) -> str:
    """How many of each class, the most frequent first: ``12 car, 1 bus``."""
    return ", ".join(f"{count} {name}" for name, count in classes.most_common()) or "nothing"


def read_frames(sources: Sequence[Source], every: int = 1, reading: ReadSettings = PLAIN) -> Iterator[Frame]:
    """Read sources one after the other, one frame at a time.

    Args:
        sources: where from. Unreadable ones among several are skipped, reported one by one and counted at the end.
        every: of a video or an animation only each so-many-th frame is given.
        reading: the range of values of more than 8 bits, and the limit of pixels.

    Yields:
        A frame for each readable image, and those of each video and animation.

    Raises:
        ImageError: the only source, or every source, is unreadable.
        VideoError: the only source is a video and unreadable.
        InputError: an array is no image.
    """
    unreadable: list[InputError] = []
    for source in sources:
        try:
            yield from _frames_of(source, every, reading)
        except (ImageError, VideoError) as error:
            unreadable.append(error)
            if len(sources) > 1:
                LOGGER.warning("%s (skipped)", " ".join(str(error).split()))
    what = "images" if all(source.kind == "still" for source in sources) else "sources"
    if unreadable and len(unreadable) == len(sources):
        if len(sources) == 1:
            raise unreadable[0]
        raise ImageError(f"none of the {len(sources)} {what} could be read; the first: {unreadable[0]}")
    if unreadable:
        LOGGER.warning("%d of %d %s could not be read and were skipped", len(unreadable), len(sources), what)


def _frames_of(source: Source, every: int, reading: ReadSettings) -> Iterator[Frame]:
    if source.kind == "still":
        yield Frame(source=source.name, image_rgb=as_image(source.origin, reading))
        return
    if source.kind == "animation":
        yield from _animated(source, every, reading)
        return
    video = Video(source, every)
    for index, time_s, image_rgb in video.frames():
        yield Frame(source=source.name, image_rgb=image_rgb, index=index, time_s=time_s, clip=video.clip)


def _animated(source: Source, every: int, reading: ReadSettings) -> Iterator[Frame]:
    """The frames of an animation, or the pages of a TIFF."""
    assert source.path is not None, "it is a file"
    animation = Animation(source.path, reading)
    clip = Clip(animation.fps / every, -(-animation.num_frames // every), is_live=False)
    index = -1
    try:
        for index, (time_s, image_rgb) in enumerate(animation.frames()):
            if index % every == 0:
                yield Frame(source=source.name, image_rgb=image_rgb, index=index, time_s=time_s, clip=clip)
    except ImageError as error:
        if index < 0:
            raise
        LOGGER.warning("%s; it ended after %d of %d frames", error, index + 1, animation.num_frames)
