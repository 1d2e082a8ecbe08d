from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from detect.data.images import (
    MAX_PIXELS,
    ImageError,
    decode_image,
    from_pil,
    read_header,
    read_image,
    write_image,
)
from detect.errors import InputError

# One colour per quarter: red top left, green top right, blue bottom left, white bottom right; 24 high, 32 wide.
_QUARTERS = np.zeros((24, 32, 3), np.uint8)
_QUARTERS[:12, :16, 0] = _QUARTERS[:12, 16:, 1] = _QUARTERS[12:, :16, 2] = 255
_QUARTERS[12:, 16:] = 255

# Where EXIF says row 0 and column 0 are shown -> the colours (top left, top right, bottom left, bottom right) as shown.
# 6: row 0 is the right side, column 0 the top: the stored left column red, blue becomes the top row, read blue, red.
_SHOWN = {
    1: "RGBW",
    2: "GRWB",  # row 0 top, column 0 right: mirrored left-right
    3: "WBGR",  # row 0 bottom, column 0 right: half a turn
    4: "BWRG",  # row 0 bottom, column 0 left: mirrored up-down
    5: "RBGW",  # row 0 left, column 0 top: transposed
    6: "BRWG",  # row 0 right, column 0 top: a quarter turn clockwise
    7: "WGBR",  # row 0 right, column 0 bottom
    8: "GWRB",  # row 0 left, column 0 bottom: a quarter turn counter-clockwise
}
_COLOURS = {"R": (255, 0, 0), "G": (0, 255, 0), "B": (0, 0, 255), "W": (255, 255, 255)}


def _save(path: Path, image: Image.Image, orientation: int | None = None, **options: object) -> Path:
    if orientation is not None:
        exif = Image.Exif()
        exif[274] = orientation
        options["exif"] = exif.tobytes()
    image.save(path, **options)
    return path


def _corners(image: np.ndarray) -> str:
    height, width = image.shape[:2]
    found = ""
    for y, x in ((3, 3), (3, width - 4), (height - 4, 3), (height - 4, width - 4)):
        distances = {name: np.abs(image[y, x].astype(int) - colour).sum() for name, colour in _COLOURS.items()}
        found += min(distances, key=distances.__getitem__)
    return found


def _png(ihdr: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    parts = [(b"IHDR", ihdr), *chunks, (b"IEND", b"")]
    packed = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_orientation_is_applied_in_every_format_that_has_one(tmp_path: Path, suffix: str) -> None:
    for orientation in range(1, 9):
        path = _save(tmp_path / f"image{suffix}", Image.fromarray(_QUARTERS), orientation)
        image = read_image(path)
        shape_hw = (32, 24) if orientation >= 5 else (24, 32)
        assert image.shape == (*shape_hw, 3)
        assert _corners(image) == _SHOWN[orientation]
        assert read_header(path).size_hw == shape_hw
        assert read_header(path).orientation == orientation


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_none(tmp_path: Path, orientation: int) -> None:
    path = _save(tmp_path / "image.jpg", Image.fromarray(_QUARTERS), orientation)
    assert read_image(path).shape == (24, 32, 3)
    assert read_header(path).size_hw == (24, 32)


def test_cut_exif_blocks_are_survived() -> None:
    for cut in range(0, 26, 5):
        for byte_order in ["<", ">"]:
            # A whole block (cut 0): header, IFD at 8 with one entry: orientation (0x0112), SHORT, count 1, value 6.
            mark = b"II" if byte_order == "<" else b"MM"
            block = mark + struct.pack(f"{byte_order}HIHHHIHHI", 42, 8, 1, 0x0112, 3, 1, 6, 0, 0)
            app1 = b"Exif\0\0" + block[: len(block) - cut]
            stored = cv2.imencode(".jpg", _QUARTERS)[1].tobytes()
            data = stored[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(app1)) + app1 + stored[2:]
            # The entry's value ends 6 bytes before the block's end, and its 12 bytes 4 before it.
            assert decode_image(data, "cut").shape[:2] == ((32, 24) if cut < 5 else (24, 32))


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".gif", ".ppm"])
def test_lossless_formats_give_the_same_pixels(tmp_path: Path, suffix: str) -> None:
    image = Image.fromarray(_QUARTERS)
    image.save(tmp_path / f"image{suffix}")
    assert np.array_equal(read_image(tmp_path / f"image{suffix}"), _QUARTERS)
    assert read_header(tmp_path / f"image{suffix}").size_hw == (24, 32)


def test_grey_one_bit_palette_and_alpha_become_rgb(tmp_path: Path) -> None:
    grey = Image.fromarray(np.full((5, 7), 200, np.uint8))
    grey.save(tmp_path / "grey.jpg")
    assert np.abs(read_image(tmp_path / "grey.jpg").astype(int) - 200).max() <= 1
    grey.point(lambda v: 255 if v > 100 else 0).convert("1").save(tmp_path / "bit.png")
    assert (read_image(tmp_path / "bit.png") == 255).all()
    palette = Image.fromarray(_QUARTERS).quantize(4)
    palette.save(tmp_path / "palette.png", transparency=bytes([0, 128, 255, 9]))
    assert _corners(read_image(tmp_path / "palette.png")) == "RGBW"
    alpha = np.dstack([_QUARTERS, np.zeros((24, 32), np.uint8)])  # invisible, but its colours are there
    Image.fromarray(alpha).save(tmp_path / "alpha.png")
    assert np.array_equal(read_image(tmp_path / "alpha.png"), _QUARTERS)
    for path in tmp_path.iterdir():
        assert read_image(path).shape == (*read_header(path).size_hw, 3)


def test_cmyk_jpeg_has_the_right_colours(tmp_path: Path) -> None:
    Image.fromarray(_QUARTERS).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    assert _corners(read_image(tmp_path / "cmyk.jpg")) == "RGBW"
    assert read_header(tmp_path / "cmyk.jpg").size_hw == (24, 32)


def test_sixteen_bits_keep_the_high_byte(tmp_path: Path) -> None:
    # 0x0000 -> 0, 0x00FF -> 0, 0x0100 -> 1, 0x80FF -> 0x80 = 128, 0xFFFF -> 255
    values = np.array([[0x0000, 0x00FF, 0x0100, 0x80FF, 0xFFFF]], np.uint16)
    expected = [0, 0, 1, 128, 255]
    for suffix in (".png", ".tif"):
        Image.fromarray(values).save(tmp_path / f"grey{suffix}")
        assert read_image(tmp_path / f"grey{suffix}")[0].tolist() == [[v, v, v] for v in expected]
    cv2.imwrite(str(tmp_path / "colour.png"), np.dstack([values, values // 2, values * 0]))  # BGR
    colour = read_image(tmp_path / "colour.png")[0]
    assert colour[:, 2].tolist() == expected
    assert colour[:, 1].tolist() == [0, 0, 0, 64, 127]
    assert colour[:, 0].tolist() == [0] * 5


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((6, 8, 3), value, np.uint8)) for value in (250, 10)]
    for suffix in (".gif", ".png", ".webp", ".tif"):
        path = tmp_path / f"animated{suffix}"
        frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)
        image = read_image(path)
        assert image.shape == (6, 8, 3)
        assert image.min() >= 248


def test_jpeg_with_data_behind_its_end(tmp_path: Path) -> None:
    whole = cv2.imencode(".jpg", _QUARTERS)[1].tobytes()
    (tmp_path / "trailer.jpg").write_bytes(whole + bytes(10_000))
    assert read_header(tmp_path / "trailer.jpg").size_hw == (24, 32)
    assert read_image(tmp_path / "trailer.jpg").shape == (24, 32, 3)


def test_header_longer_than_what_is_read_at_first(tmp_path: Path) -> None:
    whole = cv2.imencode(".jpg", _QUARTERS[..., ::-1])[1].tobytes()
    comment = b"\xff\xfe" + struct.pack(">H", 65_535) + bytes(65_533)
    (tmp_path / "long.jpg").write_bytes(whole[:2] + 3 * comment + whole[2:])
    assert read_header(tmp_path / "long.jpg").size_hw == (24, 32)
    assert _corners(read_image(tmp_path / "long.jpg")) == "RGBW"


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp"])
def test_truncated_files_are_errors(tmp_path: Path, suffix: str) -> None:
    for share in (0.0, 0.02, 0.5, 0.99):
        noise = np.random.default_rng(0).integers(0, 256, size=(64, 64, 3), dtype=np.uint8)
        data = cv2.imencode(suffix, noise)[1].tobytes()
        (tmp_path / f"cut{suffix}").write_bytes(data[: int(share * len(data))])
        for reader in (read_image, read_header):
            with pytest.raises(
                ImageError, match=rf"cut\{suffix}: (is empty|is truncated|is not an image|cannot be decoded)"
            ):
                reader(tmp_path / f"cut{suffix}")


def test_a_thumbnail_does_not_hide_a_truncated_jpeg(tmp_path: Path) -> None:
    thumbnail = cv2.imencode(".jpg", _QUARTERS)[1].tobytes()  # has its own end marker
    whole = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))[1].tobytes()
    app1 = b"\xff\xe1" + struct.pack(">H", 2 + len(thumbnail)) + thumbnail
    (tmp_path / "cut.jpg").write_bytes((whole[:2] + app1 + whole[2:])[:-500])
    for reader in (read_image, read_header):
        with pytest.raises(ImageError, match="is truncated"):
            reader(tmp_path / "cut.jpg")


def test_pixel_limit_is_checked_before_decoding(tmp_path: Path) -> None:
    # A bomb that says 50,000 x 50,000 = 2.5e9 pixels > MAX_PIXELS; its image data is 10 bytes.
    assert MAX_PIXELS < 50_000 * 50_000
    (tmp_path / "bomb.png").write_bytes(
        _png(struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0), (b"IDAT", bytes(10)))
    )
    jpeg = bytearray(cv2.imencode(".jpg", _QUARTERS)[1].tobytes())
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 50_000, 50_000)
    (tmp_path / "bomb.jpg").write_bytes(jpeg)
    bitmap = bytearray(cv2.imencode(".bmp", _QUARTERS)[1].tobytes())
    bitmap[18:26] = struct.pack("<ii", 50_000, 50_000)
    (tmp_path / "bomb.bmp").write_bytes(bitmap)
    for path in sorted(tmp_path.iterdir()):
        for reader in (read_image, read_header):
            with pytest.raises(ImageError, match=rf"{path.name}: has .* pixels.* allowed"):
                reader(path)


def test_no_pixels(tmp_path: Path) -> None:
    (tmp_path / "empty.png").write_bytes(_png(struct.pack(">IIBBBBB", 0, 5, 8, 2, 0, 0, 0), (b"IDAT", b"")))
    with pytest.raises(ImageError, match=r"empty.png: has no pixels \(0 x 5\)"):
        read_image(tmp_path / "empty.png")


def test_thirty_two_bits_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(ImageError, match="has 32 bits a channel"):
        read_image(tmp_path / "float.tif")


def test_what_is_no_file(tmp_path: Path) -> None:
    for reader in (read_image, read_header):
        with pytest.raises(ImageError, match=r"nowhere.jpg: no such file"):
            reader(tmp_path / "nowhere.jpg")
        with pytest.raises(ImageError, match="is not a file"):
            reader(tmp_path)


def test_pillow_reads_only_the_formats_that_are_named(tmp_path: Path) -> None:
    # PostScript would be handed to another program.
    stream = BytesIO()
    Image.fromarray(_QUARTERS).save(stream, "EPS")
    with pytest.raises(ImageError, match=r"page.jpg: is not an image, or damaged; read are JPEG, PNG"):
        decode_image(stream.getvalue(), "page.jpg")


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".bmp"])
def test_written_images_are_read_back(tmp_path: Path, suffix: str) -> None:
    write_image(tmp_path / "folder" / f"image{suffix}", _QUARTERS)
    assert np.array_equal(read_image(tmp_path / "folder" / f"image{suffix}"), _QUARTERS)


def test_written_jpeg_has_the_right_colours_and_leaves_nothing_else(tmp_path: Path) -> None:
    write_image(tmp_path / "image.jpg", _QUARTERS)
    assert _corners(read_image(tmp_path / "image.jpg")) == "RGBW"
    assert [p.name for p in tmp_path.iterdir()] == ["image.jpg"]


@pytest.mark.parametrize("name", ["image.xyz", "image"])
def test_formats_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"image.*: images cannot be written with the suffix .*; use .jpg or .png"):
        write_image(tmp_path / name, _QUARTERS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_images_too_wide_to_be_written(tmp_path: Path, suffix: str) -> None:
    wide = np.zeros((2, 65_600, 3), np.uint8)  # JPEG as OpenCV writes it ends at 65,500, WebP at 16,383
    message = rf"image{suffix}: 65600 x 2 pixels cannot be written as {suffix}; use .png, or a smaller image"
    with pytest.raises(InputError, match=message):
        write_image(tmp_path / f"image{suffix}", wide)
    assert not list(tmp_path.iterdir())
    write_image(tmp_path / "image.png", wide)
    assert read_header(tmp_path / "image.png").size_hw == (2, 65_600)


def test_pil_images_become_rgb() -> None:
    for mode in ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"]:
        image = Image.fromarray(_QUARTERS).quantize(4) if mode == "P" else Image.fromarray(_QUARTERS).convert(mode)
        pixels = from_pil(image)
        assert (pixels.shape, pixels.dtype) == ((24, 32, 3), np.uint8)
        if mode not in ("1", "L", "LA"):
            assert _corners(pixels) == "RGBW"


@pytest.mark.parametrize("name", ["turned.jpg", "turned.tif", "turned.png", "deep.png", "deep.tif", "palette.png"])
def test_pil_images_are_what_their_files_are(tmp_path: Path, name: str) -> None:
    if name.startswith("turned"):
        _save(tmp_path / name, Image.fromarray(_QUARTERS), orientation=6)
    elif name.startswith("deep"):
        Image.fromarray(np.array([[0x0000, 0x00FF, 0x0100, 0x80FF, 0xFFFF]], np.uint16)).save(tmp_path / name)
    else:
        Image.fromarray(_QUARTERS).quantize(4).save(tmp_path / name, transparency=bytes([0, 128, 255, 9]))
    with Image.open(tmp_path / name) as image:
        before = dict(image.info)
        for _ in range(2):  # the caller may use it again
            np.testing.assert_allclose(from_pil(image).astype(int), read_image(tmp_path / name), atol=2)
        if name == "palette.png":
            assert image.info["transparency"] == before["transparency"]


def test_pil_images_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"PIL image: has no pixels \(0 x 5\)"):
        from_pil(Image.new("RGB", (0, 5)))
    with pytest.raises(ImageError, match="here: has 32 bits a channel"):
        from_pil(Image.fromarray(np.ones((4, 4), np.float32)), "here")
    noise = np.random.default_rng(0).integers(0, 256, size=(64, 64, 3), dtype=np.uint8)
    data = cv2.imencode(".png", noise)[1].tobytes()
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    with Image.open(tmp_path / "cut.png") as image, pytest.raises(ImageError, match=r"cut: cannot be decoded: "):
        from_pil(image, "cut")


# Expected (height, width), or the start of the error's reason.
_HOSTILE: dict[str, tuple[int, int] | str] = {
    "12bit.cropped.tif": (100, 100),
    "1_trns.png": (64, 64),
    "LICENSE": "is not an image",
    "broken.png": "is not an image",
    "chi.gif": (240, 320),
    "dispose_bgnd_rgba.gif": (100, 100),
    "hopper.jpg": (128, 128),
    "hopper.webp": (128, 128),
    "hopper_bad_exif.jpg": (500, 500),
    "hopper_orientation_2.jpg": (128, 128),
    "hopper_orientation_4.jpg": (128, 128),
    "hopper_orientation_6.jpg": (128, 128),
    "hopper_orientation_7.jpg": (128, 128),
    "i_trns.png": (64, 64),
    "iss634.webp": (245, 245),
    "l2rgb_read.bmp": "cannot be decoded: image file is truncated",
    "multiple_exif.jpg": (1, 1),
    "orientation_rectangle.jpg": (2, 1),
    "pil123p.png": (150, 162),
    "pil_sample_cmyk.jpg": (100, 100),
    "reallybig.bmp": "has too many pixels",
    "transparent.png": (150, 200),
    "truncated_image.png": "is truncated",
    "ultrahdr.jpg": "is truncated",
    "unknown_compression_method.png": (57, 57),  # of its colour profile, which is not needed
    "zero_width.gif": "is not an image",
}


def test_hostile_files(real_data: Path) -> None:
    files = {path.name: path for path in (real_data / "hostile").iterdir()}
    assert files.keys() == _HOSTILE.keys()
    for name, expected in _HOSTILE.items():
        if isinstance(expected, tuple):
            image = read_image(files[name])
            assert (image.shape, image.dtype) == ((*expected, 3), np.uint8), name
            assert read_header(files[name]).size_hw == expected, name
            continue
        for reader in (read_image, read_header):
            with pytest.raises(ImageError, match=f"{name}: {expected}") as caught:
                reader(files[name])
            assert "\n" not in str(caught.value)


def test_turned_copies_look_like_the_upright_one(real_data: Path) -> None:
    upright = read_image(real_data / "hostile" / "hopper.jpg").astype(int)
    for orientation in (2, 4, 6, 7):
        turned = read_image(real_data / "hostile" / f"hopper_orientation_{orientation}.jpg")
        assert np.abs(turned - upright).mean() < 8, orientation  # JPEG was encoded again
        assert np.abs(turned[::-1] - upright).mean() > 20, orientation


def test_mutated_files_give_an_image_or_an_image_error(real_data: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    files = sorted((real_data / "hostile").iterdir())
    for number in range(150):
        data = bytearray(files[number % len(files)].read_bytes())
        for _ in range(4):
            data[rng.integers(min(len(data), 400))] = rng.integers(256)
        (tmp_path / "mutated").write_bytes(data)
        try:
            image = read_image(tmp_path / "mutated")
        except ImageError:
            continue
        assert image.dtype == np.uint8
        assert image.shape == (*read_header(tmp_path / "mutated").size_hw, 3)
