"""Reading of images from untrusted files, and writing.

Every image of the toolkit comes through here: RGB, uint8, (H, W, 3), with the EXIF orientation applied, or, if there is
none, that of its XMP. JPEG is decoded by OpenCV, because it is the hot path of training; everything else by Pillow,
which is a little slower, stricter about damage and silent on standard error.
"""

from __future__ import annotations

import re
import stat
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from detect.data.image_headers import TAG_ORIENTATION, Stream, is_complete, parse_header, without_metadata
from detect.data.pixel_values import (
    MAX_PIXELS,
    MAX_TILED_PIXELS,
    PLAIN,
    ReadSettings,
    deep_values,
    depth_text,
    high_byte,
    is_deep,
    is_unsigned_16,
    to_bytes,
)
from detect.errors import InputError
from detect.runtime.files import atomic_path

MAX_FILE_BYTES = 2**30
"""Limit of a file; the largest allowed image is half of that uncompressed."""

FORMATS: dict[str, tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo"),
    "PNG": (".png", ".apng"),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "AVIF": (".avif",),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
}
"""Readable formats, by Pillow's names, and the suffixes of their files."""

IMAGE_SUFFIXES = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)
"""Suffixes of images in folders, lower case. A file given by its path may have any suffix."""

_PILLOW_FORMATS = tuple(FORMATS)
_HEAD_BYTES = 64 * 1024
_WARNINGS_LOCK = threading.RLock()

# Pillow's exceptions for damaged files, found by mutating real ones; they have no common base class.
_PILLOW_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    EOFError,
    OverflowError,
    AttributeError,
    ZeroDivisionError,
    RuntimeError,
    struct.error,
    MemoryError,
    UserWarning,
)


class ImageError(InputError):
    """An image that cannot be used; the message is one line."""


class ImageHeader(NamedTuple):
    """Size and orientation of an image.

    Args:
        size_hw: height and width as shown, after the EXIF rotation.
        orientation: EXIF orientation, 1 (upright) to 8; 5 to 8 swap height and width.
    """

    size_hw: tuple[int, int]
    orientation: int


def read_image(path: Path, settings: ReadSettings = PLAIN) -> np.ndarray:
    """Read an image file as RGB (H, W, 3) uint8; see ``decode_image``."""
    return decode_image(read_image_file(path, settings.max_pixels), str(path), settings)


def read_image_file(path: Path, max_pixels: int = MAX_PIXELS) -> bytes:
    """Read the content of an image file; ``ImageError`` if it is missing, no file, or too large."""
    with open_image_file(path, max_pixels) as file:
        return file.read()


def decode_image(data: bytes, where: str, settings: ReadSettings = PLAIN) -> np.ndarray:
    """Decode an image file's content, of one of ``FORMATS``; of an animation the first frame.

    Args:
        data: the file's bytes.
        where: name of the image in error messages.
        settings: range of values and limit of pixels.

    Returns:
        (H, W, 3) uint8 RGB, EXIF orientation applied. An alpha channel is dropped; without a range, of 16 bits the high
        byte is kept (value // 256), of other depths above 8 the eight highest bits.

    Raises:
        ImageError: it is truncated, damaged, not an image, has more than ``settings.max_pixels`` pixels, or values that
            need a range.
    """
    stream = _parse(data, where, settings.max_pixels)
    if stream is None:
        return _decode_by_pillow(data, where, None, settings)
    if data.rfind(stream.end_marker, stream.data_start) < 0:
        raise _truncated(where)
    if stream.is_png:
        data = without_metadata(data)
    if not stream.is_plain_jpeg:
        return _decode_by_pillow(data, where, stream.orientation, settings)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise ImageError(f"{where}: cannot be decoded: {error.err}") from None
    if image is None:
        return _decode_by_pillow(data, where, stream.orientation, settings)
    return _upright(image, stream.orientation)


def read_header(path: Path, max_pixels: int = MAX_PIXELS) -> ImageHeader:
    """Read size and orientation of an image file; see ``header_of``."""
    with open_image_file(path, max_pixels) as file:
        return header_of(file, str(path), max_pixels)


def header_of(file: BinaryIO, where: str, max_pixels: int = MAX_PIXELS) -> ImageHeader:
    """Read size and orientation of an open file at its beginning, without decoding it where its format allows.

    JPEG and PNG are checked by their first and last bytes: the end marker of a complete file must be there. The other
    formats have none, so they are decoded.

    Raises:
        ImageError: as ``decode_image``, for all damage that is visible without decoding.
    """
    data = file.read(_HEAD_BYTES)
    stream = _parse(data, where, max_pixels)
    if stream is None or stream.data_start == len(data):  # the header is longer than usual, or not ours to parse
        data += file.read()
        stream = _parse(data, where, max_pixels)
    if stream is None:
        return _decode_header_by_pillow(data, where, max_pixels)
    if not is_complete(file, stream):
        raise _truncated(where)
    return _header(stream)


def read_deep_values(data: bytes, where: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode an image of more than 8 bits a channel to (H, W) or (H, W, 3) values, not rotated."""
    with pillow_errors(where), open_by_pillow(BytesIO(data), max_pixels) as opened:
        _check_pixels(opened.height, opened.width, where, max_pixels)
        return deep_values(opened, data)


def is_image_file(path: Path) -> bool:
    """Return True for a file that begins as one of ``FORMATS``."""
    try:
        with (
            pillow_errors(str(path)),
            open_image_file(path, MAX_TILED_PIXELS) as file,
            open_by_pillow(file, MAX_TILED_PIXELS),
        ):
            return True
    except ImageError:
        return False


def from_pil(image: Image.Image, where: str = "PIL image", settings: ReadSettings = PLAIN) -> np.ndarray:
    """Convert an image of Pillow of any mode as ``decode_image`` does its file; it is left as it is, but loaded."""
    with pillow_errors(where):
        return upright_rgb(image, where, settings)


def write_image(path: Path, image_rgb: np.ndarray) -> None:
    """Write an image atomically; JPEG with quality 95.

    Args:
        path: its suffix chooses the format.
        image_rgb: (H, W, 3) uint8 RGB.

    Raises:
        InputError: no such format can be written, or the image is too large for the format.
    """
    if not cv2.haveImageWriter(f"image{path.suffix.lower()}"):
        raise InputError(f"{path}: images cannot be written with the suffix {path.suffix!r}; use .jpg or .png")
    is_encoded, encoded = cv2.imencode(path.suffix.lower(), cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR))
    if not is_encoded:
        height, width = image_rgb.shape[:2]
        raise InputError(
            f"{path}: {width} x {height} pixels cannot be written as {path.suffix}; use .png, or a smaller image"
        )
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded.tobytes())


def open_image_file(path: Path, max_pixels: int = MAX_PIXELS) -> BinaryIO:
    """Open an image file; pipes and devices, which have no end, are refused.

    Args:
        path: the file.
        max_pixels: limit of pixels, which raises the limit of bytes.

    Raises:
        ImageError: it is not a file, is too large, or cannot be opened.
    """
    max_bytes = MAX_FILE_BYTES * max_pixels // MAX_PIXELS if max_pixels > MAX_PIXELS else MAX_FILE_BYTES
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(f"{path}: is not a file")
        if status.st_size > max_bytes:
            raise ImageError(f"{path}: has {status.st_size / 2**30:.1f} GiB; at most {max_bytes / 2**30:.0f} is read")
        return path.open("rb")
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror or error}") from None


def _parse(data: bytes, where: str, max_pixels: int) -> Stream | None:
    if not data:
        raise ImageError(f"{where}: is empty")
    stream = parse_header(data)
    if stream is not None:
        _check_pixels(*stream.stored_hw, where, max_pixels)
    return stream


def _header(stream: Stream) -> ImageHeader:
    height, width = stream.stored_hw
    return ImageHeader((width, height) if stream.orientation >= 5 else (height, width), stream.orientation)


def _truncated(where: str) -> ImageError:
    return ImageError(f"{where}: is truncated (the end of the file is missing); copy it again")


def _check_pixels(height: int, width: int, where: str, max_pixels: int) -> None:
    if height < 1 or width < 1:
        raise ImageError(f"{where}: has no pixels ({width} x {height})")
    if height * width > max_pixels:
        raise _too_large(where, f"{width} x {height} pixels", height * width, max_pixels)


def _too_large(where: str, found: str, num_pixels: int, max_pixels: int) -> ImageError:
    """Make an error with a hint; tiles are mentioned only if they help."""
    hint = "scale it down, or cut it into several files"
    if max_pixels < num_pixels <= MAX_TILED_PIXELS:
        hint += f"; with --tile, predict and evaluate look at up to {MAX_TILED_PIXELS}"
    return ImageError(f"{where}: has {found}; allowed are {max_pixels}: {hint}")


# --------------------------------------------------------------------------------------------------------- by Pillow


def _decode_by_pillow(data: bytes, where: str, orientation: int | None, settings: ReadSettings) -> np.ndarray:
    """Decode by Pillow; ``orientation`` None is the one that Pillow finds."""
    with pillow_errors(where, settings.max_pixels), open_by_pillow(BytesIO(data), settings.max_pixels) as opened:
        return upright_rgb(opened, where, settings, orientation, data)


@contextmanager
def pillow_errors(where: str, max_pixels: int = MAX_PIXELS) -> Iterator[None]:
    """Turn all exceptions of Pillow into ``ImageError``."""
    try:
        yield
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        number = re.search(r"\d+", str(error))  # of pixels, or none
        num_pixels = int(number.group()) if number else max_pixels + 1
        raise _too_large(where, "too many pixels", num_pixels, max_pixels) from None
    except UnidentifiedImageError:
        raise ImageError(f"{where}: is not an image, or damaged; read are {', '.join(_PILLOW_FORMATS)}") from None
    except _PILLOW_ERRORS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"{where}: cannot be decoded: {reason}") from None


def _decode_header_by_pillow(data: bytes, where: str, max_pixels: int) -> ImageHeader:
    with pillow_errors(where, max_pixels):
        with open_by_pillow(BytesIO(data), max_pixels) as opened:
            orientation = _pillow_orientation(opened)
            _check_pixels(opened.height, opened.width, where, max_pixels)
            _load(opened)
            height, width = opened.height, opened.width
            still_to_turn = _pillow_orientation(
                opened
            )  # Pillow's TIFF reader rotates the pixels itself, then returns 1
        return ImageHeader((width, height) if still_to_turn >= 5 else (height, width), orientation)


def open_by_pillow(file: BinaryIO, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read the header only. Pillow's own limit of pixels is raised to a higher ``max_pixels`` meanwhile."""
    with without_warnings():
        limit = Image.MAX_IMAGE_PIXELS
        if max_pixels > MAX_PIXELS:
            Image.MAX_IMAGE_PIXELS = max_pixels
        try:
            return Image.open(file, formats=_PILLOW_FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _pillow_orientation(image: Image.Image) -> int:
    with without_warnings():
        found = image.getexif().get(TAG_ORIENTATION, 1)
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def upright_rgb(
    image: Image.Image,
    where: str,
    settings: ReadSettings = PLAIN,
    orientation: int | None = None,
    data: bytes = b"",
    page: int = 0,
) -> np.ndarray:
    """Convert an image opened at ``page`` to pixels as shown, (H, W, 3) uint8.

    ``orientation`` None is the one that Pillow finds; ``data`` is the file's content, if there is one.
    """
    _check_pixels(image.height, image.width, where, settings.max_pixels)
    pixels = _to_rgb(image, where, settings.value_range, data, page)
    if orientation is None:  # after loading: Pillow's TIFF reader rotates the pixels itself, then returns 1
        orientation = _pillow_orientation(image)
    return _upright(pixels, orientation)


@contextmanager
def without_warnings() -> Iterator[None]:
    """Silence Pillow's warnings of large images (our limit is the larger one) and of repaired damage."""
    with _WARNINGS_LOCK, warnings.catch_warnings():  # the filters belong to the process: one thread at a time
        warnings.simplefilter("ignore")
        yield


def _load(image: Image.Image) -> None:
    """Decode; only Pillow's TIFF reader may warn at this point."""
    with without_warnings() if image.format == "TIFF" else nullcontext():
        image.load()


def _to_rgb(
    image: Image.Image, where: str, value_range: tuple[float, float] | None, data: bytes, page: int
) -> np.ndarray:
    """(H, W, 3) uint8 as stored."""
    is_grey = image.mode in ("I", "F") or image.mode.startswith("I;16")
    if value_range is not None and is_deep(image) and (is_grey or data):
        with without_warnings() if image.format == "TIFF" else nullcontext():
            pixels = to_bytes(deep_values(image, data, page), value_range)
        return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
    if is_grey and not is_unsigned_16(image):
        raise ImageError(
            f"{where}: has {depth_text(image)}, and its values of black and white are unknown: give the data "
            "config 'range: [low, high]', or convert it to 8 bits"
        )
    _load(image)
    if is_grey:
        return np.repeat(high_byte(image)[..., None], 3, axis=2)
    if "transparency" in image.info:  # the alpha is dropped, so that no conversion has to interpret it
        image = image.copy()
        del image.info["transparency"]
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))  # a conversion to itself is a copy


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an EXIF orientation (EXIF 2.32, 4.6.4: where row 0 and column 0 are shown)."""
    if orientation in (5, 7):
        image = cv2.transpose(image)
        orientation = 3 if orientation == 7 else 1
    if orientation in (2, 4):
        return cv2.flip(image, 1 if orientation == 2 else 0)
    turns = {3: cv2.ROTATE_180, 6: cv2.ROTATE_90_CLOCKWISE, 8: cv2.ROTATE_90_COUNTERCLOCKWISE}
    return cv2.rotate(image, turns[orientation]) if orientation in turns else image
