from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from detect.drawing.boxes import DASH_PX, _place, class_color, draw_frames
from tests.inference.samples import make_detections


def grey(height, width):
    return np.full((height, width, 3), 128, np.uint8)


def changed(before, after):
    """(H, W) bool: pixels that differ."""
    return (before != after).any(axis=2)


def test_nothing_found_leaves_a_copy():
    image = grey(20, 30)
    drawn = make_detections([], (20, 30)).plot(image)
    np.testing.assert_array_equal(drawn, image)
    assert drawn is not image


def test_the_image_itself_is_left_alone():
    image = grey(100, 200)
    drawn = make_detections([(0, 50, 40, 120, 90, 0.9)]).plot(image)
    assert (image == 128).all()
    assert changed(image, drawn).any()
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8


def test_the_outer_edge_of_the_frame_is_the_box():
    # 100 x 200 has lines of 1 px. The box covers the pixels 50..119 x 40..89; its label stands above, so below row 40
    # only the frame is new.
    drawn = make_detections([(0, 50, 40, 120, 90, 0.9)]).plot(grey(100, 200))
    new = changed(grey(100, 200), drawn)[40:]
    expected = np.zeros_like(new)
    expected[0:50, 50:120] = True
    expected[1:49, 51:119] = False
    np.testing.assert_array_equal(new, expected)
    assert drawn[60, 50].tolist() == list(class_color(0))


def test_lines_grow_with_the_image():
    # (1600 + 1600) / 800 = 4 px.
    drawn = make_detections([(0, 400, 400, 800, 800, 0.9)], (1600, 1600)).plot(grey(1600, 1600))
    assert changed(grey(1600, 1600), drawn)[600, 390:410].tolist() == [False] * 10 + [True] * 4 + [False] * 6


def test_tiny_boxes_keep_their_object_visible():
    drawn = make_detections([(0, 400, 400, 408, 408, 0.9)], (1600, 1600)).plot(grey(1600, 1600))
    assert not changed(grey(1600, 1600), drawn)[401:407, 401:407].any()


def test_labels_stay_inside_the_image() -> None:
    for box in [(0, 0, 200, 100), (0, 0, 5, 5), (195, 95, 200, 100), (198, 0, 200, 2), (0, 97, 3, 100)]:
        image = grey(100, 200)
        drawn = make_detections([(0, *box, 0.9)]).plot(image)
        # The label is a filled rectangle of at least 10 px text: many pixels of the class's colour besides the frame.
        assert (drawn == class_color(0)).all(axis=2).sum() > 300


def test_images_smaller_than_a_label() -> None:
    for shape in [(1, 1), (4, 400), (400, 4), (12, 12)]:
        height, width = shape
        drawn = make_detections([(0, 0, 0, width, height, 0.9)], shape).plot(grey(height, width))
        assert drawn.shape == (height, width, 3)


def test_labels_of_small_neighbours_do_not_hide_them():
    rows = [(0, 40 + 30 * i, 50, 48 + 30 * i, 58, 0.9 - 0.1 * i) for i in range(4)]
    drawn = make_detections(rows).plot(grey(100, 200))
    for _, x1, y1, x2, y2, _ in rows:
        assert not changed(grey(100, 200), drawn)[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1].any()


def test_names_beyond_ascii_are_not_question_marks():
    box = (0, 50, 40, 120, 90, 0.9)
    drawings = [
        make_detections([box], names=(name, "x")).plot(grey(100, 200)) for name in ("котик", "шапка", "?????", "猫猫")
    ]
    for index, first in enumerate(drawings):
        assert all(changed(first, second).any() for second in drawings[index + 1 :])


def test_colours_are_distinct():
    colors = np.array([class_color(label) for label in range(24)], dtype=float)
    distances = np.abs(colors[:, None] - colors[None]).sum(axis=2) + 1000 * np.eye(24)
    assert distances.min() > 30
    assert class_color(3) == class_color(3)


def test_a_crowd_is_drawn():
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 180, (300, 2)) * [1, 0.45]
    rows = [(k % 2, x, y, min(x + 15, 200), min(y + 15, 100), 1 - k / 400) for k, (x, y) in enumerate(corners)]
    assert changed(grey(100, 200), make_detections(rows).plot(grey(100, 200))).any()


def test_numbers_of_tracked_objects_make_the_label_longer():
    found = make_detections([(0, 50, 40, 120, 90, 0.9)])
    plain = changed(grey(100, 200), found.plot(grey(100, 200)))
    unknown = replace(found, track_ids=np.array([-1])).plot(grey(100, 200))
    np.testing.assert_array_equal(changed(grey(100, 200), unknown), plain)
    numbered = changed(grey(100, 200), replace(found, track_ids=np.array([12])).plot(grey(100, 200)))
    assert numbered[:40].sum() > plain[:40].sum()
    np.testing.assert_array_equal(numbered[41:], plain[41:])


def test_a_label_that_would_hide_others_is_left_out():
    box, none = np.array([10, 10, 50, 50.0]), np.zeros((0, 4))
    assert _place(box, (20, 10), (100, 100), none, none) == (10, 0, 30, 10)
    assert _place(box, (20, 10), (100, 100), np.array([[0, 0, 100, 100.0]]), none) is None


def test_a_label_keeps_off_what_touches_one_of_its_places_only():
    # Above and below, the places are full; that to the right is [50, 70] x [10, 20].
    box, none = np.array([10, 10, 50, 50.0]), np.zeros((0, 4))
    objects = np.array([[10, 0, 30, 10], [10, 50, 30, 60], [200, 200, 210, 210.0]])
    assert _place(box, (20, 10), (100, 100), none, objects) == (50, 10, 70, 20)
    right = np.array([[69, 10, 90, 20.0]])  # and one pixel of that counts as well: 10 px hidden there, 100 inside
    inside = np.array([[10, 10, 20, 20.0]])
    assert _place(box, (20, 10), (100, 100), none, np.concatenate([objects, right, inside])) == (50, 10, 70, 20)


@pytest.mark.parametrize("box", [(10, 20, 60, 80), (-30, -20, 50, 40), (70, 50, 300, 200)])
def test_dashes_lie_on_the_whole_image(box):
    """Stripes are counted from the corner of the image, wherever a box begins."""
    image = grey(100, 120)
    boxes, labels = np.array([box], float), np.array([0])
    solid = changed(image, draw_frames(image, boxes, labels))
    dashed = changed(image, draw_frames(image, boxes, labels, np.array([True])))
    stays = np.add.outer(np.arange(100), np.arange(120)) // DASH_PX % 2 == 0
    assert solid.any()
    np.testing.assert_array_equal(dashed, solid & stays)
