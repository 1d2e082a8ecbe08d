"""Images of more than 8 bits a channel: their values, and the conversion to bytes.

Letters: H W pixels.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

MAX_PIXELS = 178_956_970
"""Default limit of pixels, checked before decoding; Pillow's own limit, too."""

MAX_TILED_PIXELS = 2**29
"""Limit with tiles (``--tile``). Decoding takes 7 bytes a pixel, so 3.5 GiB."""

FEW_GREY_LEVELS = 16
"""Least useful number of the 256 levels of an image of more than 8 bits a channel."""

_DEEP_COLOUR = re.compile(r"\b(?:RGB|RGBA|RGBX|RGBa|LA);16")
"""Names of Pillow's unpackers of 16 bits a channel; ``BGR;16`` has 16 bits a pixel."""
_TAG_BITS_PER_SAMPLE, _TAG_SAMPLE_FORMAT = 258, 339
_SAMPLE_FORMATS = {1: "unsigned", 2: "signed", 3: "floating point"}
_MAX_TABLE = 2**16


@dataclass(frozen=True)
class ReadSettings:
    """Conversion of image files to pixels.

    Args:
        value_range: of images of more than 8 bits a channel: values up to the first become 0, from the second on 255,
            with equal steps between them. None keeps the high byte of unsigned 16 bits; others are refused then. Images
            of 8 bits are not changed.
        max_pixels: larger images are refused before they are decoded.
    """

    value_range: tuple[float, float] | None = None
    max_pixels: int = MAX_PIXELS


PLAIN = ReadSettings()
"""Default settings."""


def is_deep(image: Image.Image) -> bool:
    """Return True if an image that Pillow has opened, not yet loaded, has more than 8 bits a channel."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return True
    return _has_deep_colour(image)


def is_unsigned_16(image: Image.Image) -> bool:
    """Return True for a deep image of at most 16 unsigned bits, whose high byte is a picture."""
    is_grey = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    return is_grey or _has_deep_colour(image)


def deep_values(image: Image.Image, data: bytes, page: int = 0) -> np.ndarray:
    """Decode the stored values of a deep image, (H, W), or (H, W, 3) RGB.

    Args:
        image: opened by Pillow, at ``page``; loaded, unless it has colours, of which Pillow keeps the high bytes.
        data: the file's content.
        page: of several in the file.

    Raises:
        ValueError: OpenCV cannot decode its colours.
    """
    if not _has_deep_colour(image):
        image.load()
        return np.asarray(image)
    # Not IMREAD_COLOR_RGB, with which OpenCV 5.0 spoils TIFF of 16 bits.
    flags = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    content = np.frombuffer(data, np.uint8)
    try:
        if page:
            is_read, pages = cv2.imdecodemulti(content, flags, range=(page, page + 1))
            values = pages[0] if is_read and pages else None
        else:
            values = cv2.imdecode(content, flags)
    except cv2.error as error:
        raise ValueError(error.err) from None
    if values is None or values.ndim != 3:
        raise ValueError("its colours cannot be decoded with all their bits")
    return np.ascontiguousarray(values[..., ::-1])


def to_bytes(values: np.ndarray, value_range: tuple[float, float]) -> np.ndarray:
    """Map values to 0 ... 255: floor((value - low) * 256 / (high - low)), clipped; NaN is 0.

    (0, 65536) gives the high byte of 16 bits.
    """
    if values.dtype == np.uint16 and values.size > _MAX_TABLE:
        table: np.ndarray = to_bytes(np.arange(2**16, dtype=np.int64), value_range)
        return table[values]
    low, high = value_range
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = np.floor((values.astype(np.float64) - low) * (256 / (high - low)))
    return np.clip(np.nan_to_num(scaled, nan=0.0), 0, 255).astype(np.uint8)


def high_byte(image: Image.Image) -> np.ndarray:
    """Return the highest eight bits, (H, W) uint8, of a loaded grey image of up to 16 unsigned bits."""
    tags = getattr(image, "tag_v2", {})
    bits = int(np.ravel(tags.get(_TAG_BITS_PER_SAMPLE, 16))[0])
    return np.clip(np.asarray(image) >> (bits - 8), 0, 255).astype(np.uint8)


def depth_text(image: Image.Image) -> str:
    """Bits a channel and their meaning, such as ``16 bits a channel (signed)``."""
    tags = getattr(image, "tag_v2", {})
    bits = int(np.ravel(tags.get(_TAG_BITS_PER_SAMPLE, 32))[0])
    kind = int(np.ravel(tags.get(_TAG_SAMPLE_FORMAT, 3 if image.mode == "F" else 1))[0])
    return f"{bits} bits a channel ({_SAMPLE_FORMATS.get(kind, 'of another kind')})"


def _has_deep_colour(image: Image.Image) -> bool:
    return any(_DEEP_COLOUR.search(str(tile)) for tile in getattr(image, "tile", ()))
