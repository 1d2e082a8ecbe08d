"""CUB-200-2011 and Stanford Dogs in the folders and files in which they are distributed."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from detect.config.data import DataConfig, SplitConfig, load_data_config
from detect.data.classification.fine_grained import BAD_LINE, NO_CLASS, NO_FOLDER, read_cub, read_stanford_dogs
from detect.errors import InputError

CUB = {
    "classes": "1 001.Black_footed_Albatross\n2 002.Laysan_Albatross\n",
    "images": "1 001.Black_footed_Albatross/a.jpg\n2 001.Black_footed_Albatross/b.jpg\n3 002.Laysan_Albatross/c.jpg\n",
    "image_class_labels": "1 1\n2 1\n3 2\n",
    "train_test_split": "1 0\n2 1\n3 1\n",
    "bounding_boxes": "1 0.0 0.0 2.0 2.0\n",
}
DOGS = ("n02085620-Chihuahua/n02085620_1.jpg", "n02085782-Japanese_spaniel/n02085782_2.jpg")


def add(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 2)).save(folder / name)


def make_cub(root: Path, **changes: str) -> DataConfig:
    for word, text in {**CUB, **changes}.items():
        (root / f"{word}.txt").write_text(text)
    add(root / "images", *(line.split()[1] for line in CUB["images"].splitlines()))
    return load_data_config("cub", str(root))


def make_dogs(root: Path, files: tuple[str, ...] = DOGS, word: str = "file_list") -> DataConfig:
    cells = np.empty((len(files), 1), object)
    cells[:, 0] = files
    (root / "lists").mkdir()
    savemat(root / "lists" / "train_list.mat", {word: cells, "labels": np.arange(len(files))[:, None] + 1})
    add(root / "Images", *DOGS)
    return load_data_config("stanford-dogs", str(root))


def listed(table) -> list[tuple[str, str]]:
    return [(table.path(row).name, table.names[table.labels[row]]) for row in range(len(table))]


def test_cub_as_distributed(tmp_path: Path) -> None:
    """The second column of the division is 1 for training."""
    config = make_cub(tmp_path)
    train, val = read_cub(config, "train"), read_cub(config, "val")
    assert train.names == val.names == ("Black footed Albatross", "Laysan Albatross")
    assert listed(train) == [("b.jpg", "Black footed Albatross"), ("c.jpg", "Laysan Albatross")]
    assert listed(val) == [("a.jpg", "Black footed Albatross")]


def test_damaged_lines_of_cub(tmp_path: Path) -> None:
    config = make_cub(tmp_path, image_class_labels="1 1\n2 7\nthree\n3 2\n")
    table = read_cub(config, "train")
    assert listed(table) == [("c.jpg", "Laysan Albatross")]
    assert (table.problems.count(NO_CLASS), table.problems.count(BAD_LINE)) == (1, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": "1 ../a.jpg\n"}, "file name '../a.jpg' leads out of the images' folder"),
        ({"train_test_split": ""}, "cub train: has no images"),
    ],
)
def test_mistakes_of_cub(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    config = make_cub(tmp_path, **{"train_test_split": "1 1\n", **changes})
    with pytest.raises(InputError, match=re.escape(message)):
        read_cub(config, "train")


def test_part_of_cub() -> None:
    config = DataConfig("mine", "/", {"all": SplitConfig("images")}, "cub")
    with pytest.raises(InputError, match=r"^mine all: annotations: must be train or test, found 'all'$"):
        read_cub(config, "all")


def test_dogs_as_distributed(tmp_path: Path) -> None:
    table = read_stanford_dogs(make_dogs(tmp_path), "train")
    assert listed(table) == [("n02085620_1.jpg", "Chihuahua"), ("n02085782_2.jpg", "Japanese spaniel")]


def test_a_dog_without_a_folder(tmp_path: Path) -> None:
    table = read_stanford_dogs(make_dogs(tmp_path, (DOGS[1], "n0-Wolf/x.jpg")), "train")
    assert listed(table) == [("n02085782_2.jpg", "Japanese spaniel")]
    assert table.problems.count(NO_FOLDER) == 1


def test_lists_that_are_none(tmp_path: Path) -> None:
    config = make_dogs(tmp_path, word="files")
    path = tmp_path / "lists" / "train_list.mat"
    whole = path.read_bytes()
    for content in (whole, b"", b"no list", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"train_list\.mat: is no list of Stanford Dogs \("):
            read_stanford_dogs(config, "train")
    savemat(path, {"file_list": np.arange(3)})
    with pytest.raises(InputError, match=r"is no list of Stanford Dogs \(a file name is no text\)"):
        read_stanford_dogs(config, "train")


def test_a_list_that_leads_away(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"file name '\.\./x\.jpg' leads out of the images' folder"):
        read_stanford_dogs(make_dogs(tmp_path, ("../x.jpg",)), "train")


def test_dogs_without_a_list(tmp_path: Path) -> None:
    config = DataConfig("mine", str(tmp_path), {"train": SplitConfig("Images")}, "stanford-dogs")
    with pytest.raises(
        InputError, match=r"^mine train: annotations: must be the split's list, such as train_list\.mat"
    ):
        read_stanford_dogs(config, "train")
