"""Image files with several images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from detect.data.animations import Animation, count_frames
from detect.data.images import ImageError
from detect.data.pixel_values import ReadSettings

LEVELS = (250, 130, 10)


def write(path: Path, **options: object) -> Path:
    """Three frames of 8 x 6 pixels, each of one grey."""
    frames = [Image.fromarray(np.full((6, 8, 3), level, np.uint8)) for level in LEVELS]
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)
    return path


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp", ".avif"])
def test_all_frames_with_their_times(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}", duration=200, **({"lossless": True} if suffix == ".webp" else {}))
    assert count_frames(path) == 3
    animation = Animation(path)
    assert (animation.num_frames, animation.fps) == (3, 5.0)
    frames = list(animation.frames())
    assert [round(time_s, 6) for time_s, _ in frames] == [0.0, 0.2, 0.4]
    for (_, image), level in zip(frames, LEVELS, strict=True):
        assert image.shape == (6, 8, 3)
        assert np.abs(image.astype(int) - level).max() <= 4


def test_pages_of_a_tiff_without_smaller_copies_and_masks(tmp_path: Path) -> None:
    pages = []
    for kind in (0, 1, 0, 4):  # a page, its smaller copy, a page, a mask
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags[254] = kind
        pages.append((np.full((6, 8), 1000 * (len(pages) + 1), np.uint16), tags))
    with TiffImagePlugin.AppendingTiffWriter(str(tmp_path / "a.tif"), new=True) as file:
        for values, tags in pages:
            Image.fromarray(values).save(file, "TIFF", tiffinfo=tags)
            file.newFrame()
    assert count_frames(tmp_path / "a.tif") == 2
    animation = Animation(tmp_path / "a.tif", ReadSettings((0.0, 4000.0)))
    assert animation.fps == 1.0
    # 1000 * 256 / 4000 = 64, 3000 * 256 / 4000 = 192
    assert [(time_s, np.unique(image).tolist()) for time_s, image in animation.frames()] == [(0.0, [64]), (1.0, [192])]


def test_single_images_and_what_cannot_be_read_count_as_one(tmp_path: Path) -> None:
    picture = Image.fromarray(np.zeros((6, 8, 3), np.uint8))
    for name in ("a.gif", "b.png", "c.tif", "d.jpg"):
        picture.save(tmp_path / name)
        assert count_frames(tmp_path / name) == 1
    picture.save(tmp_path / "e.mpo", save_all=True, append_images=[picture])  # the second is another view of it
    (tmp_path / "f.gif").write_bytes(b"GIF89a")
    for name in ("e.mpo", "f.gif", "missing.webp"):
        assert count_frames(tmp_path / name) == 1
    with pytest.raises(ImageError, match=r"f\.gif: "):
        Animation(tmp_path / "f.gif")
