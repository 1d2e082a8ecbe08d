"""Decode every image, to find damage that the header and trailer of a file do not show.

libjpeg continues after damage and fills in grey, and OpenCV returns the image as if it were intact. The damage is only
reported on the standard error of the process, so that is captured, in separate processes for many images.

Letters: N images.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from detect.curation.check.kinds import DAMAGED_PIXELS, FEW_GREYS, SEVERAL_FRAMES, SURPLUS, UNDECODABLE
from detect.data.animations import describe_file
from detect.data.annotations import Problems
from detect.data.formats.shard_images import StoredImage
from detect.data.images import ImageError, decode_image
from detect.data.pixel_values import FEW_GREY_LEVELS, PLAIN, ReadSettings
from detect.errors import InputError
from detect.runtime.progress import progress_bar

_FEW_IMAGES = 200  # are decoded in the time that processes take to start
_CHUNK = 16  # images per task
_DIGEST_BYTES = 16
_JPEG_START = b"\xff\xd8\xff"
_LEFT_OVER = "extraneous bytes before marker 0xd9"  # all pixels are there, and the data continues


class Decoded(NamedTuple):
    """The result of decoding one image.

    Args:
        digest: of the file's bytes; empty if it could not be read.
        findings: kind and example of each: ``UNDECODABLE``, ``DAMAGED_PIXELS``, ``SURPLUS``, ``SEVERAL_FRAMES``,
            ``FEW_GREYS``.
    """

    digest: bytes
    findings: tuple[tuple[str, str], ...] = ()


def check_pixels(
    images: Sequence[StoredImage], problems: Problems, title: str, workers: int, settings: ReadSettings = PLAIN
) -> list[bytes]:
    """Decode images, report damaged ones, and return N digests of the files, empty for unreadable ones.

    Many images have a progress bar and are divided among ``workers`` processes; 0 decodes in this one.

    Raises:
        InputError: the system ended a process, for want of memory for example.
    """
    digests = []
    is_many = len(images) > _FEW_IMAGES
    with progress_bar(images, f"{title}: decoding", unit=" images", is_shown=is_many) as bar:
        for image, decoded in zip(bar, _decode_all(images, workers if is_many else 0, settings), strict=True):
            digests.append(decoded.digest)
            for kind, found in decoded.findings:
                problems.add(kind, f"{image.path.name}: {found}")
    return digests


def find_undecodable(images: Sequence[StoredImage], workers: int, settings: ReadSettings = PLAIN) -> np.ndarray:
    """Return (N,) bool: images whose pixels cannot be decoded."""
    decoded = _decode_all(images, workers if len(images) > _FEW_IMAGES else 0, settings)
    return np.array([any(kind == UNDECODABLE for kind, _ in one.findings) for one in decoded], bool)


def _decode_all(images: Sequence[StoredImage], workers: int, settings: ReadSettings) -> Iterator[Decoded]:
    decode = partial(_decode, settings=settings)
    if not workers:
        yield from map(decode, images)
        return
    with ProcessPoolExecutor(workers, initializer=cv2.setNumThreads, initargs=(0,)) as pool:
        try:
            yield from pool.map(decode, images, chunksize=_CHUNK)
        except BrokenProcessPool:
            raise InputError(
                f"a process that decoded images of {images[0].path.parent} was ended, perhaps for want of memory; "
                "fewer --workers need less"
            ) from None


def _decode(image: StoredImage, settings: ReadSettings) -> Decoded:
    digest, path = b"", image.path
    try:
        with _standard_error() as heard:
            data = image.read(settings.max_pixels)
            digest = hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()
            pixels = decode_image(data, path.name, settings)
            complaints = heard()
            findings = _content(pixels, data, path)
    except ImageError as error:
        reason = str(error).removeprefix(f"{path.name}: ").removeprefix(f"{path}: ")
        return Decoded(digest, ((UNDECODABLE, reason),))
    if complaints:
        is_whole = all(_LEFT_OVER in line for line in complaints)
        findings += ((SURPLUS if is_whole else DAMAGED_PIXELS, "; ".join(complaints[:2])),)
    return Decoded(digest, findings)


def _content(pixels: np.ndarray, data: bytes, path: Path) -> tuple[tuple[str, str], ...]:
    """Return the findings of an intact image: further frames, or more than 8 bits in a few grey levels."""
    if data.startswith(_JPEG_START) and path.suffix.lower() != ".mpo":
        return ()
    count, has_many_bits = describe_file(BytesIO(data), path.name)
    findings = []
    if count > 1:
        findings.append((SEVERAL_FRAMES, f"{count} frames or pages"))
    levels = len(np.unique(pixels)) if has_many_bits else FEW_GREY_LEVELS
    if levels < FEW_GREY_LEVELS:
        findings.append((FEW_GREYS, f"{levels} levels"))
    return tuple(findings)


@contextmanager
def _standard_error() -> Iterator[Callable[[], list[str]]]:
    """Capture what libraries write to the process's standard error.

    Yields:
        A function that returns the lines so far.
    """
    before = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)

        def heard() -> list[str]:
            file.seek(0)
            return file.read().decode("utf-8", "replace").splitlines()

        try:
            yield heard
        finally:
            os.dup2(before, 2)
            os.close(before)
