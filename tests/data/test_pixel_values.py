"""Images of more than 8 bits a channel."""

from __future__ import annotations

import re
import struct
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from detect.data.images import ImageError, decode_image, from_pil, open_by_pillow, read_header, read_image
from detect.data.pixel_values import MAX_TILED_PIXELS, ReadSettings, to_bytes

# Low 7400, high 7656: a step for each value. 7399 and 7400 -> 0, 7401 -> 1, 7528 -> 128, 7655 -> 255, 7656 -> 255.
RANGE = (7400.0, 7656.0)
VALUES = np.array([[7399, 7400, 7401], [7528, 7655, 7656]], np.uint16)
BYTES = [[0, 0, 1], [128, 255, 255]]


def grey(rows: list[list[int]]) -> list[list[list[int]]]:
    return [[[value] * 3 for value in row] for row in rows]


def test_values_become_bytes_in_equal_steps() -> None:
    assert to_bytes(VALUES, RANGE).tolist() == BYTES
    # 300 K to 310 K: 25.6 levels a kelvin. 305 -> 128, 300.04 -> 1 (1.024); what is no number is black.
    kelvin = np.array([299.0, 300.04, 305.0, 310.0, np.nan, np.inf, -np.inf], np.float32)
    assert to_bytes(kelvin, (300.0, 310.0)).tolist() == [0, 1, 128, 255, 0, 255, 0]
    every = np.arange(2**16, dtype=np.uint16)
    assert np.array_equal(to_bytes(every, (0.0, 65536.0)), every >> 8)
    twice = np.tile(every, 2)  # so many values go through a table
    assert np.array_equal(to_bytes(twice, RANGE), to_bytes(twice.astype(np.int64), RANGE))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm", ".jp2"])
def test_grey_of_16_bits(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    if suffix == ".jp2":
        Image.fromarray(VALUES).save(path, irreversible=False)
    else:
        cv2.imwrite(str(path), VALUES)
    assert read_image(path, ReadSettings(RANGE)).tolist() == grey(BYTES)
    assert np.unique(read_image(path)).tolist() == [28, 29]  # 7399 // 256 = 28, 7656 // 256 = 29


@pytest.mark.parametrize(
    ("values", "value_range", "found"),
    [
        (VALUES.astype(np.int16) - 7528, (-128.0, 128.0), "16 bits a channel (signed)"),
        (VALUES.astype(np.int32), RANGE, "32 bits a channel (signed)"),
        (VALUES.astype(np.float32), RANGE, "32 bits a channel (floating point)"),
    ],
)
def test_values_that_need_a_range(
    tmp_path: Path, values: np.ndarray, value_range: tuple[float, float], found: str
) -> None:
    path = tmp_path / "a.tif"
    if values.dtype == np.int16:
        cv2.imwrite(str(path), values)
    else:
        Image.fromarray(values).save(path)
    assert read_header(path).size_hw == (2, 3)
    assert read_image(path, ReadSettings(value_range)).tolist() == grey(BYTES)
    expected = f"a.tif: has {found}, and its values of black and white are unknown: give the data config 'range: ["
    with pytest.raises(ImageError, match=re.escape(expected)):
        read_image(path)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_colours_of_16_bits(tmp_path: Path, suffix: str) -> None:
    # Red as VALUES, green black, blue white: 8000 is above the range, 100 below.
    bgr = np.dstack([np.full_like(VALUES, 8000), np.full_like(VALUES, 100), VALUES])
    cv2.imwrite(str(tmp_path / f"a{suffix}"), bgr)
    image = read_image(tmp_path / f"a{suffix}", ReadSettings(RANGE))
    assert image[..., 0].tolist() == BYTES
    assert (image[..., 1] == 0).all()
    assert (image[..., 2] == 255).all()
    assert read_image(tmp_path / f"a{suffix}")[..., 2].tolist() == [[8000 // 256] * 3] * 2


def test_a_turned_tiff_of_16_bits(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6  # a quarter turn clockwise: the left column becomes the top row, from bottom to top
    Image.fromarray(VALUES).save(tmp_path / "a.tif", exif=exif.tobytes())
    assert read_image(tmp_path / "a.tif", ReadSettings(RANGE)).tolist() == grey([[128, 0], [255, 0], [255, 1]])


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp", ".gif"])
def test_8_bits_know_no_range(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / f"a{suffix}")
    assert np.array_equal(
        read_image(tmp_path / f"a{suffix}", ReadSettings((0.0, 10.0))), read_image(tmp_path / f"a{suffix}")
    )


def test_an_image_of_pillow() -> None:
    assert from_pil(Image.fromarray(VALUES), "here", ReadSettings(RANGE)).tolist() == grey(BYTES)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "JPEG"])
def test_the_limit_of_pixels_is_what_was_asked_for(tmp_path: Path, kind: str) -> None:
    stream = BytesIO()
    Image.fromarray(np.zeros((10, 20, 3), np.uint8)).save(stream, kind)
    assert decode_image(stream.getvalue(), "a", ReadSettings(max_pixels=200)).shape == (10, 20, 3)
    with pytest.raises(ImageError, match=r"a: has 20 x 10 pixels; allowed are 199: scale it down, or cut.*with --tile"):
        decode_image(stream.getvalue(), "a", ReadSettings(max_pixels=199))
    (tmp_path / "a").write_bytes(stream.getvalue())
    with pytest.raises(ImageError, match="allowed are 199"):
        read_header(tmp_path / "a", 199)


def test_a_higher_limit_is_one_for_pillow_too() -> None:
    stream = BytesIO()
    Image.fromarray(np.zeros((9, 13, 3), np.uint8)).save(stream, "BMP")
    content = bytearray(stream.getvalue())
    content[18:26] = struct.pack("<ii", 20_000, 10_000)  # only the header is read
    with pytest.raises(Image.DecompressionBombError):
        open_by_pillow(BytesIO(content))
    before = Image.MAX_IMAGE_PIXELS
    assert open_by_pillow(BytesIO(content), MAX_TILED_PIXELS).size == (20_000, 10_000)
    assert before == Image.MAX_IMAGE_PIXELS
    with pytest.raises(ImageError) as raised:
        decode_image(bytes(content[:18]) + struct.pack("<ii", 40_000, 40_000) + bytes(content[26:]), "a")
    assert "--tile" not in str(raised.value)  # which would not help


def test_the_orientation_of_xmp_counts_where_exif_has_none(tmp_path: Path) -> None:
    packet = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
    )
    image = np.zeros((24, 32, 3), np.uint8)
    image[:, :16] = 255  # the left half is white, so the upper half is once it is turned
    Image.fromarray(image).save(tmp_path / "a.jpg", xmp=packet)
    Image.fromarray(image).save(tmp_path / "b.webp", xmp=packet, lossless=True)
    exif = Image.Exif()
    exif[274] = 1
    Image.fromarray(image).save(tmp_path / "upright.jpg", xmp=packet, exif=exif.tobytes())
    for name in ("a.jpg", "b.webp"):
        turned = read_image(tmp_path / name)
        assert turned.shape == (32, 24, 3)
        assert (turned[:14].min(), turned[18:].max()) >= (250, 0)
        assert turned[18:].max() < 5
        assert read_header(tmp_path / name).size_hw == (32, 24)
    assert read_image(tmp_path / "upright.jpg").shape == (24, 32, 3)
