"""Everything that a user, a file or a machine can get wrong, from end to end.

What cannot be used ends with exit code 2, one line, and nothing written; what can be used in part is counted and used.
"""

from __future__ import annotations

import copy
import errno
import json
import os
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from detect.config.data import load_data_config
from detect.data.datasets import open_split
from detect.evaluation.coco import coco_metrics
from detect.models.build import build_model
from detect.models.checkpoint import load_checkpoint, save_checkpoint
from tests.evaluation.synthetic import make_found
from tests.tools.running import TRAIN, data_yaml, make_world, run_forked, run_here
from tests.training.small import TINY, write_model


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Model, data and recipe."""
    return make_world(tmp_path_factory.mktemp("bad"))


def annotations(world, split="train"):
    """The content of a split's annotation file."""
    return json.loads((world / f"shapes/annotations/{split}.json").read_text())


def data_with(world, folder, train=None, val=None):
    """A data config in ``folder`` with other annotations: text, or what is written as JSON."""
    text = data_yaml(root=str(world / "shapes"))
    for split, content in (("train", train), ("val", val)):
        if content is not None:
            (folder / f"{split}.json").write_text(content if isinstance(content, str) else json.dumps(content))
            text = text.replace(f"annotations/{split}.json", str(folder / f"{split}.json"))
    (folder / "data.yaml").write_text(text)
    return folder / "data.yaml"


def train_here(world, folder, *words):
    """Train for an epoch; later words win over earlier ones."""
    return run_here(world, *TRAIN, "--epochs", 1, "--out", folder / "out", *words)


# ------------------------------------------------------------------------------------ files that are none


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data.yaml", None, "data.yaml: no such file"),
        ("data.yaml", b"\xff\xfe\x00", "data.yaml: is not UTF-8 text"),
        ("data.yaml", b"a: [", "data.yaml:1: is not valid YAML"),
        ("data.yaml", b"- 1", "data.yaml: must be a mapping (key: value), found a list"),
        (
            "data.yaml",
            b"name: x\nroot: .\nspilts: {}\n",
            "spilts: unknown key; did you mean 'splits'?; splits: is missing",
        ),
        ("data.yaml", data_yaml("none").encode(), "none does not exist either; name it with --data-root"),
        (
            "data.yaml",
            data_yaml("SHAPES").replace("images/val", "image").encode(),
            "image: no such folder; the data set's root",
        ),
        (
            "tiny.yaml",
            b"name: t\nbackbone: [{name: stem, modul: Stem}]\n",
            "modul: unknown key; did you mean 'module'?",
        ),
        ("tiny.yaml", b"name: t\nbackbon: []\n", "tiny.yaml: backbon: unknown key; did you mean 'backbone'?"),
        ("tiny.yaml", b"name: t\nbackbone: [{name: stem, module: Stemm}]\n", "unknown 'Stemm'; did you mean 'Stem'?"),
        (
            "recipe.yaml",
            b"epohcs: 3\n",
            "recipe.yaml (with overrides): epohcs: unknown key; did you mean 'ep",
        ),
        ("recipe.yaml", b"augment: {mosiac: 1}\n", "augment.mosiac: unknown key; did you mean 'mosaic'?"),
        ("recipe.yaml", b"epochs: 3\nepochs: 4\n", "recipe.yaml:2: is not valid YAML: duplicate key 'epochs'"),
    ],
)
def test_yaml(world, tmp_path, name, content, message):
    words = {"data.yaml": "--data", "tiny.yaml": "--model", "recipe.yaml": "--recipe"}
    if content is not None:
        (tmp_path / name).write_bytes(content.replace(b"SHAPES", bytes(world / "shapes")))
    assert message in train_here(world, tmp_path, words[name], tmp_path / name).complaint
    assert not (tmp_path / "out").exists()


def test_an_experiment_with_an_unknown_key(world, tmp_path):
    (tmp_path / "run.yaml").write_text("model: yolov5n\ndata: bccd\nrecipes: default\n")
    ended = run_here(tmp_path, "train.py", "--run", "run.yaml")
    assert ended.complaint == "error: run.yaml: recipes: unknown key; did you mean 'recipe'?"
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "train.json: is not JSON: Expecting value"),
        ("{", "train.json: is not JSON"),
        ("[" * 100_000, "train.json: is nested too deeply"),
        ([], "train.json: is a list, as detection results are"),
        (3, "train.json: is not a COCO annotation file"),
        ({"annotations": []}, "train.json: is not a COCO annotation file: 'images' is missing, found annotations"),
        ({"images": [{}], "categories": 3}, "'categories' must be a list"),
        ({"images": [], "categories": []}, "train.json: lists no images"),
    ],
)
def test_annotation_files(world, tmp_path, content, message):
    data = data_with(world, tmp_path, train=content)
    assert message in train_here(world, tmp_path, "--data", data).complaint
    assert not (tmp_path / "out").exists()


def test_an_annotation_file_that_is_missing(world, tmp_path):
    (tmp_path / "data.yaml").write_text(data_yaml(str(world / "shapes")).replace("train.json", "trian.json"))
    complaint = train_here(world, tmp_path, "--data", tmp_path / "data.yaml").complaint
    assert "annotations/trian.json: no such file; the data set's root" in complaint


def with_two_images_of_one_id(content):
    content["images"][1]["id"] = content["images"][0]["id"]


def with_two_categories_of_one_id(content):
    content["categories"][1]["id"] = content["categories"][0]["id"]


def with_no_good_box(content):
    for annotation in content["annotations"]:
        annotation["bbox"][2] = 0


def with_no_image(content):
    for image in content["images"]:
        image["file_name"] = "none.jpg"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_two_images_of_one_id, "1 duplicate image ids, such as 1"),
        (with_two_categories_of_one_id, "categories: duplicate id 1 ('cross' and 'disc')"),
        (with_no_good_box, "data shapes: the training split has no usable boxes"),
        (with_no_image, "shapes train: none of the 8 images can be used; the first: "),
    ],
)
def test_annotations_that_are_of_no_use(world, tmp_path, change, message):
    content = annotations(world)
    change(content)
    assert message in train_here(world, tmp_path, "--data", data_with(world, tmp_path, train=content)).complaint
    assert not (tmp_path / "out").exists()


# --------------------------------------------------------------------------------- boxes that are damaged


def damaged(world):
    """The training annotations with a bad box of each kind in front."""
    content = annotations(world)
    first = content["annotations"][0]
    bad = {
        "nan": [float("nan"), 1, 5, 5],
        "infinite": [1, 1, float("inf"), 5],
        "text": "here",
        "negative": [20, 20, -5, 5],
        "zero": [20, 20, 5, 0],
        "outside": [200, 200, 5, 5],
        "partly outside": [60, 60, 20, 20],
        "unknown image": [1, 1, 5, 5],
    }
    entries = [{**first, "id": 1000 + i, "bbox": box} for i, box in enumerate(bad.values())]
    entries[-1]["image_id"] = 999
    content["annotations"] = [*entries, *content["annotations"]]
    return content


COUNTS = (
    "2 boxes with coordinates that are not finite numbers (skipped): annotation 1000 of image 2: [nan, 1, 5, 5]; ",
    "1 annotations with neither a bbox of four numbers nor an outline (skipped): ",
    "2 boxes of zero or negative size (skipped): annotation 1003 of image 2: [20, 20, -5, 5]; annotation 1004",
    "1 boxes wholly outside their image (skipped): annotation 1005 of image 2: [200, 200, 5, 5]",
    "1 boxes that reach out of their image by more than a pixel (kept; clipped in training): annotation 1006",
    "1 annotations of an image_id that is not listed (skipped): annotation 1007 of image 999",
)


def test_damaged_boxes_are_counted(world, tmp_path):
    ended = train_here(world, tmp_path, "--data", data_with(world, tmp_path, train=damaged(world)))
    assert ended.code == 0, ended.error
    for line in COUNTS:
        assert f"warning: shapes train: {line}" in ended.error
    kept = len(annotations(world)["annotations"]) + 1  # that which sticks out
    assert load_checkpoint(tmp_path / "out" / "last.pt").provenance["train_boxes"] == kept


def test_damaged_boxes_are_refused_when_strict(world, tmp_path):
    data = data_with(world, tmp_path, train=damaged(world))
    complaint = train_here(world, tmp_path, "--data", data, "--strict").complaint
    assert complaint.startswith("error: shapes train: refused, because --strict was asked for: ")
    for line in COUNTS:
        assert line in complaint
    assert not (tmp_path / "out").exists()


def test_ids_of_annotations(world, trained_world, tmp_path):
    """pycocotools takes annotation 0 for a miss and the second of two equal ids for the first: they are renumbered.

    So detections that are the ground truth itself have an AP of 1, by both engines.
    """
    content = annotations(world)
    for entry, number in zip(content["annotations"], [0, 5000, 5000], strict=False):
        entry["id"] = number
    data = data_with(world, tmp_path, train=content, val=content)
    words = ("--weights", trained_world / "run/best.pt", "--workers", 0, "--device", "cpu")
    ended = run_here(world, "evaluate.py", *words, "--data", data)
    assert ended.code == 0, ended.error
    assert "1 annotations with id 0, which pycocotools counts as missed (renumbered): annotation 0 of " in ended.error
    assert "1 annotations with a duplicate id (renumbered): annotation 5000 of " in ended.error
    table = open_split(load_data_config(str(data)), "train")
    rows = np.repeat(np.arange(len(table)), np.diff(table.box_offsets))
    boxes = zip(rows.tolist(), table.labels.tolist(), table.boxes_xyxy_px.tolist(), strict=True)
    found = make_found([(row, label, *box, 0.9) for row, label, box in boxes])
    for engine in ("pycocotools", "hotcoco"):
        assert coco_metrics(table, found, engine)["AP"] == pytest.approx(1.0)


# -------------------------------------------------------------------------------- images of every kind


def images_of_every_kind(folder):
    """Good images of seven kinds and bad ones of three, 40 x 30 px; the first four bytes of a GIF are no image."""
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    folder.mkdir()
    picture = Image.fromarray(rgb)
    picture.save(folder / "rgb.jpg")
    picture.convert("CMYK").save(folder / "cmyk.jpg")
    picture.convert("L").save(folder / "grey.png")
    picture.convert("RGBA").save(folder / "rgba.png")
    picture.convert("P").save(folder / "palette.png")
    cv2.imwrite(str(folder / "sixteen.png"), rgb.astype(np.uint16) * 257)
    picture.save(folder / "animated.gif", save_all=True, append_images=[picture.rotate(180)])
    whole = (folder / "rgb.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "text.jpg").write_text("no image")
    (folder / "empty.png").touch()


GOOD = ("animated.gif", "cmyk.jpg", "grey.png", "palette.png", "rgb.jpg", "rgba.png", "sixteen.png")
BAD = ("empty.png", "text.jpg", "truncated.jpg")


@pytest.fixture(scope="module")
def kinds(world):
    """A data config whose two splits have images of every kind, one of which is missing."""
    images_of_every_kind(world / "kinds")
    names = [*GOOD, *BAD, "missing.jpg"]
    content = {
        "images": [{"id": i, "file_name": name, "height": 30, "width": 40} for i, name in enumerate(names)],
        "categories": [{"id": 0, "name": "thing"}],
        "annotations": [
            {"id": i + 1, "image_id": i, "category_id": 0, "bbox": [4, 5, 20, 15], "area": 300, "iscrowd": 0}
            for i in range(len(names))
        ],
    }
    (world / "kinds.json").write_text(json.dumps(content))
    splits = "".join(f"  {split}: {{images: kinds, annotations: kinds.json}}\n" for split in ("train", "val"))
    (world / "kinds.yaml").write_text(f"name: kinds\nroot: .\nsplits:\n{splits}")
    return world


@pytest.fixture(scope="module", params=[0, pytest.param(1, marks=pytest.mark.slow)])
def trained(request, kinds):
    """How the training on images of every kind ended, without and with a worker process."""
    shutil.rmtree(kinds / "kinds-run", ignore_errors=True)
    words = ("--data", "kinds.yaml", "--epochs", 1, "--out", "kinds-run", "--workers", request.param)
    return run_here(kinds, *TRAIN, *words)


def test_training_takes_every_image_that_can_be_read(kinds, trained):
    assert trained.code == 0, trained.error
    for split in ("train", "val"):
        line = f"warning: kinds {split}: 4 images that are missing or damaged (skipped): "
        assert trained.error.count(line) == 1
    assert "empty.png" in trained.error
    origin = load_checkpoint(kinds / "kinds-run" / "best.pt").provenance
    assert (origin["train_images"], origin["train_boxes"]) == (7, 7)


def drawn_in(folder: Path) -> list[Path]:
    """Pictures, and videos of animations."""
    return [path for path in folder.iterdir() if path.suffix in (".jpg", ".mp4", ".avi")]


def test_prediction_takes_every_image_that_can_be_read(kinds, trained, tmp_path):
    ended = run_here(
        kinds, "predict.py", "--weights", "kinds-run/best.pt", "--source", "kinds", "--out", tmp_path, "--device", "cpu"
    )
    assert ended.code == 0, ended.error
    assert re.findall(r"^kinds/(\S+): ", ended.output, re.MULTILINE) == list(GOOD)
    for name in BAD:
        assert f"warning: kinds/{name}: " in ended.error
    assert "3 of 10 sources could not be read and were skipped" in ended.error
    assert len(drawn_in(tmp_path)) == 7


@pytest.mark.parametrize("tool", ["train.py", "evaluate.py"])
def test_damaged_images_are_refused_when_strict(kinds, trained, tmp_path, tool):
    words = TRAIN if tool == "train.py" else (tool, "--weights", "kinds-run/best.pt", "--workers", 0)
    ended = run_here(kinds, *words, "--data", "kinds.yaml", "--strict", "--out", tmp_path / "out")
    assert "refused, because --strict was asked for: 4 images that are missing or damaged" in ended.complaint
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.real
def test_published_images_that_break_readers(real_data, world, trained, tmp_path):
    """Files from the bug reports of an imaging library: each is drawn or reported, and the tool comes to its end."""
    ended = run_here(
        world,
        *("predict.py", "--weights", "kinds-run/best.pt", "--source", real_data / "hostile", "--out", tmp_path),
        *("--device", "cpu"),
    )
    assert ended.code == 0, ended.error
    skipped, total = re.search(r"(\d+) of (\d+) sources could not be read", ended.error).groups()
    assert len(drawn_in(tmp_path)) + int(skipped) == int(total)
    assert 0 < int(skipped) < int(total)


# ------------------------------------------------------------------------------------------- checkpoints


@pytest.fixture(scope="module")
def checkpoints(world):
    """Checkpoints that are of no use to ``tiny.yaml`` and the shapes."""

    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(world / "ran"),)

    folder = world / "checkpoints"
    folder.mkdir()
    torch.save({"format": "detect-checkpoint", "format_version": 1, "names": Hostile()}, folder / "hostile.pt")
    torch.save({"model": {"weight": torch.zeros(1)}}, folder / "foreign.pt")
    (folder / "text.pt").write_text("weights")
    torch.manual_seed(0)
    common = {"image_size": 64, "metrics": {}, "provenance": {}}
    names = ("cross", "disc", "ring", "square", "star", "triangle")
    other = build_model(write_model(folder, TINY.replace("name: tiny", NARROW)), len(names))
    save_checkpoint(folder / "other.pt", other, names=names, category_ids=tuple(range(6)), **common)
    tiny = build_model(str(world / "tiny.yaml"), 2)
    save_checkpoint(folder / "two.pt", tiny, names=("disc", "ring"), category_ids=(2, 3), **common)
    content = torch.load(folder / "two.pt", weights_only=True)
    swapped = {**content, "state_dict": other.state_dict()}
    torch.save(swapped, folder / "swapped.pt")
    broken = copy.deepcopy(content)
    broken["state_dict"]["graph.layers.stem.conv.conv.weight"][0] = torch.nan
    torch.save(broken, folder / "nan.pt")
    whole = (folder / "two.pt").read_bytes()
    (folder / "half.pt").write_bytes(whole[: len(whole) // 2])
    return folder


NARROW = "name: narrow\nscale: {width: 0.5, channel_multiple: 4}"

UNREADABLE = [
    ("none.pt", "none.pt: cannot be read: No such file or directory"),
    ("text.pt", "text.pt: is not a checkpoint, or is damaged"),
    ("half.pt", "half.pt: is not a checkpoint, or is damaged"),
    ("foreign.pt", "foreign.pt: is not a checkpoint of this toolkit"),
    ("hostile.pt", "hostile.pt: holds Python objects, not only tensors and plain values"),
    ("swapped.pt", "swapped.pt: weights of another model: "),
    ("nan.pt", "nan.pt: graph.layers.stem.conv.conv.weight is not finite"),
]


@pytest.mark.parametrize(("name", "message"), UNREADABLE)
def test_checkpoints_that_cannot_be_read(world, checkpoints, tmp_path, name, message):
    words = ("--weights", checkpoints / name, "--device", "cpu")
    ends = [
        train_here(world, tmp_path, *words),
        run_here(world, "evaluate.py", *words, "--data", "data.yaml", "--metrics-json", tmp_path / "out" / "m.json"),
        run_here(world, "predict.py", *words, "--source", "shapes/images/val", "--out", tmp_path / "out"),
    ]
    for ended in ends:
        assert message in ended.complaint
    assert not (tmp_path / "out").exists()
    assert not (world / "ran").exists()


@pytest.mark.slow
def test_resuming_from_what_cannot_be_read(world, checkpoints, tmp_path):
    assert train_here(world, tmp_path).code == 0
    for name, message in UNREADABLE[1:]:
        content = (checkpoints / name).read_bytes()
        (tmp_path / "out" / "last.pt").write_bytes(content)
        ended = run_here(world, "train.py", "--out", tmp_path / "out", "--resume", "--device", "cpu")
        assert message.split(": ", 1)[1] in ended.complaint
        assert (tmp_path / "out" / "last.pt").read_bytes() == content
        assert not (world / "ran").exists()


def test_a_checkpoint_of_another_model(world, checkpoints, tmp_path):
    complaint = train_here(world, tmp_path, "--weights", checkpoints / "other.pt").complaint
    assert (
        "other.pt: no convolution of narrow fits tiny; leave out --model to train the checkpoint's own model"
        in complaint
    )
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_of_other_classes(world, checkpoints, tmp_path):
    """Training takes what fits; measuring asks for the classes that both have, and says which are missed."""
    ended = train_here(world, tmp_path, "--weights", checkpoints / "two.pt")
    assert ended.code == 0, ended.error
    assert "tensors fit and were copied" in ended.error
    ended = run_here(world, "evaluate.py", "--weights", checkpoints / "two.pt", "--data", "data.yaml", "--workers", 0)
    assert ended.code == 0, ended.error
    assert "the model lacks 'cross', 'square'" in ended.error


# ------------------------------------------------------------------------------------------- a full disk


@pytest.mark.parametrize(
    "kilobytes",
    [
        pytest.param(100, id="pictures", marks=pytest.mark.slow),
        pytest.param(700, id="last.pt"),
    ],
)
def test_a_full_disk(world, tmp_path, kilobytes):
    """The pictures of an epoch, in one file, have 500 kB, last.pt has 800: each limit meets another of them."""
    out = tmp_path / "out"
    assert train_here(world, tmp_path, "--set", "evaluation.every=3").code == 0
    settings = (out / "config.yaml").read_text()
    (out / "config.yaml").write_text(settings.replace("epochs: 1\n", "epochs: 2\n", 1))
    assert (out / "last.pt").stat().st_size > 700_000
    before = (out / "last.pt").read_bytes()
    words = ("train.py", "--out", out, "--resume", "--device", "cpu")
    ended = run_forked(world, *words, max_file_bytes=kilobytes * 1000)
    assert ended.complaint.endswith(os.strerror(errno.EFBIG))
    assert (out / "last.pt").read_bytes() == before
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == []
    resumed = run_here(world, "train.py", "--out", out, "--resume", "--device", "cpu")
    assert resumed.code == 0, resumed.error
    assert "resuming after epoch 1 of 2" in resumed.error


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_must_not_be_written(world, tmp_path):
    (tmp_path / "out").mkdir(mode=0o500)
    assert "permission denied" in train_here(world, tmp_path).complaint
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_that_is_a_file(world, tmp_path):
    (tmp_path / "out").write_text("a file")
    assert train_here(world, tmp_path).complaint == f"error: {tmp_path / 'out'}: {os.strerror(errno.EEXIST)}"
    assert (tmp_path / "out").read_text() == "a file"
