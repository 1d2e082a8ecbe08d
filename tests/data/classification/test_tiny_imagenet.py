from __future__ import annotations

import logging
from pathlib import Path

import pytest
from PIL import Image

from detect.config.data import load_data_config
from detect.data.checks import BAD_IMAGE
from detect.data.classification.image_folders import (
    BAD_LINE,
    NO_IMAGES,
    REPEATED_IMAGE,
    UNKNOWN_WNID,
    read_tiny_imagenet,
)
from detect.data.classification.table import ClassTable
from detect.errors import InputError

WNIDS = ("n03", "n01", "n02")
WORDS = "n01\tgoldfish, Carassius auratus\nn02\tcrane\nn99\tentity\nn03\tcrane, bird of wading\n"
BOX = "\t0\t1\t2\t3\n"


def make(root: Path, annotations: str | bytes = "") -> Path:
    """Two training images and a list of boxes for each class, val_0 to val_3, no test images."""
    (root / "wnids.txt").write_text("\n".join(WNIDS) + "\n")
    (root / "words.txt").write_text(WORDS)
    for wnid in WNIDS:
        add(root, f"train/{wnid}/images/{wnid}_1.JPEG", f"train/{wnid}/images/{wnid}_0.JPEG")
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t0\t63\t63\n")
    add(root, *(f"val/images/val_{number}.JPEG" for number in range(4)))
    content = annotations or f"val_0.JPEG\tn01{BOX}val_2.JPEG\tn03{BOX}val_1.JPEG\tn02{BOX}val_3.JPEG\tn01{BOX}"
    (root / "val" / "val_annotations.txt").write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def add(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64)).save(root / name)


def read(root: Path, split: str) -> ClassTable:
    return read_tiny_imagenet(load_data_config("tiny-imagenet", str(root)), split)


def listed(table: ClassTable) -> list[tuple[str, int]]:
    return [(table.path(row).name, int(table.labels[row])) for row in range(len(table))]


def test_as_published(tmp_path: Path) -> None:
    """The lists of boxes beside the training images are no problem."""
    make(tmp_path)
    train, val = read(tmp_path, "train"), read(tmp_path, "val")
    assert train.names == val.names == ("crane (n03)", "goldfish", "crane (n02)")
    assert listed(train) == [
        *(("n03_0.JPEG", 0), ("n03_1.JPEG", 0)),
        *(("n01_0.JPEG", 1), ("n01_1.JPEG", 1)),
        *(("n02_0.JPEG", 2), ("n02_1.JPEG", 2)),
    ]
    assert listed(val) == [("val_0.JPEG", 1), ("val_2.JPEG", 0), ("val_1.JPEG", 2), ("val_3.JPEG", 1)]
    assert val.read(0).shape == (64, 64, 3)
    assert not train.problems
    assert not val.problems


def test_names_are_wnids_where_there_are_no_words(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (make(tmp_path) / "words.txt").write_text("n01\tgoldfish\nno tab\nn02\t\n")
    assert read(tmp_path, "val").names == ("n03", "goldfish", "n02")
    (tmp_path / "words.txt").unlink()
    with caplog.at_level(logging.INFO, logger="detect"):
        assert read(tmp_path, "val").names == WNIDS
    assert caplog.messages[0].endswith("words.txt: is not there, classes are called by their WordNet ids")


def test_images_directly_in_the_class_folders(tmp_path: Path) -> None:
    make(tmp_path)
    for wnid in WNIDS:
        for image in (tmp_path / "train" / wnid / "images").iterdir():
            image.rename(tmp_path / "train" / wnid / image.name)
        (tmp_path / "train" / wnid / "images").rmdir()
    assert [label for _, label in listed(read(tmp_path, "train"))] == [0, 0, 1, 1, 2, 2]


def test_what_is_skipped(tmp_path: Path) -> None:
    lines = [
        f"val_0.JPEG\tn01{BOX}",
        "val_1.JPEG\n",
        "\tn01\n",
        "\n",
        "val_1.JPEG n01 0 0 1 1\n",  # blanks instead of tabs
        f"val_1.JPEG\tn99{BOX}",
        f"val_0.JPEG\tn02{BOX}",
        f"val_7.JPEG\tn01{BOX}",
        "val_2.JPEG\tn03\r\n",  # the box is not needed
    ]
    make(tmp_path, b"\xef\xbb\xbf" + "".join(lines).encode())
    table = read(tmp_path, "val")
    assert listed(table) == [("val_0.JPEG", 1), ("val_2.JPEG", 0)]
    assert table.problems.summary() == [
        f"3 {BAD_LINE}: line 2 of val_annotations.txt; line 3 of val_annotations.txt; line 5 of val_annotations.txt",
        f"1 {UNKNOWN_WNID}: 'n99' in line 6 of val_annotations.txt",
        f"1 {REPEATED_IMAGE}: 'val_0.JPEG' in line 7 of val_annotations.txt",
        f"1 {BAD_IMAGE}: {tmp_path / 'val/images/val_7.JPEG'}: no such file",
        f"1 {NO_IMAGES}: 'crane (n02)'",
    ]


def test_a_class_without_a_folder(tmp_path: Path) -> None:
    (make(tmp_path) / "train" / "n01").rename(tmp_path / "elsewhere")
    table = read(tmp_path, "train")
    assert table.labels.tolist() == [0, 0, 2, 2]
    assert table.problems.summary() == [f"1 {NO_IMAGES}: 'goldfish'"]


@pytest.mark.parametrize("name", ["../../../secret.JPEG", "/etc/passwd", "a\0b"])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    make(tmp_path, f"val_0.JPEG\tn01{BOX}{name}\tn01{BOX}")
    with pytest.raises(
        InputError, match=r"val_annotations\.txt: file name .* leads out of the images' folder .*; refu"
    ):
        read(tmp_path, "val")


def test_classes_that_lead_out_are_refused(tmp_path: Path) -> None:
    (make(tmp_path) / "wnids.txt").write_text("n01\n../val\n")
    with pytest.raises(InputError, match=r"wnids\.txt: file name '\.\./val' leads out"):
        read(tmp_path, "train")


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    make(tmp_path, "\n")
    with pytest.raises(InputError, match="tiny-imagenet val: has no images; its folders are empty"):
        read(tmp_path, "val")
    (tmp_path / "val" / "val_annotations.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"val_annotations\.txt: cannot be read: 'utf-8' codec"):
        read(tmp_path, "val")
    (tmp_path / "val" / "val_annotations.txt").unlink()
    with pytest.raises(
        InputError, match=r"val_annotations\.txt: no such file; the data set's root .* has train/, val/"
    ):
        read(tmp_path, "val")
    (tmp_path / "wnids.txt").write_text("n01\nn02\nn01\n")
    with pytest.raises(InputError, match=r"wnids\.txt: has 'n01' twice"):
        read(tmp_path, "train")
    (tmp_path / "wnids.txt").write_text("\n")
    with pytest.raises(InputError, match=r"wnids\.txt: lists no classes; it must have one WordNet id per line"):
        read(tmp_path, "train")
    (tmp_path / "wnids.txt").unlink()
    with pytest.raises(InputError, match=r"wnids\.txt: no such file"):
        read(tmp_path, "train")
