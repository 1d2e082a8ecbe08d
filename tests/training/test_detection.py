"""Data, anchors, weights and frozen parts, before the first step."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from detect.config.data import DataConfig, SplitConfig
from detect.config.recipe import DetectionRecipe
from detect.data.annotations import AnnotationTable, encode_paths, offsets_of
from detect.data.images import write_image
from detect.data.recognition import open_data
from detect.errors import InputError
from detect.models.build import build_model
from detect.models.catalog import find_definition
from detect.models.checkpoint import load_checkpoint, save_checkpoint
from detect.runtime.files import write_json
from detect.training.checks import draw_images, warn_of_ignored, with_enough_epochs
from detect.training.detection import DetectionTask, assignment_dependencies, suit_anchors
from detect.training.detection_data import (
    DetectionData,
    open_detection_data,
    prepare_detection_data,
    report_small_objects,
)
from detect.training.loop import open_task
from detect.training.starts import copy_weights
from tests.training.small import TINY, make_recipe, make_settings, make_shapes, write_model


def prepare_model(name, weights, data, recipe):
    return DetectionTask(data, recipe, strict=False).prepare_model(name, weights)


def make_table(sizes_hw, boxes, is_crowd=None, num_classes=2):
    """A table of images with boxes (row, x1, y1, x2, y2); the files do not exist."""
    rows = np.array([box[0] for box in boxes], np.int64)
    return AnnotationTable(
        image_paths=encode_paths([]),
        image_ids=np.arange(len(sizes_hw)),
        has_own_ids=False,
        sizes_hw=np.array(sizes_hw, np.int32),
        box_offsets=offsets_of(np.bincount(rows, minlength=len(sizes_hw))),
        boxes_xyxy_px=np.array([box[1:] for box in boxes], np.float64).reshape(-1, 4),
        labels=np.zeros(len(boxes), np.int64),
        is_crowd=np.array(is_crowd or [False] * len(boxes)),
        areas=np.ones(len(boxes)),
        names=tuple("abcdefgh"[:num_classes]),
        category_ids=np.arange(1, num_classes + 1),
    )


def square_table(*sides):
    """One image of 640 px with square boxes."""
    return make_table([(640, 640)], [(0, 0, 0, side, side) for side in sides])


@pytest.fixture
def said(caplog):
    """What is logged, as a list of messages."""
    caplog.set_level(logging.INFO, logger="detect")
    return caplog


# ------------------------------------------------------------------------------------------------ data


def make_data(folder, boxes_of, names=("cat", "dog"), background="keep"):
    """A data set with one image of 40 x 30 px per entry of ``boxes_of[split]``: a list of (x, y, w, h, iscrowd)."""
    for split, images in boxes_of.items():
        annotations = [
            {"image_id": i, "category_id": 1, "bbox": [*box[:4]], "iscrowd": box[4] if len(box) > 4 else 0}
            for i, boxes in enumerate(images)
            for box in boxes
        ]
        content = {
            "images": [{"id": i, "file_name": f"{i}.png"} for i in range(len(images))],
            "categories": [{"id": i + 1, "name": name} for i, name in enumerate(names)],
            "annotations": [{"id": i + 1, **annotation} for i, annotation in enumerate(annotations)],
        }
        write_json(folder / f"{split}.json", content)
        for i in range(len(images)):
            write_image(folder / "images" / f"{i}.png", np.zeros((30, 40, 3), np.uint8))
    splits = {split: SplitConfig("images", f"{split}.json") for split in boxes_of}
    return DataConfig("pets", str(folder), splits, background=background)


BOX = (1, 2, 10, 12)
needs_of = assignment_dependencies


@pytest.mark.parametrize(("background", "kept", "verb"), [("keep", 3, "kept as"), ("drop", 2, "dropped")])
def test_background(tmp_path, said, background, kept, verb):
    data = make_data(tmp_path, {"train": [[BOX], [], [BOX, BOX[::-1]]], "val": [[BOX], []]}, background=background)
    material = open_detection_data(data, strict=True)
    assert (len(material.train), len(material.train.labels)) == (kept, 3)
    assert len(material.val) == 2  # what is measured does not depend on what is trained on
    assert f"1 of 3 training images have no boxes; they are {verb}" in said.text


def three_classes(tmp_path, val_names=("cat", "dog", "eel")):
    """Two training images: a cat and two dogs, an eel; ``val_names`` are the classes of validation, one box each."""
    data = make_data(tmp_path, {"train": [[BOX] * 3, [BOX]], "val": [[BOX] * len(val_names)]})
    for split, ids, names in (("train", [1, 2, 2, 3], ("cat", "dog", "eel")), ("val", [1, 2, 3], val_names)):
        content = json.loads((tmp_path / f"{split}.json").read_text())
        for one, number in zip(content["annotations"], ids, strict=False):
            one["category_id"] = number
        content["categories"] = [{"id": number + 1, "name": name} for number, name in enumerate(names)]
        write_json(tmp_path / f"{split}.json", content)
    return data


def test_some_of_the_classes(tmp_path, said):
    data = three_classes(tmp_path)
    splits = prepare_detection_data(data, make_recipe(classes=["dog", "cat"]), strict=False)
    assert splits.train.names == splits.val.names == ("dog", "cat")
    assert splits.train.labels.tolist() == [1, 0, 0]
    assert splits.train.category_ids.tolist() == [2, 1]
    assert splits.train.box_offsets.tolist() == [0, 3, 3]  # the eel's image is background
    assert splits.val.labels.tolist() == [1, 0]
    line = "classes: 2 of 3, 3 of 4 training boxes; 1 of 2 images have none of them and are background"
    assert line in said.messages
    dropped = dataclasses.replace(data, background="drop")
    assert len(prepare_detection_data(dropped, make_recipe(classes=["cat"]), strict=False).train) == 1


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["dok"], "classes: the training split has no class 'dok'; did you mean 'dog'?"),
        (["dog", "dog"], "here: classes: names 'dog' twice"),
        (["eel"], "classes: val of pets has none of 'eel'; nothing measures them"),
    ],
)
def test_classes_that_cannot_be_trained(tmp_path, classes, message):
    data = three_classes(tmp_path, ("cat", "dog"))
    with pytest.raises(InputError, match=re.escape(message)):
        prepare_detection_data(data, make_recipe(classes=classes), strict=False)


def test_all_classes_as_one(tmp_path, said):
    data = three_classes(tmp_path)
    splits = prepare_detection_data(data, make_recipe(single_class=True, classes=["cat", "dog"]), strict=False)
    for table, boxes in ((splits.train, 3), (splits.val, 2)):
        assert (table.names, table.category_ids.tolist(), table.labels.tolist()) == (("object",), [1], [0] * boxes)
    assert "single_class: 'cat', 'dog' are one class, 'object'" in said.messages
    task = DetectionTask(splits, make_recipe(), strict=False)
    assert task.checkpoint_fields["names"] == ("object",)


def test_scenes_are_no_table_of_images(tmp_path):
    for keys in (
        {"classes": ["disc"]},
        {"single_class": True},
        {"tiles": {"size_px": 64}},
        {"sampling": {"rare_below": 0.1}},
    ):
        with pytest.raises(InputError, match=rf"^{next(iter(keys))}.*: is not for generated scenes \(data scenes\)"):
            prepare_detection_data(small_scenes(), make_recipe(**keys), strict=False)


def small_scenes():
    scenes = open_data("scenes", None)
    splits = {name: dataclasses.replace(split, count=1) for name, split in scenes.splits.items()}
    return dataclasses.replace(scenes, splits=splits)


def test_images_drawn_for_the_training(said):
    """Each of ten images has one box, whose side is its number."""
    sides = np.arange(10, 20)
    boxes = [(image, 0, 0, side, side) for image, side in enumerate(sides.tolist())]
    paths = encode_paths([Path(f"/images/{number}.png") for number in range(10)])
    table = dataclasses.replace(make_table([(64, 64)] * 10, boxes), image_paths=paths)

    def drawn(count: int, seed: int = 0) -> set[tuple[int, float]]:
        part = draw_images(table, make_recipe(train_images=count, seed=seed))
        assert len(part) == len(part.boxes_xyxy_px) == (count or 10)
        return set(zip(part.image_ids.tolist(), part.boxes_xyxy_px[:, 2].tolist(), strict=True))

    assert drawn(3) < drawn(6) < drawn(0) == drawn(10)
    assert drawn(6) != drawn(6, seed=1)
    assert "training on 3 of 10 images (train_images)" in said.text


@pytest.mark.parametrize(
    ("changes", "num_images", "epochs", "every"),
    [
        ({"min_updates": 0}, 10, 4, 2),
        ({"min_updates": 8}, 10, 4, 2),  # 2 full batches an epoch: 8 updates already
        ({"min_updates": 9}, 10, 5, 2),  # 2.5 to the even neighbour
        ({"min_updates": 40}, 10, 20, 10),
        ({"min_updates": 40}, 3, 40, 20),  # the only batch is not full
        ({"min_updates": 40, "nominal_batch_size": 8}, 10, 40, 20),  # an update of two batches
        ({"min_updates": 40, "nominal_batch_size": 64}, 10, 40, 20),  # of 16 batches, but there are two
    ],
)
def test_enough_updates(changes, num_images, epochs, every):
    recipe = make_recipe(
        **{"epochs": 4, "batch_size": 4, "nominal_batch_size": 0, "evaluation": {"every": 2}} | changes
    )
    found = with_enough_epochs(recipe, num_images)
    assert (found.epochs, found.evaluation.every) == (epochs, every)
    assert dataclasses.replace(found, epochs=4, evaluation=recipe.evaluation) == recipe


def test_the_range_of_the_training_images_goes_into_the_checkpoint(tmp_path, said):
    """Values 7400 to 7600 in each training image; the validation images have others, and are read alike."""
    data = make_data(tmp_path, {"train": [[BOX]], "val": [[BOX], [BOX]]})
    for number, low in ((0, 7400), (1, 7500)):
        values = np.linspace(low, low + 200, 1200).astype(np.uint16).reshape(30, 40)
        cv2.imwrite(str(tmp_path / "images" / f"{number}.png"), values)
    material = open_detection_data(data, strict=True)
    assert DetectionTask(material, make_recipe(), strict=True).checkpoint_fields["value_range"] == (7400.0, 7600.0)
    assert material.val.read(1).min() == 128  # (7500 - 7400) * 256 / 200
    assert said.text.count("measured on 1 images of train") == 1


def test_nothing_is_said_about_background_where_there_is_none(tmp_path, said):
    open_detection_data(make_data(tmp_path, {"train": [[BOX]], "val": [[BOX]]}), strict=True)
    assert said.messages == []


@pytest.mark.parametrize(
    ("boxes", "found"), [([], "no boxes"), ([(*BOX, 1)], "only 1 crowd or ignored regions")], ids=["none", "crowd"]
)
def test_a_validation_split_without_boxes_is_told_before_the_training(tmp_path, said, boxes, found):
    open_detection_data(make_data(tmp_path, {"train": [[BOX]], "val": [boxes]}), strict=True)
    assert said.messages == [
        f"data pets: val has {found}, so that AP and AR cannot be measured: they will be -1, "
        "which says nothing of the model"
    ]


@pytest.mark.parametrize("boxes", [[], [(*BOX, 1)]], ids=["no boxes", "crowd regions only"])
@pytest.mark.parametrize("background", ["keep", "drop"])
def test_nothing_to_learn_from(tmp_path, boxes, background):
    data = make_data(tmp_path, {"train": [boxes], "val": [[BOX]]}, background=background)
    with pytest.raises(InputError, match="data pets: the training split has no usable boxes"):
        open_detection_data(data, strict=False)


def test_a_split_is_missing(tmp_path):
    data = make_data(tmp_path, {"train": [[BOX]], "test": [[BOX]]})
    with pytest.raises(InputError, match="data pets: has no split 'val'; training needs train and val"):
        open_detection_data(data, strict=False)


def test_a_split_without_annotations(tmp_path):
    data = make_data(tmp_path, {"train": [[BOX]], "val": [[BOX]]})
    write_json(
        tmp_path / "val.json", {"images": [{"id": 0, "file_name": "0.png"}], "categories": [{"id": 1, "name": "cat"}]}
    )
    with pytest.raises(InputError, match="data pets: train and val must have annotations"):
        open_detection_data(data, strict=False)


def test_different_classes(tmp_path, caplog):
    data = make_data(tmp_path, {"train": [[BOX]]})
    other = make_data(tmp_path / "other", {"val": [[BOX]]}, names=("cat", "fox"))
    (tmp_path / "val.json").write_text((tmp_path / "other" / "val.json").read_text())
    data = dataclasses.replace(data, splits={**data.splits, **other.splits})
    open_detection_data(data, strict=False)
    assert "val has no 'dog': nothing measures them; train has no 'fox': their objects in val count as" in caplog.text
    content = json.loads((tmp_path / "val.json").read_text())
    content["categories"] = [{"id": 1, "name": "emu"}, {"id": 2, "name": "fox"}]
    (tmp_path / "val.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="no class in common: train has 'cat', 'dog', val 'emu', 'fox'"):
        open_detection_data(data, strict=False)


def test_strict_refuses(tmp_path):
    data = make_data(tmp_path, {"train": [[BOX, (1, 1, 0, 5)]], "val": [[BOX]]})
    assert len(open_detection_data(data, strict=False).train.labels) == 1
    with pytest.raises(InputError, match="pets train: refused, because --strict was asked for: 1 boxes of zero"):
        open_detection_data(data, strict=True)


# ----------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("sides", "tile_px", "message"),
    [
        # Under 8 px at 320 px is under 16 px at 640.
        (
            (15, 15, 40, 40),
            0,
            "50.0 % of 4 training boxes are under 8 px at 320 px; a larger --image-size would help them "
            "(detect data stats)",
        ),
        (
            (15, 15, 40, 40),
            640,
            "50.0 % of 4 training boxes are under 8 px at 320 px; tiles.size_px below 640 would help them "
            "(detect data stats)",
        ),
        ((16, 40), 0, "0.0 % of 2 training boxes are under 8 px at 320 px"),
        ((15,) + (40,) * 9, 0, "10.0 % of 10 training boxes are under 8 px at 320 px"),
    ],
)
def test_small_objects_are_reported(said, sides, tile_px, message):
    report_small_objects(square_table(*sides), 320, tile_px)
    assert said.messages == [message]


# --------------------------------------------------------------------------------------------- anchors


@pytest.fixture
def tiny(tmp_path):
    """The tiny model: square anchors of 8, 12, 20, 30, 45 and 64 px, so boxes from 2+ to 255 px are matched."""
    return find_definition(write_model(tmp_path))


def anchors_of(definition):
    return np.array(definition.rows[-1].args["anchors_px"])


def test_suitable_anchors_are_kept(tiny, said):
    assert suit_anchors(tiny, square_table(3, 20, 250), make_recipe(image_size=640, anchors={})) is tiny
    assert said.messages == ["anchors: best possible recall 1.0000, kept"]


def test_unsuitable_anchors_are_fitted(tiny, said):
    """Two of the three boxes are 4 or more times 64 px: a recall of 1/3, under the 0.98 asked for."""
    fitted = suit_anchors(tiny, square_table(20, 256, 400), make_recipe(image_size=640, anchors={}))
    assert anchors_of(fitted).shape == (3, 2, 2)
    sides = anchors_of(fitted).reshape(-1, 2)
    assert (np.diff(sides.prod(axis=1)) > 0).all()  # finest level first
    for side in (20, 256, 400):
        assert np.abs(sides - side).max(axis=1).min() < 0.01
    assert said.messages[0].startswith("anchors: best possible recall 0.3333, fitted to the data: 1.0000 with ")
    assert build_model(fitted, 2).head.anchors_px.tolist() == anchors_of(fitted).astype(np.float32).tolist()


@pytest.mark.parametrize(("min_recall", "is_kept"), [(0.5, True), (0.51, False)])
def test_the_recall_that_is_enough(tiny, min_recall, is_kept):
    recipe = make_recipe(image_size=640, anchors={"min_recall": min_recall})
    assert (suit_anchors(tiny, square_table(20, 400), recipe) is tiny) == is_kept


def test_the_anchor_ratio_counts(tiny):
    """At a ratio of 6, 64 px match 256 and 383 px."""
    recipe = make_recipe(image_size=640, anchors={}, loss={"anchor_ratio": 6.0})
    assert suit_anchors(tiny, square_table(20, 256, 383), recipe) is tiny


@pytest.fixture
def tiny_yolov3(tmp_path):
    """The tiny model with YOLOv3's coding."""
    return find_definition(write_model(tmp_path, TINY.replace("anchors_px", "coding: yolov3, anchors_px")))


def test_anchors_for_one_best_anchor(tiny, tiny_yolov3, said):
    """128 px match 64 px by a factor of 2 and an IoU of 64^2 / 128^2 = 1/4; 130 px by an IoU of 0.24 only."""
    recipe = make_recipe(image_size=640, anchors={})
    assert suit_anchors(tiny_yolov3, square_table(20, 128), recipe) is tiny_yolov3
    assert suit_anchors(tiny, square_table(20, 130), recipe) is tiny
    assert said.messages == [
        "anchors: close recall (IoU 0.25) 1.0000, kept",
        "anchors: best possible recall 1.0000, kept",
    ]
    said.clear()
    fitted = suit_anchors(tiny_yolov3, square_table(20, 130), recipe)
    assert np.abs(anchors_of(fitted).reshape(-1, 2) - 130).max(axis=1).min() < 0.01
    assert said.messages[0].startswith("anchors: close recall (IoU 0.25) 0.5000, fitted to the data: 1.0000 with ")
    asked = make_recipe(image_size=640, anchors={}, loss={"assignment": "yolov3"})
    assert suit_anchors(tiny, square_table(20, 130), asked) is not tiny


@pytest.mark.parametrize("coding", ["yolov5", "yolov3"])
def test_stray_labels_are_left_out_of_the_fit(tmp_path, said, coding):
    """One label of 0.0003 px among many boxes: no anchor goes there, and the model can be built."""
    definition = find_definition(write_model(tmp_path, TINY.replace("anchors_px", f"coding: {coding}, anchors_px")))
    recipe = make_recipe(image_size=640, anchors={"fit": "always"})
    fitted = suit_anchors(definition, square_table(*[20, 300, 400] * 4, 0.0003, 0.9), recipe)
    assert anchors_of(fitted).min() >= 1
    assert said.messages[0] == "anchors: 2 of 14 training boxes are under 1 px at 640 px and are left out"
    clean = suit_anchors(definition, square_table(*[20, 300, 400] * 4), recipe)
    assert anchors_of(fitted).tolist() == anchors_of(clean).tolist()
    build_model(fitted, 2)


def test_nothing_to_fit_anchors_to(tiny, said):
    recipe = make_recipe(image_size=640, anchors={"fit": "always"})
    assert suit_anchors(tiny, square_table(0.0003, 0.5), recipe) is tiny
    assert said.messages == [
        "anchors: 2 of 2 training boxes are under 1 px at 640 px and are left out",
        "anchors: kept; no training box is large enough to fit others; take a larger --image-size",
    ]


@pytest.mark.parametrize("sides", [(50,), (50,) * 20, (1,) * 3])
def test_anchors_of_few_or_equal_boxes(tiny, sides):
    fitted = suit_anchors(tiny, square_table(*sides), make_recipe(image_size=640, anchors={"fit": "always"}))
    assert np.isfinite(anchors_of(fitted)).all()
    assert anchors_of(fitted).min() >= 1
    build_model(fitted, 2)


def test_two_levels(tmp_path):
    two = TINY.replace("from: [c3, c4, c5]", "from: [c4, c5]").replace("[[8, 8], [12, 12]], ", "")
    fitted = suit_anchors(find_definition(write_model(tmp_path, two)), square_table(400, 500), make_recipe(anchors={}))
    assert anchors_of(fitted).shape == (2, 2, 2)


def test_looking_at_the_anchors_changes_no_random_number(tiny):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    suit_anchors(tiny, square_table(20), make_recipe(image_size=640, anchors={}))
    assert torch.equal(torch.rand(4), expected)


def test_fitting_that_does_not_help_is_left(tiny, said, monkeypatch):
    """k-means can miss: then the given anchors stay, and it is said."""
    monkeypatch.setattr("detect.training.detection.fit_anchors", lambda *_: np.full((6, 2), 1e4))
    assert suit_anchors(tiny, square_table(20, 400), make_recipe(image_size=640, anchors={})) is tiny
    assert said.messages == ["anchors: best possible recall 0.5000; fitting did not raise it, so they are kept"]
    assert said.records[0].levelname == "WARNING"


def test_never_and_always(tiny, said):
    bad, good = square_table(400), square_table(20, 21)
    assert suit_anchors(tiny, bad, make_recipe(image_size=640, anchors={"fit": "never"})) is tiny
    assert said.messages == []
    always = make_recipe(image_size=640, anchors={"fit": "always"})
    assert (anchors_of(suit_anchors(tiny, good, always)) != anchors_of(tiny)).any()


# ---------------------------------------------------------------------------------- settings without effect


@pytest.mark.parametrize("assignment", ["yolov5", "yolov3"])
def test_nothing_is_said_about_settings_with_an_effect(said, assignment):
    own = {"yolov5": {"anchor_ratio": 5.0}, "yolov3": {"ignore_iou": 0.5}}[assignment]
    warn_of_ignored(DetectionRecipe(), needs_of(assignment))
    warn_of_ignored(make_recipe(loss=own, optimizer={"schedule": "poly", "power": 2.0}), needs_of(assignment))
    step = {"schedule": "step", "milestones": [0.5], "step_factor": 0.2, "power": 4.0}  # 4 is the default
    warn_of_ignored(make_recipe(loss=own, optimizer=step), needs_of(assignment))
    assert said.messages == []


@pytest.mark.parametrize(
    ("loss", "optimizer", "assignment", "message"),
    [
        ({"ignore_iou": 0.5}, {}, "yolov5", "loss.ignore_iou (assignment is yolov5, not yolov3)"),
        ({"anchor_ratio": 5.0}, {}, "yolov3", "loss.anchor_ratio (assignment is yolov3, not yolov5)"),
        (
            {"anchor_ratio": 5.0, "ignore_iou": 0.5},
            {"power": 2.0, "milestones": [0.5], "step_factor": 0.2},
            "yolov3",
            "loss.anchor_ratio (assignment is yolov3, not yolov5), optimizer.power (schedule is cosine, not poly), "
            "optimizer.milestones (schedule is cosine, not step), optimizer.step_factor (schedule is cosine, not step)",
        ),
    ],
)
def test_settings_without_effect(said, loss, optimizer, assignment, message):
    warn_of_ignored(make_recipe(loss=loss, optimizer={"schedule": "cosine"} | optimizer), needs_of(assignment))
    assert said.messages == [f"no effect: {message}"]
    assert said.records[0].levelname == "WARNING"


def test_a_run_warns_of_settings_without_effect(tmp_path, said):
    """By the assignment that suits the model: the tiny one codes its boxes as YOLOv5's do."""
    data = make_shapes(tmp_path / "data", (2, 1, 1))
    settings = make_settings(tmp_path, data, loss={"ignore_iou": 0.5})
    task = open_task(settings)
    task.criterion(task.prepare_model(settings.model, None))
    assert "no effect: loss.ignore_iou (assignment is yolov5, not yolov3)" in said.messages


def test_a_head_without_anchors_has_none_to_fit(tmp_path, said):
    data = make_shapes(tmp_path / "data", (2, 1, 1))
    settings = make_settings(tmp_path, data, anchors={"fit": "always"})
    task = open_task(settings)
    for name in (settings.model, "yolox-nano"):
        task.criterion(task.prepare_model(name, None))
    assert [message for message in said.messages if "no effect" in message] == [
        "no effect: anchors.fit (the head is without, not with anchors)"
    ]


@pytest.mark.parametrize("levels", [2, 3, 4, 5])
def test_anchors_of_any_number_of_levels(tmp_path, levels):
    """Squares of 15 sizes, each 1.5 times the one before, are the anchors, smallest first: three for each level."""
    sides = [2 * 1.5**i for i in range(3 * levels)]
    names = ["c2", "c3", "c4", "c5", "c6"][:levels]
    rows = "".join(f"  - {{name: {name}, module: Downsample, args: {{out_channels: 8}}}}\n" for name in names)
    anchors = [[[500, 500]] * 3] * levels
    head = f"  - {{name: detect, module: AnchorDetect, from: [{', '.join(names)}], args: {{anchors_px: {anchors}}}}}\n"
    definition = find_definition(str(write_model(tmp_path, f"name: m\nbackbone:\n{rows}head:\n{head}")))
    recipe = make_recipe(image_size=640, anchors={"fit": "always"})
    fitted = anchors_of(suit_anchors(definition, square_table(*sides * 4), recipe))
    assert fitted.shape == (levels, 3, 2)
    np.testing.assert_allclose(fitted[..., 0].ravel(), sides, rtol=0.01)


# ------------------------------------------------------------------------------------ weights to start from


def save_tiny(folder, num_classes=3, text=TINY, name="given.pt"):
    """A checkpoint of the tiny model with recognisable weights."""
    torch.manual_seed(1)
    model = build_model(write_model(folder, text), num_classes)
    nn.init.constant_(model.graph.layers["stem"].conv.conv.weight, 0.125)
    path = folder / name
    names = tuple("abcdefgh"[:num_classes])
    ids = tuple(range(num_classes))
    save_checkpoint(path, model, names=names, category_ids=ids, image_size=64, metrics={}, provenance={})
    return path


def material(*sides, num_classes=2):
    table = make_table([(640, 640)], [(0, 0, 0, side, side) for side in sides], num_classes=num_classes)
    return DetectionData(table, table)


SCENES = {"settings": {"data": {"format": "scenes"}}}


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (("x", "y"), "6 more class by class; classes: their outputs start anew"),
        (("b", "x"), "classes: 1 carried over by name ('b'), the outputs of others start anew"),
    ],
)
def test_the_classes_of_scenes_are_not_missed(tmp_path, said, names, line):
    checkpoint = dataclasses.replace(load_checkpoint(save_tiny(tmp_path)), provenance=SCENES)
    said.clear()
    copy_weights(build_model(write_model(tmp_path), 2), checkpoint, names, "start")
    assert len(said.messages) == 1
    assert said.messages[0].startswith("start: ")
    assert said.messages[0].endswith(line)


@pytest.mark.parametrize("provenance", [{}, {"settings": 1}, {"settings": {"data": []}}, {"settings": {"data": {}}}])
def test_other_provenance_is_of_no_scenes(tmp_path, provenance):
    checkpoint = load_checkpoint(save_tiny(tmp_path))
    assert not dataclasses.replace(checkpoint, provenance=provenance).is_of_scenes
    assert dataclasses.replace(checkpoint, provenance=SCENES).is_of_scenes


@pytest.mark.parametrize("name", [None, "same"])
def test_other_classes(tmp_path, said, name):
    """What fits is copied; of the three convolutions of the head, the rows of a and b."""
    path = save_tiny(tmp_path)
    model = prepare_model(name and write_model(tmp_path), path, material(20), make_recipe(image_size=640))
    assert model.num_classes == 2
    assert (model.graph.layers["stem"].conv.conv.weight == 0.125).all()
    total = len(model.state_dict())
    assert (
        f"given.pt: {total - 7} of {total - 1} tensors fit and were copied, 6 more class by class; classes: 2 "
        in said.text
    )
    assert "classes: 2 carried over by name ('a', 'b'); 1 dropped ('c')" in said.text
    assert model.definition.name == "tiny"


def test_the_checkpoints_anchors_are_taken(tmp_path):
    path = save_tiny(tmp_path, text=TINY.replace("[64, 64]", "[200, 200]"))
    model = prepare_model(write_model(tmp_path), path, material(20), make_recipe(image_size=640))
    assert model.head.anchors_px[2, 1].tolist() == [200, 200]


def test_fitted_anchors_win_over_the_checkpoints(tmp_path):
    """The loss and the decoding read the buffer, a checkpoint is rebuilt from the definition: they must agree."""
    path = save_tiny(tmp_path)
    model = prepare_model(None, path, material(400, 500), make_recipe(image_size=640, anchors={}))
    fitted = anchors_of(model.definition)
    assert fitted.max() > 300
    np.testing.assert_allclose(model.head.anchors_px.numpy(), fitted, rtol=1e-6)


def test_another_model_of_which_half_fits(tmp_path, said):
    """A wider neck does not fit; it is said louder when less than half of the tensors did."""
    path = save_tiny(tmp_path, num_classes=2, text=TINY.replace("out_channels: 8}", "out_channels: 16}"))
    said.clear()
    prepare_model(write_model(tmp_path), path, material(20), make_recipe(image_size=640))
    assert [record.levelname for record in said.records] == ["INFO"]
    wide = TINY.replace("channels: 32", "channels: 48").replace("channels: 24", "channels: 40")
    path = save_tiny(tmp_path, num_classes=3, text=wide.replace("out_channels: 16", "out_channels: 24"), name="2.pt")
    said.clear()
    prepare_model(write_model(tmp_path), path, material(20), make_recipe(image_size=640))
    assert [record.levelname for record in said.records] == ["WARNING"]


def test_another_model_of_which_nothing_fits(tmp_path):
    """Counters of norms fit every model, biases of the head every one of as many classes: that is no fine-tuning."""
    small = TINY.replace("name: tiny", "name: small\nscale: {width: 0.5, channel_multiple: 4}")
    path = save_tiny(tmp_path, num_classes=2, text=small)
    with pytest.raises(InputError, match=r"given\.pt: no convolution of small fits tiny; leave out --model"):
        prepare_model(write_model(tmp_path), path, material(20), make_recipe(image_size=640))


@pytest.mark.parametrize(
    ("model", "level", "line"),
    [
        ("yolov5n-spd+width=0.1", "INFO", "rearranged, the function is the same ("),
        ("yolov5n-spd+width=0.1+activation=relu", "WARNING", "no exact form: stem, "),
    ],
)
def test_strided_weights_start_a_space_to_depth_model(tmp_path, said, model, level, line):
    """Every tensor is copied, for other classes too; one line says whether the function is the same."""
    path = tmp_path / "strided.pt"
    strided = build_model("yolov5n+width=0.1", 3)
    fields = {"names": ("b", "c", "d"), "category_ids": (1, 2, 3), "image_size": 64, "metrics": {}, "provenance": {}}
    save_checkpoint(path, strided, **fields)
    said.clear()
    prepared = prepare_model(model, path, material(20), make_recipe(image_size=640))
    first, second = said.records[-2:]
    assert first.levelname == level
    assert first.getMessage().startswith(f"{path}: strided weights became SPD: 7 rows rearranged")
    assert line in first.getMessage()
    total = len(prepared.state_dict()) - 1  # without the anchors
    assert f"{total - 6} of {total} tensors fit and were copied, 6 more class by class" in second.getMessage()


def test_a_checkpoint_with_another_number_of_levels(tmp_path):
    """Its anchors do not fit the model, which keeps its own."""
    two = TINY.replace("from: [c3, c4, c5]", "from: [c4, c5]").replace("[[8, 8], [12, 12]], ", "")
    path = save_tiny(tmp_path, num_classes=2, text=two)
    model = prepare_model(write_model(tmp_path), path, material(20), make_recipe(image_size=640))
    assert model.head.anchors_px.shape == (3, 2, 2)
    assert model.head.anchors_px[0, 0].tolist() == [8, 8]


@pytest.mark.parametrize("start", ["yolov5n", "yolov5n-spd"])
def test_a_finer_level_starts_from_three(tmp_path, said, start):
    """Strided weights too: space-to-depth first, then the levels. The anchors of shared levels are the checkpoint's."""
    path = tmp_path / "three.pt"
    three = build_model(f"{start}+width=0.1", 2)
    three.head.anchors_px[0, 0] = torch.tensor([11.0, 12.0])
    facts = {"names": ("a", "b"), "category_ids": (0, 1), "image_size": 64, "metrics": {}, "provenance": {}}
    save_checkpoint(path, three, **facts)
    said.clear()
    model = prepare_model("yolov5n-spd+p2+width=0.1", path, material(20), make_recipe(image_size=640))
    assert "323 of 362 tensors fit and were copied; classes: all 2 carried over; level p2 starts anew" in said.text
    assert start == "yolov5n-spd" or "strided weights became SPD: 7 rows rearranged, the function is the" in said.text
    assert model.head.anchors_px[:2, 0].tolist() == [[5, 6.5], [11, 12]]
    assert model.head.predict[1].weight.equal(three.head.predict[0].weight)


@pytest.mark.parametrize(
    ("given", "wanted", "message"),
    [
        ("ab", "ab", "{total} of {total} tensors fit and were copied; classes: all 2 carried over"),
        (
            "ba",
            "ab",
            "{less} of {total} tensors fit and were copied, 6 more class by class; classes: 2 carried over by na",
        ),
        ("ax", "ab", "classes: 1 carried over by name ('a'); 1 start anew ('b'); 1 dropped ('x')"),
        ("AB", "ab", "classes: 2 carried over by name ('a', 'b'); 'A' is 'a', 'B' is 'b', case and blanks apart"),
        ("01", "ab", "2 dropped ('0', '1'); the checkpoint has numbers instead of names (detect import --na"),
    ],
)
def test_what_is_said_of_the_classes_is_true(tmp_path, said, given, wanted, message):
    """The checkpoint's class x has the bias x's place + 1 in each level; the tiny head has 2 anchors."""
    model = build_model(write_model(tmp_path), 2)
    for conv in model.head.predict:
        nn.init.zeros_(conv.bias)
        conv.bias.data.view(2, 7)[:, 5:] = torch.tensor([101.0, 102.0])
    facts = {"names": tuple(given), "category_ids": (0, 1), "image_size": 64, "metrics": {}, "provenance": {}}
    save_checkpoint(tmp_path / "w.pt", model, **facts)
    found = prepare_model(None, tmp_path / "w.pt", material(20), make_recipe(image_size=640))
    total = len(model.state_dict()) - 1
    assert message.format(total=total, less=total - 6) in said.text
    bias = found.head.predict[0].bias.view(2, 7)[0, 5:].tolist()
    expected = {"ab": [101, 102], "ba": [102, 101], "AB": [101, 102]}
    if given in expected:
        assert bias == expected[given]
    else:
        assert [value > 100 for value in bias] == [given == "ax", False]
