from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from detect.boxes.tiles import ends_at_edge, find_fragments, tile_windows

# ----------------------------------------------------------------------------------------------- windows


def test_windows_by_hand():
    """Tiles of 100 with 20 in common begin every 80 at most: 250 wide leaves 150 to go, 2 steps of 75; 130 high leaves
    30, one step."""
    lefts, tops = (0, 75, 150), (0, 30)
    tiles = [[x, y, x + 100, y + 100] for y in tops for x in lefts]
    assert tile_windows((130, 250), 100, 0.2).tolist() == [*tiles, [0, 0, 250, 130]]


def test_an_image_no_larger_than_a_tile_is_one_view():
    assert tile_windows((100, 60), 100, 0.2).tolist() == [[0, 0, 60, 100]]
    assert tile_windows((1, 1), 100, 0.2).tolist() == [[0, 0, 1, 1]]


def test_a_narrow_image_has_narrow_tiles():
    assert tile_windows((150, 60), 100, 0).tolist() == [[0, 0, 60, 100], [0, 50, 60, 150], [0, 0, 60, 150]]


def test_one_pixel_more_than_a_tile():
    """The second tile is shifted inside, not padded."""
    assert tile_windows((100, 101), 100, 0).tolist() == [[0, 0, 100, 100], [1, 0, 101, 100], [0, 0, 101, 100]]


@settings(max_examples=20)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(10, 100), st.sampled_from([0, 0.1, 0.2, 0.33, 0.5, 0.9]))
def test_windows_cover_the_image_evenly(height, width, tile, overlap):
    *tiles, whole = tile_windows((height, width), tile, overlap).tolist()
    assert whole == [0, 0, width, height]
    seen = np.zeros((height, width), dtype=bool)
    for left, top, right, bottom in tiles:
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        assert (right - left, bottom - top) == (min(width, tile), min(height, tile))
        seen[top:bottom, left:right] = True
    assert seen.all() == (max(height, width) > tile)
    for low, length in ((0, width), (1, height)):
        starts = np.unique([window[low] for window in tiles])
        steps = np.diff(starts)
        assert not len(steps) or steps.max() <= max(1, tile * (1 - overlap))
        assert not len(steps) or np.ptp(steps) <= 1  # even to a pixel
        # As few as can be: one tile less, and its steps would be too long.
        if len(steps) > 1:
            assert (length - tile) / (len(steps) - 1) > np.floor(tile * (1 - overlap))


# ------------------------------------------------------------------------------------------------- edges


def test_edges_inside_the_image_cut_and_its_border_does_not():
    """The view is x 0..100, y 50..150 of an image 300 wide and 150 high: its right and its upper edge are inner."""
    boxes = [
        (0, 80, 30, 120),  # at the image's left border
        (40, 100, 70, 150),  # at the image's lower border
        (70, 80, 99, 120),  # 1 px from the right edge
        (70, 80, 97, 120),  # 3 px from it
        (40, 51.5, 70, 90),  # 1.5 px from the upper edge
        (0, 50, 100, 150),  # all of the view
    ]
    windows = np.tile([0, 50, 100, 150], (6, 1))
    cut = ends_at_edge(np.array(boxes, float), windows, (150, 300), 2.0)
    assert cut.tolist() == [False, False, True, False, True, True]


def test_no_boxes():
    none = np.zeros((0, 4))
    assert ends_at_edge(none, none, (10, 10), 2.0).shape == (0,)
    empty = np.zeros(0, dtype=int)
    assert find_fragments(none, empty, empty, empty, empty.astype(bool)).shape == (0,)


# --------------------------------------------------------------------------------------------- fragments


def fragments(*rows, labels=None):
    """Which of (view, is_cut, score, x1, x2) are fragments; all boxes are y 0..10."""
    views, cut, scores, low, high = np.array(rows, float).T
    boxes = np.stack([low, np.zeros_like(low), high, np.full_like(low, 10)], axis=1)
    labels = np.zeros(len(rows), int) if labels is None else np.array(labels)
    return find_fragments(boxes, scores, labels, views.astype(int), cut.astype(bool)).tolist()


WHOLE = (1, False, 0.8, 80, 120)


def test_the_part_of_an_object_that_another_view_shows_whole():
    """Its score may be higher."""
    assert fragments((0, True, 0.9, 80, 100), WHOLE) == [True, False]


def test_a_part_whose_box_is_too_large_gives_way_to_the_whole():
    """40 of its 70 lie in the whole box, which is smaller than it."""
    assert fragments((0, True, 0.9, 30, 100), (1, False, 0.8, 60, 110)) == [True, False]


def test_neighbours_that_only_touch_stay():
    """60..80 is beside 80..120; 70..100 lies in it by 20 of 30, 55..85 by 5 of 30."""
    assert fragments((0, True, 0.9, 60, 80), WHOLE) == [False, False]
    assert fragments((0, True, 0.9, 70, 100), WHOLE) == [True, False]
    assert fragments((0, True, 0.9, 55, 85), WHOLE) == [False, False]


def test_whole_boxes_are_no_fragments():
    """A small object before a large one of its class."""
    assert fragments((0, False, 0.5, 90, 100), WHOLE) == [False, False]


def test_one_view_knows_its_own_boxes():
    assert fragments((1, True, 0.5, 90, 100), WHOLE) == [False, False]


def test_other_classes_are_other_objects():
    assert fragments((0, True, 0.9, 80, 100), WHOLE, labels=(0, 1)) == [False, False]


def test_what_is_hardly_believed_takes_nothing_away():
    """0.4 is less than half of 0.9, 0.45 is not."""
    assert fragments((0, True, 0.9, 80, 100), (1, False, 0.4, 80, 120)) == [False, False]
    assert fragments((0, True, 0.9, 80, 100), (1, False, 0.45, 80, 120)) == [True, False]


def test_an_object_that_is_cut_in_all_views_keeps_its_larger_part():
    """Tiles 0..100 and 80..180, and an object 75..140: of 75..100, 20 of 25 lie in 80..140; of that, 20 of 60 in it."""
    assert fragments((0, True, 0.9, 75, 100), (1, True, 0.6, 80, 140)) == [True, False]


def test_parts_that_have_little_in_common_stay():
    """An object 30..160 is 30..100 and 80..160: 20 of 70 and 20 of 80."""
    assert fragments((0, True, 0.9, 30, 100), (1, True, 0.9, 80, 160)) == [False, False]


def test_equal_parts_do_not_take_each_other_away():
    assert fragments((0, True, 0.9, 80, 100), (1, True, 0.9, 80, 100)) == [False, False]


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.floats(0.1, 1), st.integers(0, 90), st.integers(1, 60))))
def test_something_stays_of_everything(rows):
    """Whole boxes all stay; without any, the largest does."""
    gone = np.array(fragments(*[(v, c, s, x, x + w) for v, c, s, x, w in rows])) if rows else np.zeros(0, bool)
    cut = np.array([row[1] for row in rows], dtype=bool)
    assert not gone[~cut].any()
    if len(rows) and cut.all():
        assert not gone[np.argmax([row[4] for row in rows])]
