from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detect.config.data import DataConfig, SplitConfig
from detect.data.annotations import AnnotationTable
from detect.data.checks import BAD_IMAGE, NO_AREA, NOT_FINITE, OUTSIDE, REPEATED
from detect.data.formats import yolo, yolo_rows
from detect.data.formats.annotation_files import REPEATED_STEM
from detect.data.formats.image_names import LEADS_OUT, NOT_AS_WRITTEN
from detect.errors import InputError


def _image(path: Path, orientation: int | None = None) -> None:
    """An image that is stored with 40 x 30 px."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if orientation is not None:
        exif[274] = orientation
    Image.new("RGB", (40, 30)).save(path, exif=exif)


def _write(root: Path, name: str, lines: str | bytes | None, orientation: int | None = None) -> None:
    """``images/train/<name>.jpg`` and its label file."""
    _image(root / "images" / "train" / f"{name}.jpg", orientation)
    if lines is not None:
        path = root / "labels" / "train" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(lines if isinstance(lines, bytes) else lines.encode())


def _config(root: Path, names: tuple[str, ...] | None = ("ant", "bee"), **splits: SplitConfig) -> DataConfig:
    return DataConfig("test", str(root), splits or {"train": SplitConfig("images/train")}, format="yolo", names=names)


def _read(root: Path, names: tuple[str, ...] | None = ("ant", "bee")) -> AnnotationTable:
    return yolo.read_yolo(_config(root, names), "train")


def test_centre_and_size_are_shares_of_the_image(tmp_path: Path) -> None:
    _write(tmp_path, "b", "1 0.5 0.5 0.25 0.2\n0 0.1 0.1 0.1 0.2\n")
    _write(tmp_path, "a", "")
    _write(tmp_path, "c", None)
    table = _read(tmp_path)
    assert [table.path(row).name for row in range(3)] == ["a.jpg", "b.jpg", "c.jpg"]
    assert table.names == ("ant", "bee")
    assert table.category_ids.tolist() == [0, 1]
    assert table.image_ids.tolist() == [1, 2, 3]
    assert table.is_labelled
    # 40 x 30 px: centre (20, 15), size 10 x 6; centre (4, 3), size 4 x 6.
    boxes, labels, is_crowd = table.boxes(1)
    assert boxes.tolist() == [[15, 12, 25, 18], [2, 0, 6, 6]]
    assert labels.tolist() == [1, 0]
    assert is_crowd.tolist() == [False, False]
    assert table.areas.tolist() == [60, 24]
    assert len(table.boxes(0)[0]) == len(table.boxes(2)[0]) == 0  # an empty file, and none: background
    assert not table.problems


def test_shares_are_of_the_image_as_it_is_shown(tmp_path: Path) -> None:
    _write(tmp_path, "a", "0 0.5 0.5 0.5 0.5\n", orientation=6)
    table = _read(tmp_path)
    assert table.sizes_hw.tolist() == [[40, 30]]
    assert table.boxes(0)[0].tolist() == [[7.5, 10, 22.5, 30]]


def test_outlines_become_boxes_and_are_counted(tmp_path: Path) -> None:
    _write(tmp_path, "a", "0 0.1 0.2 0.5 0.4 0.3 0.6\n1 0.25 0.2 0.5 0.2 0.5 0.4 0.25 0.4\n")
    table = _read(tmp_path)
    # x 0.1 to 0.5 of 40, y 0.2 to 0.6 of 30; x 0.25 to 0.5, y 0.2 to 0.4.
    np.testing.assert_allclose(table.boxes(0)[0], [[4, 6, 20, 18], [10, 6, 20, 12]])
    assert table.problems.summary() == [f"2 {yolo_rows.OUTLINE}: a.txt:1; a.txt:2"]


def test_damaged_lines_are_counted_with_their_place(tmp_path: Path) -> None:
    lines = [
        "0 0.5 0.5 0.2 0.2",
        "",
        "0 0.5 0.5 0.2",  # 3: too short
        "0 0.5 0.5 0.2 0.2 1.9",  # 4: one number too many, and no score
        "x 0.5 0.5 0.2 0.2",
        "0 0.5 0.5 0.2 y",
        "0.5 0.5 0.5 0.2 0.2",
        "-1 0.5 0.5 0.2 0.2",
        "inf 0.5 0.5 0.2 0.2",
        "2 0.5 0.5 0.2 0.2",  # beyond the names
        "0 nan 0.5 0.2 0.2",
        "0 0.1 0.1 nan 0.3 0.2 0.2",  # an outline
        "0 0.5 0.5 1e400 0.2",
        "0 0.5 0.5 0 0.2",
        "0 0.5 0.5 -0.1 0.2",
        "0 1.5 0.5 0.2 0.2",
        "0 0.5 0.5 0.2 0.2",  # repeats the first
        "1.0 0.25 0.25 0.1 0.1",  # a whole number all the same
    ]
    _write(tmp_path, "a", "\n".join(lines))
    table = _read(tmp_path)
    counts = {
        yolo.BAD_LINE: 7,
        yolo.UNKNOWN_CLASS: 1,
        yolo_rows.OUTLINE: 1,
        NOT_FINITE: 3,
        NO_AREA: 2,
        OUTSIDE: 1,
        REPEATED: 1,
    }
    assert {kind: table.problems.count(kind) for kind in counts} == counts
    assert len(table.problems.summary()) == len(counts)
    assert table.labels.tolist() == [0, 0, 1]
    assert "a.txt:3: '0 0.5 0.5 0.2'; a.txt:4: " in table.problems.summary()[0]


@pytest.mark.parametrize("content", [b"\xff\xfe0 0.5", b"0" * (yolo_limit := 16 * 2**20 + 1)])
def test_label_files_that_cannot_be_read_go_with_their_image(tmp_path: Path, content: bytes) -> None:
    _write(tmp_path, "bad", content)
    _write(tmp_path, "good", b"\xef\xbb\xbf0 0.5 0.5 0.2 0.2\r\n")  # as Windows writes it
    table = _read(tmp_path)
    assert [table.path(row).name for row in range(len(table))] == ["good.jpg"]
    assert len(table.labels) == 1
    assert table.problems.count(yolo.BAD_FILE) == 1


def test_what_has_no_partner(tmp_path: Path) -> None:
    _write(tmp_path, "a", "0 0.5 0.5 0.2 0.2")
    _write(tmp_path, "broken", "0 0.5 0.5 0.2 0.2")
    (tmp_path / "images/train/broken.jpg").write_bytes(b"no image")
    (tmp_path / "labels/train/orphan.txt").write_text("0 0.5 0.5 0.2 0.2")
    table = _read(tmp_path)
    assert len(table) == 1
    counts = {BAD_IMAGE: 1, yolo.NO_IMAGE: 1}
    assert {kind: table.problems.count(kind) for kind in counts} == counts
    assert len(table.problems.summary()) == len(counts)


def test_a_split_without_any_label_file_is_unlabelled(tmp_path: Path) -> None:
    _write(tmp_path, "a", None)
    table = _read(tmp_path)
    assert (len(table), len(table.labels), table.is_labelled) == (1, 0, False)


def test_folders_below_and_links_in_circles(tmp_path: Path) -> None:
    _write(tmp_path, "one/a", "0 0.5 0.5 0.2 0.2")
    _write(tmp_path, "two/a", "1 0.5 0.5 0.2 0.2")
    (tmp_path / "images/train/two/circle").symlink_to(tmp_path / "images/train")
    table = _read(tmp_path)
    assert table.labels.tolist() == [0, 1]


def test_label_folders() -> None:
    root, image = Path("/d"), Path("/d/images/x/images/y/a.jpg")
    assert yolo.label_file(image, root, None, root) == Path("/d/images/x/labels/y/a.txt")
    assert yolo.label_file(Path("/d/p/a.b.jpg"), root, None, root) == Path("/d/p/a.b.txt")
    # What lies above the root is not the data set's.
    assert yolo.label_file(Path("/images/d/p/a.jpg"), root, None, Path("/images/d")) == Path("/images/d/p/a.txt")
    assert yolo.label_file(image, root / "images", Path("/l"), root) == Path("/l/x/images/y/a.txt")
    assert yolo.label_file(Path("/e/a.jpg"), root, Path("/l"), root) == Path("/l/a.txt")


def test_lists_of_images(tmp_path: Path) -> None:
    for name in "abc":
        _write(tmp_path, name, "0 0.5 0.5 0.2 0.2")
    (tmp_path / "lists").mkdir()
    lines = ["../images/train/c.jpg", f"{tmp_path}/images/train/a.jpg", "images/train/b.jpg", "gone.jpg", "gone.jpg"]
    (tmp_path / "lists/train.txt").write_text("\n".join(lines))
    table = yolo.read_yolo(_config(tmp_path, train=SplitConfig(".", list="lists/train.txt")), "train")
    assert [table.path(row).name for row in range(len(table))] == ["c.jpg", "a.jpg", "b.jpg"]
    assert len(table.labels) == 3
    assert table.problems.count(BAD_IMAGE) == table.problems.count(REPEATED_STEM) == 1


@pytest.mark.parametrize("line", ["../../x.jpg", "/etc/passwd", "images/../../../x.jpg", "a\0.jpg", "../e/e.jpg"])
def test_lists_that_lead_out(tmp_path: Path, line: str) -> None:
    """They cost their own image, not the split; a file elsewhere is not taken for the one of the same name here."""
    _write(tmp_path / "d", "a", "")
    _write(tmp_path / "d", "e", "")
    _image(tmp_path / "e/e.jpg")
    config = _config(tmp_path / "d", train=SplitConfig("images", list="train.txt"))
    (tmp_path / "d/train.txt").write_text(f"images/train/a.jpg\n{line}\n")
    table = yolo.read_yolo(config, "train")
    assert _images_of(table) == ["a.jpg"]
    assert table.problems.count(LEADS_OUT) == 1
    (tmp_path / "d/train.txt").write_text(f"{line}\n")
    with pytest.raises(InputError, match=r"has no images for split 'train': 1 names that lead out of the data set"):
        yolo.read_yolo(config, "train")


@pytest.mark.parametrize(
    "line",
    [
        "data/images/train/a b.jpg",  # CVAT
        "data/obj_train_data/a b.jpg",
        "PROJECT/images/train/a b.jpg",
        "/home/somebody/set/images/train/a b.jpg",
        "C:\\Users\\me\\set\\images\\train\\a b.jpg",
        "images\\train\\a b.jpg",
        "images/train/a%20b.jpg",
        "../images/train/a b.jpg",
        "images/train/a b",  # without suffix
    ],
)
def test_lists_of_other_machines(tmp_path: Path, line: str) -> None:
    _write(tmp_path, "a b", "0 0.5 0.5 0.2 0.2")
    (tmp_path / "train.txt").write_text(f"{line}\n{line}2/gone.jpg\n", encoding="utf-16")
    config = _config(tmp_path, train=SplitConfig("images/train", list="train.txt"))
    table = yolo.read_yolo(config, "train")
    assert _images_of(table) == ["a b.jpg"]
    assert len(table.labels) == 1
    counts = {NOT_AS_WRITTEN: 1, BAD_IMAGE: 1}
    assert {kind: table.problems.count(kind) for kind in counts} == counts


def test_lists_of_which_only_the_name_is_here(tmp_path: Path) -> None:
    """The name has to be the only one of the set."""
    _write(tmp_path, "one/a", "0 0.5 0.5 0.2 0.2")
    for folder in ("one", "two"):
        _write(tmp_path, f"{folder}/b", "1 0.5 0.5 0.2 0.2")
    (tmp_path / "train.txt").write_text("C:\\set\\x\\a.jpg\nC:\\set\\x\\b.jpg\n")
    table = yolo.read_yolo(_config(tmp_path, train=SplitConfig(".", list="train.txt")), "train")
    assert (_images_of(table), table.labels.tolist()) == (["a.jpg"], [0])
    counts = {NOT_AS_WRITTEN: 1, BAD_IMAGE: 1}
    assert {kind: table.problems.count(kind) for kind in counts} == counts


def test_lists_with_paths_through_links(tmp_path: Path) -> None:
    """The user's own names of the same files: by a link to the set, and by what a link in the set leads to."""
    _write(tmp_path / "store", "a", "0 0.5 0.5 0.2 0.2")
    _write(tmp_path / "set", "b", "1 0.5 0.5 0.2 0.2")
    (tmp_path / "set/images/linked").symlink_to(tmp_path / "store/images/train")
    (tmp_path / "set/labels/linked").symlink_to(tmp_path / "store/labels/train")
    (tmp_path / "link").symlink_to(tmp_path / "set")
    lines = [f"{tmp_path}/link/images/train/b.jpg", f"{tmp_path}/set/images/linked/a.jpg"]
    (tmp_path / "set/train.txt").write_text("\n".join(lines))
    table = yolo.read_yolo(_config(tmp_path / "set", train=SplitConfig(".", list="train.txt")), "train")
    assert (_images_of(table), table.labels.tolist()) == (["b.jpg", "a.jpg"], [1, 0])
    assert not table.problems
    (tmp_path / "set/train.txt").write_text(f"{tmp_path}/store/images/train/a.jpg\n")
    config = _config(tmp_path / "set", train=SplitConfig("images/linked", list="train.txt"))
    table = yolo.read_yolo(config, "train")
    assert (_images_of(table), table.labels.tolist(), bool(table.problems)) == (["a.jpg"], [0], False)


def test_several_folders_and_lists(tmp_path: Path) -> None:
    for part in ("train", "a", "b"):
        _write(tmp_path, f"../{part}/x", None)
        (tmp_path / "labels" / part).mkdir(parents=True)
        (tmp_path / "labels" / part / "x.txt").write_text("1 0.5 0.5 0.2 0.2")
    (tmp_path / "b.txt").write_text("images/b/x.jpg\nimages/a/x.jpg\n")
    section = SplitConfig("images", parts=("images/a", "b.txt"))
    table = yolo.read_yolo(_config(tmp_path, train=section), "train")
    assert [table.path(row).parent.name for row in range(len(table))] == ["a", "b"]
    assert table.labels.tolist() == [1, 1]
    assert table.problems.count(REPEATED_STEM) == 1  # a/x.jpg is in both parts


def test_names(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _write(tmp_path, "a", "3 0.5 0.5 0.2 0.2\n99999 0.5 0.5 0.2 0.2\n123456789012 0.5 0.5 0.2 0.2\n")
    _image(tmp_path / "images/val/b.jpg")
    (tmp_path / "labels/val").mkdir()
    (tmp_path / "labels/val/b.txt").write_text("5 0.5 0.5 0.2 0.2")
    config = _config(tmp_path, None, train=SplitConfig("images/train"), val=SplitConfig("images/val"))
    caplog.set_level("INFO")
    # Those of the training split, up to its largest number; what is absurd is damage.
    for split, unknown in (("train", 2), ("val", 1)):
        table = yolo.read_yolo(config, split)
        assert table.names == ("0", "1", "2", "3")
        assert table.problems.count(yolo.UNKNOWN_CLASS) == unknown
    assert "A classes.txt in the folder names them, a line each" in caplog.text
    (tmp_path / "classes.txt").write_text("one\ntwo\n")
    assert yolo.read_yolo(config, "val").names == ("one", "two")
    (tmp_path / "labels/classes.txt").write_text("ant\nbee\n\ncat\ndog\nemu\nfox\n")
    assert yolo.read_yolo(config, "val").names == ("ant", "bee", "cat", "dog", "emu", "fox")
    (tmp_path / "labels/classes.txt").write_text("ant\nant\n")
    with pytest.raises(InputError, match=r"classes.txt: duplicate class: 1 .*: ant"):
        yolo.read_yolo(config, "val")
    with pytest.raises(InputError, match="names: duplicate class in dog, dog"):
        _read(tmp_path, names=("dog", "dog"))


def test_what_is_refused(tmp_path: Path) -> None:
    (tmp_path / "images/train").mkdir(parents=True)
    with pytest.raises(InputError, match="images/train: has no images for split 'train'"):
        _read(tmp_path)
    _write(tmp_path, "a", b"\xff")
    with pytest.raises(InputError, match="test train: no image can be used: 1 label files that cannot be read"):
        _read(tmp_path)
    _write(tmp_path, "a", "")
    with pytest.raises(InputError, match="test: no label file names a class, so there are no classes; give names"):
        _read(tmp_path, names=None)


def test_a_label_file_that_is_a_pipe(tmp_path: Path) -> None:
    """Nobody writes to it, so reading it would never end."""
    _write(tmp_path, "good", "0 0.5 0.5 0.2 0.2")
    _write(tmp_path, "bad", None)
    os.mkfifo(tmp_path / "labels" / "train" / "bad.txt")
    table = _read(tmp_path)
    assert [table.path(row).name for row in range(len(table))] == ["good.jpg"]
    assert f"1 {yolo.BAD_FILE}: bad.txt: is not a file" in table.problems.summary()


# ------------------------------------------------------------------------------------- as other tools write it


def _images_of(table: AnnotationTable) -> list[str]:
    return [table.path(row).name for row in range(len(table))]


def _boxes_of(tmp_path: Path, lines: list[str]) -> AnnotationTable:
    for number, line in enumerate(lines):
        _write(tmp_path, str(number), line)
    return _read(tmp_path)


def _pose(box: tuple[float, ...], places: list[tuple[float, ...]], visible: bool) -> str:
    """A row with points at these places of the box, from its centre, in units of its size; None is not labelled."""
    x, y, width, height = box
    points = [(x + width * dx, y + height * dy) for dx, dy in places]
    return " ".join(map(str, [0, *box, *(n for point in points for n in (*point, *([2] if visible else [])))]))


BOXES = [(0.9, 0.7, 0.1, 0.14), (0.14, 0.4, 0.2, 0.3), (0.5, 0.5, 0.9, 0.9), (0.7, 0.5, 0.15, 0.2)]


@pytest.mark.parametrize("visible", [False, True])
@pytest.mark.parametrize(
    "places",
    [
        [(0.1, 0.2)],
        [(-0.5, 0.0), (0.5, 0.0)],  # as many numbers as four corners
        [(-0.4, -0.3), (0.4, -0.3), (0.0, 0.4)],
        [(0.3, -0.1), (-0.3, -0.1), (0.2, 0.4), (-0.4, 0.5)],
        [(n / 20 - 0.4, 0.4 - n / 30) for n in range(17)],
    ],
)
def test_key_points_are_passed_over(tmp_path: Path, places: list[tuple[float, ...]], visible: bool) -> None:
    table = _boxes_of(tmp_path, [_pose(box, places, visible) for box in BOXES])
    np.testing.assert_allclose(table.boxes_xyxy_px[0], [34, 18.9, 38, 23.1])  # 0.9 +- 0.05 of 40, 0.7 +- 0.07 of 30
    assert table.problems.count(yolo_rows.KEY_POINTS) == 4
    assert len(table.problems.summary()) == 1


def test_points_that_are_not_labelled(tmp_path: Path) -> None:
    row = _pose(BOXES[0], [(-0.4, 0.0), (0.4, 0.0)], visible=True) + " 0 0 0"
    table = _boxes_of(tmp_path, [row, row])
    assert table.problems.count(yolo_rows.KEY_POINTS) == 2


def _turned(x: float, y: float, degrees: float, half: tuple[float, float] = (0.1, 0.04)) -> str:
    angle = np.radians(degrees)
    axes = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    corners = np.array([x, y]) + np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half @ axes
    return "0 " + " ".join(f"{value:.6f}" for value in corners.ravel())


def test_corners_of_rotated_boxes_are_outlines(tmp_path: Path) -> None:
    """Near the middle the first four numbers could be a box around the other two corners."""
    rows = [_turned(0.5, 0.5, 20), _turned(0.3, 0.4, 0), _turned(0.45, 0.5, 45), _turned(0.6, 0.55, 80)]
    table = _boxes_of(tmp_path, rows)
    np.testing.assert_allclose(table.boxes_xyxy_px[1], [8, 10.8, 16, 13.2], atol=1e-3)  # 0.3 +- 0.1, 0.4 +- 0.04
    assert table.problems.count(yolo_rows.OUTLINE) == 4


def test_outlines_with_the_same_number_of_points(tmp_path: Path) -> None:
    rows = [
        " ".join(["0", *(f"{value:.4f}" for n in range(6) for value in (x + 0.05 * np.cos(n), y + 0.05 * np.sin(n)))])
        for x, y in ((0.3, 0.3), (0.5, 0.5), (0.6, 0.6), (0.4, 0.55))
    ]
    assert _boxes_of(tmp_path, rows).problems.count(yolo_rows.OUTLINE) == 4


@pytest.mark.parametrize(
    "behind",
    ["0.87", "1", "17", "0.87 17"],  # a score, the number of a track, both
)
def test_predictions_as_labels(tmp_path: Path, behind: str) -> None:
    table = _boxes_of(tmp_path, [f"0 0.5 0.5 0.25 0.2 {behind}", f"1 0.3 0.3 0.1 0.2 {behind}"])
    assert table.boxes_xyxy_px[0].tolist() == [15, 12, 25, 18]
    assert table.problems.count(yolo_rows.SCORED) == 2


def test_predicted_outlines_as_labels(tmp_path: Path) -> None:
    table = _boxes_of(tmp_path, ["0 0.25 0.2 0.5 0.2 0.5 0.4 0.9", "1 0.25 0.2 0.5 0.2 0.5 0.4 0.25 0.4 0.8"])
    np.testing.assert_allclose(table.boxes_xyxy_px, [[10, 6, 20, 12]] * 2)
    assert table.problems.count(yolo_rows.SCORED) == 2


@pytest.mark.parametrize(
    ("line", "num_told"),
    [
        ("0\t0.5\t0.5\t0.25\t0.2", 0),
        ("0,0.5,0.5,0.25,0.2", 1),
        ("0, 0.5, 0.5, 0.25, 0.2", 1),
        ("0;0,5;0,5;0,25;0,2", 1),  # a spreadsheet of a country with decimal commas
        ("0 0,5 0,5 0,25 0,2", 1),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_separators(tmp_path: Path, line: str, num_told: int, encoding: str) -> None:
    _write(tmp_path, "a", f"{line}\r\n".encode(encoding))
    table = _read(tmp_path)
    assert table.boxes_xyxy_px.tolist() == [[15, 12, 25, 18]]
    assert table.problems.count(yolo_rows.COMMAS) == num_told


def test_two_images_that_share_a_label_file(tmp_path: Path) -> None:
    _write(tmp_path, "a", "0 0.5 0.5 0.25 0.2")
    _image(tmp_path / "images/train/a.png")
    table = _read(tmp_path)
    assert (_images_of(table), len(table.labels)) == (["a.jpg", "a.png"], 2)
    assert table.problems.summary() == [f"1 {yolo.SHARED_LABELS}: a.txt, of 2 images"]


def test_labels_beside_the_images(tmp_path: Path) -> None:
    """Also in a folder ``images``, where there is none for the labels."""
    for name, label in (("a.jpg", "a.txt"), ("b.JPG", "b.TXT")):
        _image(tmp_path / "images/train" / name)
        (tmp_path / "images/train" / label).write_text("1 0.5 0.5 0.25 0.2")
    (tmp_path / "images/train/_darknet.labels").write_text("ant\nbee\n")
    (tmp_path / "images/train/README.txt").write_text("Exported.")
    table = _read(tmp_path, names=None)
    assert (table.names, table.labels.tolist()) == (("ant", "bee"), [1, 1])
    assert not table.problems
