"""Headers of JPEG and PNG files: size, EXIF or XMP orientation, and the start and end of the compressed data.

Each training image is parsed: it takes 19 us, by Pillow 68 us (``benchmarks/image_headers.py``, 1,464 JPEGs of 37 KB;
an image of 32 x 32 px is decoded in 18 us). Nor does Pillow report the coding
of a JPEG, or open a PNG with a damaged colour profile.
"""

from __future__ import annotations

import re
import struct
from typing import BinaryIO, NamedTuple

_TAIL_BYTES = 4 * 1024
_JPEG_START, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND"
TAG_ORIENTATION = 274
_PNG_XMP = b"XML:com.adobe.xmp\0\0"  # not compressed, as XMP has it
_XMP_START = b"http://ns.adobe.com/xap/1.0/\0"
_XMP_ORIENTATION = re.compile(rb"tiff:Orientation(?:\s*=\s*[\"']|>)\s*([1-8])\b")


class Stream(NamedTuple):
    """Parsed header of a JPEG or PNG.

    Args:
        stored_hw: height and width as stored, before the EXIF rotation.
        orientation: EXIF orientation, 1 to 8.
        data_start: offset of the compressed data; the end marker comes after it.
        end_marker: bytes that only a complete file has after ``data_start``.
        is_plain_jpeg: OpenCV decodes it faithfully: 8 bits, 1 or 3 channels, Huffman coded.
    """

    stored_hw: tuple[int, int]
    orientation: int
    data_start: int
    end_marker: bytes
    is_plain_jpeg: bool

    @property
    def is_png(self) -> bool:
        return self.end_marker == _PNG_END


def parse_header(data: bytes) -> Stream | None:
    """Parse the header of a JPEG or PNG; None for other formats and for a JPEG whose header is longer than ``data``."""
    if data.startswith(_JPEG_START):
        return _parse_jpeg(data)
    return _parse_png(data) if data.startswith(_PNG_START) else None


def _parse_jpeg(data: bytes) -> Stream | None:
    """Walk the segments up to the first scan (ITU-T T.81, B.1 and B.2)."""
    position, orientation, of_xmp, frame = 2, 0, 0, None
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            return None
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:  # these have no length
            position += 2
            continue
        body = data[position + 4 : position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")]
        if marker == 0xDA and frame is not None:
            precision, height, width, channels, huffman = frame
            is_plain = precision == 8 and channels in (1, 3) and huffman
            return Stream((height, width), orientation or of_xmp or 1, position, _JPEG_END, is_plain)
        if marker in (0xD9, 0xDA):
            return None
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and len(body) >= 6:
            frame = (*struct.unpack(">BHHB", body[:6]), marker <= 0xC2)
        elif marker == 0xE1 and body.startswith(b"Exif\0\0") and not orientation:
            orientation = _exif_orientation(body[6:])
        elif marker == 0xE1 and body.startswith(_XMP_START):
            of_xmp = of_xmp or _xmp_orientation(body)
        position += 2 + max(2, int.from_bytes(data[position + 2 : position + 4], "big"))
    return None


def _parse_png(data: bytes) -> Stream | None:
    """Walk the chunks up to the first image data (PNG 3rd edition, 5.3); ``eXIf`` behind it is not looked for."""
    if data[12:16] != b"IHDR" or len(data) < 33:
        return None
    width, height = struct.unpack(">II", data[16:24])
    position, orientation, of_xmp = 33, 0, 0
    while position + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[position : position + 8])
        if kind == b"IDAT":
            break
        if kind == b"eXIf":
            orientation = _exif_orientation(data[position + 8 : position + 8 + length])
        elif kind == b"iTXt" and data.startswith(_PNG_XMP, position + 8):
            of_xmp = _xmp_orientation(data[position + 8 : position + 8 + length])
        position += 12 + length
    return Stream((height, width), orientation or of_xmp or 1, min(position, len(data)), _PNG_END, is_plain_jpeg=False)


def without_metadata(png: bytes) -> bytes:
    """Return a PNG's critical chunks only: a damaged colour profile or a text bomb does not spoil the pixels."""
    kept, position = [_PNG_START], len(_PNG_START)
    while position + 12 <= len(png):
        length, kind = struct.unpack(">I4s", png[position : position + 8])
        if kind[:1].isupper():  # upper case of the first letter: critical (PNG 3rd edition, 5.4)
            kept.append(png[position : position + 12 + length])
        position += 12 + length
    return b"".join(kept)


def _xmp_orientation(packet: bytes) -> int:
    """Return the orientation of an XMP packet, else 0 (XMP specification part 2, 2.10: tiff:Orientation)."""
    found = _XMP_ORIENTATION.search(packet)
    return int(found.group(1)) if found else 0


def _exif_orientation(tiff: bytes) -> int:
    """Return the orientation of an EXIF block (a TIFF header and its first directory), else 0 (EXIF 2.32, 4.6)."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None or len(tiff) < 10:
        return 0
    start = int(struct.unpack(f"{order}I", tiff[4:8])[0])
    if start + 2 > len(tiff):
        return 0
    count = struct.unpack(f"{order}H", tiff[start : start + 2])[0]
    for entry in range(start + 2, min(start + 2 + 12 * count, len(tiff) - 11), 12):
        tag, kind, _, value = struct.unpack(f"{order}HHIH", tiff[entry : entry + 10])
        if tag == TAG_ORIENTATION:
            return int(value) if kind == 3 and 1 <= value <= 8 else 0
    return 0


def is_complete(file: BinaryIO, stream: Stream) -> bool:
    """Return True if the end marker follows the compressed data: in the last bytes, or (with a trailer) anywhere."""
    size = file.seek(0, 2)
    file.seek(max(stream.data_start, size - _TAIL_BYTES))
    if stream.end_marker in file.read():
        return True
    file.seek(stream.data_start)
    return stream.end_marker in file.read()
