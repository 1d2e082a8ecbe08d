from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import get_args

import cv2
import numpy as np
import pytest

from detect.config.data import Ingredient
from detect.data.scenes.boards import DEFECTS, draw_traces
from detect.data.scenes.families import FAMILIES, members
from detect.data.scenes.painting import Canvas, draw_style, plain
from detect.data.scenes.scene import CLASSES, MAX_OBJECTS, Scene, draw_scene
from detect.data.scenes.sprites import turned_sprite
from detect.data.scenes.textures import TEXTURES
from detect.runtime.reproducibility import generator

_SIDE = 128
_TEN_SCENES = "4d11ba167d3b41e27288bf2a07f169f94986a18c42864a5ba8db6079536cf2be"
"""SHA-256 of ten scenes: their pixels, boxes and labels are the same on every machine."""


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw_scene(_SIDE, 3, index) for index in range(120)]


@pytest.fixture
def without_vector_instructions() -> Iterator[None]:
    cv2.setUseOptimized(False)
    yield
    cv2.setUseOptimized(True)


def _digest() -> str:
    digest = hashlib.sha256()
    for index in range(10):
        scene = draw_scene(160, 7, index)
        for part in (scene.image_rgb, scene.boxes_xyxy_px.astype("<i4"), scene.labels.astype("<i4")):
            digest.update(part.tobytes())
    return digest.hexdigest()


def test_scenes_are_the_same_on_every_machine() -> None:
    assert _digest() == _TEN_SCENES


def test_scenes_do_not_depend_on_the_processor(without_vector_instructions: None) -> None:
    assert _digest() == _TEN_SCENES


def test_another_seed_or_index_is_another_scene(scenes: list[Scene]) -> None:
    assert len({scene.image_rgb.tobytes() for scene in scenes}) == len(scenes)
    assert not np.array_equal(draw_scene(_SIDE, 4, 0).image_rgb, scenes[0].image_rgb)


def test_boxes_lie_in_the_image_and_hold_the_visible_pixels(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert scene.image_rgb.shape == (_SIDE, _SIDE, 3)
        assert len(scene.boxes_xyxy_px) == len(scene.labels) == len(scene.areas)
        assert (scene.boxes_xyxy_px >= 0).all()
        assert (scene.boxes_xyxy_px <= _SIDE).all()
        sizes = scene.boxes_xyxy_px[:, 2:] - scene.boxes_xyxy_px[:, :2]
        assert (sizes >= 1).all()
        assert (scene.areas >= 3).all()
        assert (scene.areas <= sizes.prod(axis=1)).all()


def test_scenes_differ_in_what_counts(scenes: list[Scene]) -> None:
    counts = [len(scene.labels) for scene in scenes]
    sides = np.concatenate([(each.boxes_xyxy_px[:, 2:] - each.boxes_xyxy_px[:, :2]).max(axis=1) for each in scenes])
    grey = [np.ptp(scene.image_rgb, axis=2).max() == 0 for scene in scenes]
    assert min(counts) == 0
    assert max(counts) > 20
    assert sides.min() <= 4
    assert sides.max() >= 60
    assert 0.1 < np.mean(grey) < 0.6


def test_a_large_scene_has_up_to_200_objects() -> None:
    assert 130 < len(draw_scene(640, 0, 512).labels) <= MAX_OBJECTS


def test_there_are_many_families_and_each_has_objects() -> None:
    assert len(CLASSES) == len(FAMILIES) + len(DEFECTS) >= 32
    found = set(np.concatenate([draw_scene(_SIDE, 11, index).labels for index in range(250)]).tolist())
    assert found == set(range(len(CLASSES)))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_box_is_the_extent_of_its_object(family: str) -> None:
    """One white object on black, anywhere: pixels that it covers by half or more belong to it."""
    for number, size in enumerate((3.0, 9.0, 40.0, 100.0)):
        style = plain(draw_style(family, size, generator(number)))
        style = style._replace(tones=np.full((3, 3), 255.0), jitter=0.0, contrast=255.0)
        canvas = Canvas(np.zeros((_SIDE, _SIDE), np.uint8))
        for attempt in range(20):  # a place outside is left out
            if canvas.num_objects == 0:
                canvas.paint(style, 0, 1, generator(number, attempt))
        boxes, _, areas = canvas.objects()
        if len(boxes):  # thin strokes of 3 px may cover no pixel by half
            left, top, width, height = cv2.boundingRect((canvas.image > 127).view(np.uint8))
            np.testing.assert_array_equal(boxes[0], (left, top, left + width, top + height))
            assert areas[0] == np.count_nonzero(canvas.image > 127)


@pytest.mark.parametrize("turn", range(8))
def test_a_turned_sprite_covers_what_is_drawn(turn: int) -> None:
    for family, index in (("arrow", 90), ("person", 60), ("spiral", 100)):
        sprite = turned_sprite(family, index, turn)
        height, width = sprite.inside.shape
        image = np.zeros((height + 20, width + 20), np.uint8)
        sprite.draw(image, 10, 10, [[255]] * 3)
        np.testing.assert_array_equal(image[10:-10, 10:-10] > 127, sprite.inside.astype(bool))
        assert cv2.countNonZero(image) == cv2.countNonZero(image[9:-9, 9:-9])


def test_a_covered_object_has_the_box_of_what_is_left() -> None:
    canvas = Canvas(np.zeros((64, 64), np.uint8))
    canvas._owner[10:20, 10:40] = 1
    canvas._owner[10:20, 30:50] = 2  # hides the right third of the first
    canvas._owner[40:44, 0:40] = 3
    canvas._owner[40:44, 0:36] = 4  # leaves a tenth of the third
    canvas._windows = [(8, 8, 42, 22), (28, 8, 52, 22), (0, 38, 42, 46), (0, 38, 38, 46)]
    canvas._labels, canvas._areas = [5, 6, 7, 8], [300, 200, 160, 144]
    boxes, labels, areas = canvas.objects()
    assert labels.tolist() == [5, 6, 8]
    assert boxes.tolist() == [[10, 10, 30, 20], [30, 10, 50, 20], [0, 40, 36, 44]]
    assert areas.tolist() == [200, 200, 144]


def test_members_fit_the_unit_square() -> None:
    for family, drawn in members().items():
        for member in drawn:
            extent = np.ptp(member.points, axis=0).max() + member.stroke
            assert extent == pytest.approx(2, abs=2 * member.stroke + 1e-9), family
            assert np.isfinite(member.points).all()


@pytest.mark.parametrize("texture", TEXTURES)
def test_textures_fill_the_side(texture: str) -> None:
    for side in (33, 100):
        amounts = [TEXTURES[texture](side, generator(1, index)) for index in range(8)]
        assert all(amount.shape == (side, side) and amount.dtype == np.uint8 for amount in amounts)
        assert texture == "flat" or any(np.ptp(amount) > 20 for amount in amounts)


def test_boxes_of_defects_are_the_pixels_that_differ_from_the_sound_pattern() -> None:
    found: set[str] = set()
    for seed in range(24):
        pattern, defects = draw_traces(192, generator(seed), max_defects=20)
        sound, none = draw_traces(192, generator(seed), max_defects=0)
        changed = pattern != sound
        found |= set(defects.families)
        assert not none.families
        for left, top, right, bottom in defects.boxes_xyxy_px.tolist():
            inside = changed[top:bottom, left:right]
            assert inside[0].any()
            assert inside[-1].any()
            assert inside[:, 0].any()
            assert inside[:, -1].any()
            changed[top:bottom, left:right] = False
        assert not changed.any()
    assert found == set(DEFECTS)


@pytest.mark.parametrize("ingredient", get_args(Ingredient))
def test_an_ingredient_can_be_left_out(ingredient: Ingredient) -> None:
    full, less = ([draw_scene(_SIDE, 2, index, without) for index in range(40)] for without in ((), (ingredient,)))
    assert any(not np.array_equal(a.image_rgb, b.image_rgb) for a, b in zip(full, less, strict=True))
    names = {CLASSES[label] for scene in less for label in scene.labels.tolist()}
    assert ingredient != "boards" or not names & set(DEFECTS)
    assert ingredient != "families" or names - set(DEFECTS) == {"disc", "rectangle"}
