"""From sources to frames: animations, pages, ranges of values."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from detect.data.images import ImageError
from detect.data.pixel_values import ReadSettings
from detect.errors import InputError
from detect.inference.inputs import as_image
from detect.inference.sources import expand_sources
from detect.inference.stream import read_frames
from tests.inference.test_sources import animate

VALUES = np.array([[7400, 7528, 7656]], np.uint16)
SETTINGS = ReadSettings((7400.0, 7656.0))
SEEN = [[[0] * 3, [128] * 3, [255] * 3]]
"""A step for each value."""


def test_an_animation_is_read_as_a_video(tmp_path):
    sources = expand_sources(animate(tmp_path / "a.gif", count=3))
    frames = list(read_frames(sources))
    assert [(frame.index, int(frame.image_rgb[0, 0, 0])) for frame in frames] == [(0, 0), (1, 80), (2, 160)]
    assert frames[0].clip.num_frames == 3
    assert [frame.index for frame in read_frames(sources, every=2)] == [0, 2]


def test_an_animation_that_is_cut_off(tmp_path, caplog):
    path = animate(tmp_path / "a.png", count=3)
    (source,) = expand_sources(path)
    content = path.read_bytes()
    third = content.rindex(b"fdAT")
    path.write_bytes(content[: third + 6])
    assert [frame.index for frame in read_frames([source])] == [0, 1]
    assert "it ended after 2 of 3 frames" in caplog.text
    path.write_bytes(b"x")
    with pytest.raises(ImageError, match="is not an image"):
        list(read_frames([source]))


def test_of_an_animation_that_is_named_as_an_image_the_first_frame_counts(tmp_path, caplog):
    caplog.set_level("INFO")
    assert as_image(animate(tmp_path / "a.gif")).shape == (6, 8, 3)
    assert "a.gif: has 3 frames or pages, of which the first is used" in caplog.text


def test_files_arrays_and_pictures_of_16_bits_are_the_same(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), VALUES)
    sources = (
        *(tmp_path / "a.png", Image.fromarray(VALUES), VALUES, VALUES[..., None], np.dstack([VALUES] * 3)),
        VALUES.astype(np.float32),
    )
    for source in sources:
        assert as_image(source, SETTINGS).tolist() == SEEN
    (frame,) = read_frames(expand_sources([VALUES]), reading=SETTINGS)
    assert frame.image_rgb.tolist() == SEEN
    assert as_image(VALUES).tolist() == [[[28] * 3, [29] * 3, [29] * 3]]  # the high byte, as of files


def test_arrays_that_are_no_images():
    for array in (np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.float32), np.zeros((4, 4, 2), np.uint16)):
        with pytest.raises(InputError, match=r"an array must be \(H, W, 3\) uint8 in RGB order"):
            as_image(array)


def test_a_high_byte_that_shows_nothing_is_said(tmp_path, caplog):
    cv2.imwrite(str(tmp_path / "a.png"), VALUES)
    as_image(tmp_path / "a.png", SETTINGS)
    assert not caplog.text
    as_image(tmp_path / "a.png")
    assert (
        "a.png: has more than 8 bits a channel, whose high byte shows 2 of 256 levels; the model knows" in caplog.text
    )
