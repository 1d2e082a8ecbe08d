from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.curation.worlds import Coco, Voc
from tests.tools.running import run_here

YAML = """\
name: pets
root: .
format: coco
splits:
  train: {images: train, annotations: train.json}
  val: {images: val, annotations: val.json}
"""

ESCAPE = "cat\x1b[2J\x9b31m\u202e"


def world_in(folder: Path) -> Coco:
    (folder / "data.yaml").write_text(YAML)
    return Coco(folder)


# ------------------------------------------------------------------------------------------------ check


def test_check(tmp_path: Path) -> None:
    world = world_in(tmp_path)
    world.files["train"]["annotations"][0]["bbox"] = [2, 3, 0, 12]
    world.write()
    code, output, error = run_here(tmp_path, "data.py", "check", "--data", "data.yaml", "--json", "report.json")
    assert (code, error) == (2, "")
    lines = output.splitlines()
    assert "train                        3         3         2         1         0         0" in lines
    assert "error    train: 1 boxes of zero or negative size (skipped): annotation 1 of image 1: [2, 3, 0, 12]" in lines
    assert lines[-1] == "errors: 1 error, 0 warnings; data is lost or wrong"
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["exit_code"], report["splits"]["train"]) == (2, {"images": 3, "boxes": 3, "classes": 2})
    assert [(f["split"], f["severity"], f["count"]) for f in report["findings"]] == [("train", "error", 1)]


def test_check_of_sound_and_of_odd_data(tmp_path: Path) -> None:
    world = world_in(tmp_path)
    world.write()
    sound = run_here(tmp_path, "data.py", "check", "--data", "data.yaml")
    assert (sound.code, sound.output.splitlines()[-1]) == (0, "clean: nothing to mend")
    world.files["val"]["annotations"][0]["bbox"] = [30, 4, 12, 10]  # ends at 42 of 40 px
    world.write()
    odd = run_here(tmp_path, "data.py", "check", "--data", "data.yaml")
    assert (odd.code, odd.output.splitlines()[-1]) == (1, "warnings: 1 warning; training works, but look at them")
    of_train = run_here(tmp_path, "data.py", "check", "--data", "data.yaml", "--split", "train", "--quick")
    assert of_train.code == 0
    assert of_train.output.count("not looked for: ") == 2


def test_names_cannot_act_on_a_terminal(tmp_path: Path) -> None:
    world = world_in(tmp_path)
    for content in world.files.values():
        content["categories"][0]["name"] = ESCAPE
    world.files["train"]["annotations"][0]["iscrowd"] = 1
    world.image("train", "b").rename(tmp_path / "train" / "b\x1b]0;x\x07.jpg")
    world.write()
    for command in ("check", "stats"):
        ended = run_here(tmp_path, "data.py", command, "--data", "data.yaml", "--json", "out.json")
        assert "cat\\x1b" in ended.output
        for text in (ended.output, (tmp_path / "out.json").read_text()):
            assert all(c.isprintable() or c == "\n" for c in text)


def test_check_goes_on_where_a_split_is_refused(tmp_path: Path) -> None:
    world = world_in(tmp_path)
    world.raw["train"] = b'{"images"'
    world.write()
    ended = run_here(tmp_path, "data.py", "check", "--data", "data.yaml")
    assert ended.code == 2
    assert "train                        -         -         -         1         0         0" in ended.output
    assert "val                          2         2         2         0         0         0" in ended.output
    assert "train.json: is not JSON" in ended.output


def test_voc(tmp_path: Path) -> None:
    Voc(tmp_path).xml("a").unlink()
    splits = "".join(
        f"  {split}: {{images: JPEGImages, annotations: Annotations, list: ImageSets/{split}.txt}}\n"
        for split in ("train", "val")
    )
    (tmp_path / "data.yaml").write_text(f"name: pets\nroot: .\nformat: voc\nnames: [cat, dog]\nsplits:\n{splits}")
    ended = run_here(tmp_path, "data.py", "check", "--data", "data.yaml")
    assert ended.code == 2
    assert "train: 1 annotation files that are missing or damaged (their images are skipped): a.xml" in ended.output


# ------------------------------------------------------------------------------------------------ stats


def test_stats(tmp_path: Path) -> None:
    """40 x 30 px at 160 px: four times as large. The shorter sides, 10, 8, 20 and 9 px, become 40, 32, 80 and 36 px."""
    world = world_in(tmp_path)
    for content in world.files.values():
        content["categories"][0]["name"] = "$_\x1b人é" * 8  # matplotlib could read it as mathematics
    world.write()
    options = ("--data", "data.yaml", "--image-size", 160, "--out", "out", "--json", "stats.json")
    code, output, error = run_here(tmp_path, "data.py", "stats", *options)
    assert (code, error) == (0, "")
    assert output.startswith("pets train: 3 images, 4 boxes, 2 classes; at --image-size 160\n")
    assert "0.0 % under 8 px,  0.0 % under 16 px,  0.0 % under 32 px" in output
    assert (tmp_path / "out" / "stats.png").stat().st_size > 10_000
    found = json.loads((tmp_path / "stats.json").read_text())
    assert found["shorter_side_px"]["q50"] == 38  # between 36 and 40
    assert [advice["what"] for advice in found["advice"]] == ["detect train --data data.yaml --image-size 64"]


def test_stats_of_another_split_and_place(tmp_path: Path) -> None:
    (tmp_path / "elsewhere here").mkdir()
    world = world_in(tmp_path / "elsewhere here")
    world.write()
    options = ("--data", "elsewhere here/data.yaml", "--data-root", "elsewhere here", "--split", "val")
    ended = run_here(tmp_path, "data.py", "stats", *options)
    assert ended.code == 0
    assert ended.output.startswith("pets val: 2 images, 2 boxes")
    assert "--data 'elsewhere here/data.yaml' --data-root 'elsewhere here' --image-size" in ended.output


# ------------------------------------------------------------------------------------------- wrong input


@pytest.mark.parametrize("command", ["check", "stats"])
@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ([], "the following arguments are required: --data"),
        (["--data", "nothing.yaml"], "nothing.yaml"),
        (["--data", "cifar10"], "cifar10: format cifar is for classification, and has no boxes to look at"),
        (["--data", "data.yaml", "--split", "tset"], "there is no split 'tset'"),
        (["--data", "data.yaml", "--colour"], "unrecognized arguments: --colour"),
    ],
)
def test_wrong_input(command: str, options: list[str], complaint: str, tmp_path: Path) -> None:
    world_in(tmp_path).write()
    assert complaint in run_here(tmp_path, "data.py", command, *options).complaint


def test_no_command(tmp_path: Path) -> None:
    assert "required: COMMAND" in run_here(tmp_path, "data.py").complaint
    assert "invalid choice: 'chekc'" in run_here(tmp_path, "data.py", "chekc").complaint


@pytest.mark.parametrize("size", ["0", "-32", "big"])
def test_wrong_size(size: str, tmp_path: Path) -> None:
    world_in(tmp_path).write()
    options = ("--data", "data.yaml", f"--image-size={size}")
    assert "must be a whole number above 0" in run_here(tmp_path, "data.py", "stats", *options).complaint
