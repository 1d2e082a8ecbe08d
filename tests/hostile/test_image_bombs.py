"""Small files that say they are gigantic images: refused before the memory is taken, in every format."""

from __future__ import annotations

import resource
import struct
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from detect.data.images import decode_image, read_header
from tests.hostile.fuzzed import check_message, message_of

SIDE = 60_000
"""Squared, 20 times what is allowed: 10.8 GB."""


def saved(kind, **words):
    file = BytesIO()
    Image.fromarray(np.zeros((9, 13, 3), np.uint8)).save(file, kind, **words)
    return bytearray(file.getvalue())


def jpeg():
    content = saved("JPEG")
    frame = content.index(b"\xff\xc0")
    content[frame + 5 : frame + 9] = struct.pack(">HH", SIDE, SIDE)
    return content


def png():
    content = saved("PNG")
    content[16:24] = struct.pack(">II", SIDE, SIDE)
    return content


def gif():
    content = saved("GIF")
    content[6:10] = struct.pack("<HH", SIDE, SIDE)
    frame = content.index(b",", 13 + 3 * 2 ** ((content[10] & 7) + 1))
    content[frame + 5 : frame + 9] = struct.pack("<HH", SIDE, SIDE)
    return content


def bmp():
    content = saved("BMP")
    content[18:26] = struct.pack("<ii", SIDE, SIDE)
    return content


def tiff(side=SIDE, **words):
    content = saved("TIFF", **words)
    start = struct.unpack("<I", content[4:8])[0]
    for entry in range(start + 2, start + 2 + 12 * struct.unpack("<H", content[start : start + 2])[0], 12):
        if struct.unpack("<H", content[entry : entry + 2])[0] in (256, 257, 278):  # width, height, rows per strip
            content[entry + 2 : entry + 12] = struct.pack("<HII", 4, 1, side)
    return content


def compressed_tiff():
    return tiff(compression="tiff_deflate")


def webp():
    """An extended file (VP8X), whose canvas has three bytes for each side, less one."""
    frame = saved("WEBP")[12:]
    sides = (SIDE - 1).to_bytes(3, "little") * 2
    body = b"WEBPVP8X" + struct.pack("<II", 10, 0) + sides + frame
    return b"RIFF" + struct.pack("<I", len(body)) + body


def ppm():
    return saved("PPM").replace(b"13 9", f"{SIDE} {SIDE}".encode())


def jpeg2000():
    """The box ``ihdr`` and the marker SIZ say the same size."""
    content = saved("JPEG2000")
    content[(place := content.index(b"ihdr") + 4) : place + 8] = struct.pack(">II", SIDE, SIDE)
    content[(place := content.index(b"\xff\x51") + 6) : place + 8] = struct.pack(">II", SIDE, SIDE)
    return content


@pytest.mark.parametrize("make", [jpeg, png, gif, bmp, tiff, compressed_tiff, webp, ppm, jpeg2000])
def test_gigantic_images(tmp_path, make):
    content = bytes(make())
    (tmp_path / "bomb").write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for message in (message_of(decode_image, content, "bomb"), message_of(read_header, tmp_path / "bomb")):
        check_message(message)
        assert "pixels; allowed are 178956970" in message
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_a_gigantic_avif_is_refused_by_its_library():
    content = saved("AVIF")
    place = content.index(b"ispe") + 8
    content[place : place + 8] = struct.pack(">II", SIDE, SIDE)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    check_message(message_of(decode_image, bytes(content), "bomb"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_a_large_tiff_that_is_cut_off():
    """Found by fuzzing: Pillow has a smaller limit than ours, and warns of it as late as when it decodes a TIFF."""
    content = bytes(tiff(side=9_600))  # 92 million pixels, Pillow warns from 89 million on
    assert "cannot be decoded" in message_of(decode_image, content, "large")


def test_a_tiff_with_a_tag_beyond_its_end(tmp_path):
    """Found by fuzzing: Pillow warns of it once more when it is asked for the orientation."""
    content = saved("TIFF")
    start = struct.unpack("<I", content[4:8])[0]
    place = content.index(struct.pack("<HHI", 278, 4, 1), start)  # rows per strip, which has a default
    content[place + 4 : place + 8] = struct.pack("<I", 2**30)
    (tmp_path / "image").write_bytes(content)
    assert read_header(tmp_path / "image").size_hw == (9, 13)


def test_damage_that_only_the_library_of_avif_finds():
    """Found by fuzzing: its decoder raises a ``RuntimeError``."""
    content = saved("AVIF")
    content[-40:] = bytes(40)
    for place in range(len(content) - 60, len(content) - 40):
        content[place] ^= 0xFF
    check_message(message_of(decode_image, bytes(content), "damaged"))
