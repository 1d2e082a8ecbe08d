"""Tiles with a network whose answer is known: it finds white rectangles of at least 6 network pixels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detect.data.letterbox import letterbox, pad_batch
from detect.errors import InputError
from detect.evaluation.postprocess import PredictSettings, postprocess
from detect.evaluation.tiling import TiledDetector, Tiling

SIDE = 128
"""Of the network input, and of the tiles: they are seen as they are."""

SEEN_PX = 6


class Rectangles:
    """Class 0 with certainty, and class 1 with half of it; remembers how many images came together."""

    def __init__(self):
        self.batches = []

    def __call__(self, images):
        self.batches.append(len(images))
        found = [self._boxes(image) for image in images]
        most = max(map(len, found))
        padded = [boxes + [[0.0] * 7] * (most - len(boxes)) for boxes in found]
        return torch.tensor(padded).reshape(len(images), most, 7)

    def _boxes(self, image):
        white = (image > 200).all(axis=2).astype(np.uint8)
        _, _, stats, _ = cv2.connectedComponentsWithStats(white, connectivity=4)
        return [
            [x + w / 2, y + h / 2, w, h, 1.0, 1.0, 0.5] for x, y, w, h, _ in stats[1:].tolist() if min(w, h) >= SEEN_PX
        ]


def draw(image_hw, boxes):
    image = np.zeros((*image_hw, 3), np.uint8)
    for x1, y1, x2, y2 in boxes:
        image[y1:y2, x1:x2] = 255
    return image


def detector(network=None, overlap=0.2, batch_size=4, lap=lambda part: None, **options):
    tiling, chosen = Tiling(SIDE, overlap), PredictSettings(**options)
    return TiledDetector(network or Rectangles(), tiling, SIDE, batch_size, 32, chosen, ("a", "b"), lap)


def as_set(found):
    return {tuple(box) for box in found.boxes_xyxy_px.round().astype(int).tolist()}


def test_small_and_large_objects_are_found_once():
    """The whole view of 1280 x 960 shows a tenth: 300 x 200 px as 30 x 20, and nothing of 12 px. Tiles overlap by 25 px
    at least, so that each small one is whole in some tile, and edges cut many of them."""
    small = [(x, y, x + 12, y + 12) for x in range(4, 1270, 41) for y in range(3, 600, 37)]
    large = (500, 700, 800, 900)
    image = draw((960, 1280), [*small, large])
    found = detector(max_detections=1000).detect(image)
    assert len(found) == len(small) + 1
    assert as_set(found) == {*small, large}
    assert found.image_hw == (960, 1280)
    # Without tiles only the large one is seen.
    scaled, placement = letterbox(image, SIDE)
    raw = Rectangles()(pad_batch([scaled]))
    (alone,) = postprocess(raw, [placement], PredictSettings(), ("a", "b"))
    assert as_set(alone) == {large}


def test_an_object_that_no_view_shows_whole_is_not_lost():
    """50 px are more than the tiles have in common, and 5 network pixels of the whole: too few to be seen."""
    object_xyxy = (90, 90, 140, 140)
    found = detector().detect(draw((960, 1280), [object_xyxy]))
    assert len(found) > 0
    for left, top, right, bottom in as_set(found):
        assert 90 <= left < right <= 140
        assert 90 <= top < bottom <= 140
    areas = (found.boxes_xyxy_px[:, 2:] - found.boxes_xyxy_px[:, :2]).prod(axis=1)
    # The second tile begins at round(1152 / 12) = 96 and the second row at round(832 / 9) = 92: it has 44 x 48 of it.
    assert areas.max() == 44 * 48


def test_neighbours_at_the_edge_of_a_tile_stay_two():
    """The first tile ends at 128; two objects meet there with a pixel between them."""
    boxes = [(110, 20, 127, 40), (128, 20, 146, 40)]
    assert as_set(detector().detect(draw((200, 400), boxes))) == set(boxes)


@settings(max_examples=12)
@given(st.data())
def test_each_object_that_fits_into_the_overlap_comes_once(data):
    """Objects in cells of 40 px, which tiles share at least, so that none touches another."""
    height, width = data.draw(st.integers(40, 500)), data.draw(st.integers(40, 500))
    cells = [(x, y) for x in range(0, width - 39, 40) for y in range(0, height - 39, 40)]
    boxes = []
    for x, y in data.draw(st.lists(st.sampled_from(cells), unique=True, max_size=20)):
        left, top = data.draw(st.integers(0, 15)), data.draw(st.integers(0, 15))
        w, h = data.draw(st.integers(SEEN_PX, 39 - left)), data.draw(st.integers(SEEN_PX, 39 - top))
        boxes.append((x + left, y + top, x + left + w, y + top + h))
    found = detector(overlap=0.36).detect(draw((height, width), boxes))  # 46 px of 128, more than 39 and two margins
    assert set(boxes) <= as_set(found) or max(height, width) <= SIDE  # one small image is scaled up, and so are boxes
    assert all(any(overlaps(box, one) for one in boxes) for box in as_set(found))


def overlaps(a, b):
    return min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1])


def test_an_image_no_larger_than_a_tile_is_looked_at_once():
    network = Rectangles()
    found = detector(network).detect(draw((100, 128), [(30, 20, 60, 50)]))
    assert network.batches == [1]
    assert as_set(found) == {(30, 20, 60, 50)}


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_tiles_go_through_the_network_in_batches_and_the_whole_alone(batch_size):
    """300 x 300 is 3 x 3 tiles: 300 - 128 = 172 is two steps of 86, of at most 102."""
    network = Rectangles()
    boxes = [(20, 30, 32, 42), (90, 95, 130, 135)]
    found = detector(network, batch_size=batch_size).detect(draw((300, 300), boxes))
    assert network.batches == {1: [1] * 10, 4: [4, 4, 1, 1], 100: [9, 1]}[batch_size]
    assert as_set(found) == set(boxes)


def test_settings_are_those_of_the_image():
    boxes = [(x, 20, x + 12, 32) for x in range(5, 380, 30)]
    image = draw((60, 400), boxes)
    assert len(detector(max_detections=5).detect(image)) == 5
    assert len(detector(classes=(1,)).detect(image)) == len(boxes)
    assert set(detector(classes=(1,)).detect(image).labels) == {1}
    assert len(detector(classes=(1,), score_threshold=0.6).detect(image)) == 0
    assert len(detector(multi_label=True).detect(image)) == 2 * len(boxes)
    assert len(detector(multi_label=True, class_agnostic=True).detect(image)) == len(boxes)
    scores = detector(multi_label=True).detect(image).scores
    assert (np.diff(scores) <= 0).all()


def test_a_fragment_of_another_class_goes_where_classes_do_not_matter():
    """The whole is class 0; its part in the first tile, up to 128, is class 1."""

    class Turncoat(Rectangles):
        def _boxes(self, image):
            return [[x, y, w, h, 1, *((0, 1) if w < 20 else (1, 0))] for x, y, w, h, *_ in super()._boxes(image)]

    image = draw((60, 200), [(110, 20, 134, 40)])  # 18 of its 24 px are in the first tile; the second begins at 72
    assert detector(Turncoat()).detect(image).labels.tolist() == [0, 1]
    assert detector(Turncoat(), class_agnostic=True).detect(image).labels.tolist() == [0]


def test_nothing_is_found_in_nothing():
    found = detector().detect(draw((300, 300), []))
    assert len(found) == 0
    assert found.boxes_xyxy_px.shape == (0, 4)


def test_the_parts_of_the_time_are_told():
    parts = []
    detector(batch_size=100, lap=parts.append).detect(draw((300, 300), []))
    assert parts == ["preprocess", "network", "postprocess"] * 2 + ["postprocess"]


@pytest.mark.parametrize(
    ("tile", "overlap", "message"),
    [
        (31, 0.2, "tile: must be at least 32 pixels, found 31"),
        (640, -0.1, "overlap: must be from 0 to 0.9, a share of the tile; found -0.1"),
        (640, 20, "overlap: must be from 0 to 0.9, a share of the tile; found 20"),
        (640, float("nan"), "overlap: must be from 0 to 0.9, a share of the tile; found nan"),
    ],
)
def test_out_of_range(tile, overlap, message):
    with pytest.raises(InputError, match=message):
        Tiling(tile, overlap)
