from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from detect.curation.view import MIN_LONG_SIDE_PX, Truth, draw_truth, view_data
from detect.data.images import read_image
from detect.drawing.boxes import class_color
from detect.errors import InputError
from tests.curation.tables import make_coco, opened, rich_content
from tests.data.layouts import images, write


def _truth(boxes: list[list[float]], crowds: tuple[bool, ...] = ()) -> Truth:
    number = len(boxes)
    is_crowd = np.array(crowds or [False] * number, bool)
    return Truth(np.array(boxes, float).reshape(-1, 4), np.zeros(number, int), is_crowd, np.zeros(number, bool))


def _colored(picture: np.ndarray) -> np.ndarray:
    """(H, W) bool, the pixels of a frame of class 0."""
    return (picture == class_color(0)).all(axis=2)


def test_a_box_of_one_pixel_gets_a_frame_that_can_be_seen() -> None:
    grey = np.full((1280, 1280, 3), 128, np.uint8)
    frame = _colored(draw_truth(grey, _truth([[600, 700, 601, 701]]), [" "]))
    # 8 px at 640 are 16 at 1280: 600.5 +- 8 is 592.5 to 608.5, drawn from 592 to 609; the pixel itself is free. Above
    # row 692 is the label.
    rows, columns = np.nonzero(frame[693:720, 580:620])
    assert rows.max() + 693 == 708
    assert (columns.min() + 580, columns.max() + 580) == (592, 608)
    assert not frame[699:702, 599:602].any()


def test_small_images_are_enlarged() -> None:
    picture = draw_truth(np.full((30, 40, 3), 128, np.uint8), _truth([[10, 10, 30, 20]]), [" "])
    assert picture.shape == (480, 640, 3)
    rows, columns = np.nonzero(_colored(picture)[200:])
    assert (columns.min(), columns.max()) == (160, 479)  # 10 * 16, 30 * 16 - 1
    assert rows.max() + 200 == 319


def test_crowd_regions_are_dashed_and_named() -> None:
    grey = np.full((MIN_LONG_SIDE_PX, MIN_LONG_SIDE_PX, 3), 128, np.uint8)
    box = [100.0, 100.0, 500.0, 500.0]
    plain, dashed = (_colored(draw_truth(grey, _truth([box], crowds), ["x"])) for crowds in ((False,), (True,)))
    edge = dashed[499, 100:500]
    assert plain[499, 100:500].all()
    assert 0.4 < edge.mean() < 0.6
    assert np.count_nonzero(np.diff(edge.astype(int))) > 20


def test_small_boxes_are_on_top() -> None:
    truth = Truth(
        np.array([[100, 100, 200, 200], [90, 90, 400, 400]], float), np.array([0, 1]), *np.zeros((2, 2), bool)
    )
    for order in ([0, 1], [1, 0]):
        shuffled = Truth(truth.boxes_xyxy_px[order], truth.labels[order], truth.is_crowd, truth.is_ignored)
        picture = draw_truth(np.zeros((640, 640, 3), np.uint8), shuffled, [" ", " "])
        assert picture[199, 150].tolist() == list(class_color(0))


def test_an_image_without_boxes() -> None:
    grey = np.full((640, 640, 3), 128, np.uint8)
    np.testing.assert_array_equal(draw_truth(grey, _truth([]), []), grey)


def test_files_and_sheet(tmp_path: Path) -> None:
    config = opened(make_coco(tmp_path / "in", rich_content()))
    report = view_data(config, "train", tmp_path / "out", count=24)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "b.jpg",
        "empty.jpg",
        "sheet.jpg",
        "sub_a.jpg",
    ]
    assert report == [
        f"'b.png': 1 boxes -> {tmp_path}/out/b.jpg",
        f"'sub/a.png': 1 boxes, 1 crowd -> {tmp_path}/out/sub_a.jpg",
        f"'empty.png': 0 boxes -> {tmp_path}/out/empty.jpg",
        f"3 of them on one sheet: {tmp_path}/out/sheet.jpg",
    ]
    assert read_image(tmp_path / "out/b.jpg").shape == (480, 640, 3)
    assert read_image(tmp_path / "out/sheet.jpg").shape[1] == 3 * 168 + 8


def test_the_seed_chooses(tmp_path: Path) -> None:
    images(tmp_path / "in/images/train", *(f"{number}.jpg" for number in range(20)))
    write(tmp_path / "in", {"labels/train/3.txt": "0 0.5 0.5 0.1 0.1"})
    config = opened(tmp_path / "in")
    chosen = [view_data(config, "train", tmp_path / str(i), 5, seed=seed) for i, seed in enumerate((0, 0, 1))]
    names = [[line.split(":")[0] for line in lines[:5]] for lines in chosen]
    assert names[0] == names[1] != names[2]


def test_images_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = rich_content()
    content["images"][0]["file_name"] = "sheet.png"  # would be overwritten by the sheet
    config = opened(make_coco(tmp_path / "in", content))
    view_data(config, "train", tmp_path / "out", 1, wanted=["sheet", "sub/a", "a.png", "a"])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["sheet-2.jpg", "sheet.jpg", "sub_a.jpg"]
    with pytest.raises(InputError, match=r"--images 'emty': split 'train' has no such image; did you mean 'empty.png'"):
        view_data(config, "train", tmp_path / "out", 1, wanted=["emty"])


def test_images_that_cannot_be_decoded_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images(tmp_path / "in/images/train", "a.jpg")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "in/images/train/b.png")
    data = bytearray((tmp_path / "in/images/train/b.png").read_bytes())
    data[100:4000] = bytes(3900)  # its first and last bytes are good
    (tmp_path / "in/images/train/b.png").write_bytes(data)
    write(tmp_path / "in", {"labels/train/a.txt": "0 0.5 0.5 0.1 0.1"})
    report = view_data(opened(tmp_path / "in"), "train", tmp_path / "out", 5)
    assert len(report) == 2
    assert "b.png" in caplog.text
    with pytest.raises(InputError, match="in train: none of the 1 images could be read"):
        view_data(opened(tmp_path / "in"), "train", tmp_path / "out", 5, wanted=["b"])


def test_an_ignored_region_is_drawn_once(tmp_path: Path) -> None:
    images(tmp_path / "in/train/images")
    write(tmp_path / "in", {"train/annotations/a.txt": "0,0,40,10,0,0,0,0\n1,12,10,10,1,4,0,0\n"})
    report = view_data(opened(tmp_path / "in"), "train", tmp_path / "out", 5)
    assert report[0].startswith("'a.jpg': 1 boxes, 1 crowd -> ")
    assert cv2.imread(str(tmp_path / "out/a.jpg")) is not None
