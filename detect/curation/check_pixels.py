"""Decoding every image, to find the damage that the first and last bytes of a file do not show.

libjpeg goes on after damage and fills in grey, and OpenCV gives the image as if nothing had happened. What is wrong is
only said on the standard error of the process, so that is listened to, in processes of their own where there are many
images. Letters: N images.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import NamedTuple

import cv2

from detect.curation.severity import DAMAGED_PIXELS, SURPLUS, UNDECODABLE
from detect.data.annotations import Problems
from detect.data.images import ImageError, decode_image
from detect.data.shard_images import StoredImage
from detect.errors import InputError
from detect.runtime.progress import progress_bar

_FEW_IMAGES = 200  # so many are decoded in the time that processes take to start
_CHUNK = 16  # images of one task
_DIGEST_BYTES = 16
_LEFT_OVER = "extraneous bytes before marker 0xd9"  # all pixels are there, and the data goes on


class Decoded(NamedTuple):
    """What came of one image.

    Args:
        digest: of the file's bytes; empty if it could not be read.
        kind: ``UNDECODABLE``, ``DAMAGED_PIXELS``, ``SURPLUS``, or empty.
        complaint: what is wrong.
    """

    digest: bytes
    kind: str
    complaint: str


def check_pixels(images: Sequence[StoredImage], problems: Problems, title: str, workers: int) -> list[bytes]:
    """Decode images and report those that are damaged.

    Args:
        images: N image files.
        problems: gets what is wrong.
        title: of the progress bar, which is shown for many images.
        workers: processes for many images; 0 decodes in this one.

    Returns:
        N digests of the files' content; empty for files that cannot be read.

    Raises:
        InputError: the system ended a process, for want of memory for example.
    """
    digests = []
    is_many = len(images) > _FEW_IMAGES
    with progress_bar(images, f"{title}: decoding", unit=" images", is_shown=is_many) as bar:
        for image, decoded in zip(bar, _decode_all(images, workers if is_many else 0), strict=True):
            digests.append(decoded.digest)
            if decoded.kind:
                problems.add(decoded.kind, f"{image.path.name}: {decoded.complaint}")
    return digests


def _decode_all(images: Sequence[StoredImage], workers: int) -> Iterator[Decoded]:
    if not workers:
        yield from map(_decode, images)
        return
    with ProcessPoolExecutor(workers, initializer=cv2.setNumThreads, initargs=(0,)) as pool:
        try:
            yield from pool.map(_decode, images, chunksize=_CHUNK)
        except BrokenProcessPool:
            raise InputError(
                f"a process that decoded images of {images[0].path.parent} was ended, perhaps for want of memory; "
                "fewer --workers need less"
            ) from None


def _decode(image: StoredImage) -> Decoded:
    digest, path = b"", image.path
    try:
        with _standard_error() as heard:
            data = image.read()
            digest = hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()
            decode_image(data, path.name)
            complaints = heard()
    except ImageError as error:
        return Decoded(digest, UNDECODABLE, str(error).removeprefix(f"{path.name}: ").removeprefix(f"{path}: "))
    if not complaints:
        return Decoded(digest, "", "")
    is_whole = all(_LEFT_OVER in line for line in complaints)
    return Decoded(digest, SURPLUS if is_whole else DAMAGED_PIXELS, "; ".join(complaints[:2]))


@contextmanager
def _standard_error() -> Iterator[Callable[[], list[str]]]:
    """Keep what libraries write to the process's standard error from the terminal.

    Yields:
        A function that gives the lines so far.
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
