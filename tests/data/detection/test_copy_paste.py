"""Small objects pasted again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detect.boxes.intersections import intersection_areas
from detect.config.augment import AugmentConfig
from detect.data.detection.copy_paste import MARGIN_PX, blend, copy_paste, cut_patch
from detect.data.detection.geometry import Sample
from detect.data.detection.images import ImageFiles
from detect.data.detection.loading import TrainingSamples
from detect.data.detection.sampling import SampleRequest
from tests.data.detection.test_images import table_of
from tests.data.detection.test_windows import with_boxes

NOTHING = np.zeros((0, 4))
BLACK, GREY = 0, 90


def painted(boxes: list[tuple[int, int, int, int]], hw: tuple[int, int] = (80, 120)) -> Sample:
    """Black boxes on a grey image; the label is the box's number."""
    image = np.full((*hw, 3), GREY, np.uint8)
    for x1, y1, x2, y2 in boxes:
        image[y1:y2, x1:x2] = BLACK
    return Sample(image, np.array(boxes, np.float64).reshape(-1, 4), np.arange(len(boxes)))


def settings(**keys: float) -> AugmentConfig:
    return AugmentConfig(copy_paste=1.0, **keys)


def test_a_patch_by_hand() -> None:
    """Two pixels around the box of 4 x 6 px; a third and two thirds of it are seen at the border."""
    patch = cut_patch(painted([(10, 20, 14, 26)]).image_rgb, np.array([10.0, 20, 14, 26]), 1.0)
    assert patch.pixels.shape == (10, 8, 3)
    assert patch.box_xyxy_px.tolist() == [2, 2, 6, 8]
    np.testing.assert_allclose(patch.opacity[4] * 3, [1, 2, 3, 3, 3, 3, 2, 1])
    np.testing.assert_allclose(patch.opacity[:, 3] * 3, [1, 2, 3, 3, 3, 3, 3, 3, 2, 1])
    assert patch.opacity[0, 0] == pytest.approx(1 / 3)
    image = np.full((12, 12, 3), 30, np.uint8)
    blend(image, patch, 3, 1)
    # Columns 5 to 8 of the image are the box; 3 and 4 are 30 + (90 - 30) / 3 and 30 + 60 * 2 / 3.
    assert image[6, 2:12, 0].tolist() == [30, 50, 70, 0, 0, 0, 0, 70, 50, 30]
    assert image[0].max() == image[11].min() == 30


def test_a_patch_at_the_border_of_the_image_and_zoomed() -> None:
    """The box begins at the image's corner and has fractions of pixels: 0 to ceil(7.5) + 2 = 10, a fifth larger 12."""
    patch = cut_patch(painted([]).image_rgb, np.array([0.0, 0.0, 7.5, 8.0]), 1.2)
    assert patch.pixels.shape == (12, 12, 3)
    np.testing.assert_allclose(patch.box_xyxy_px, [0, 0, 9, 9.6])


def test_copies_are_where_nothing_was() -> None:
    """Copies of two objects, three each: their boxes are black in a grey neighbourhood, overlap nothing, and stay out
    of the occupied right third."""
    boxes = [(10, 10, 18, 18), (40, 50, 46, 60)]
    sample = painted(boxes)
    occupied = np.array([[80.0, 0, 120, 80]])
    zooms = set()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        found = copy_paste(rng, sample, occupied, settings(copy_paste_copies=3))
        assert found.boxes_xyxy_px[:2].tolist() == sample.boxes_xyxy_px.tolist()
        assert sorted(found.labels.tolist()) == [0, 0, 0, 0, 1, 1, 1, 1]
        everything = np.concatenate([found.boxes_xyxy_px, occupied])
        assert (intersection_areas(everything, everything) > 0).sum() == len(everything)
        for x1, y1, x2, y2 in found.boxes_xyxy_px[2:].tolist():
            inside = found.image_rgb[round(y1) + 1 : round(y2) - 1, round(x1) + 1 : round(x2) - 1]
            assert inside.max() == BLACK
            zooms.add((x2 - x1) / (8 if abs((x2 - x1) - (y2 - y1)) < 0.5 else 6))
        black = (GREY - found.image_rgb.astype(float)).sum() / GREY / 3  # pixels at the edges are black in part
        areas = (found.boxes_xyxy_px[:, 2:] - found.boxes_xyxy_px[:, :2]).prod(axis=1)
        assert black == pytest.approx(areas.sum(), rel=0.05)
        again = copy_paste(np.random.default_rng(seed), sample, occupied, settings(copy_paste_copies=3))
        np.testing.assert_array_equal(again.image_rgb, found.image_rgb)
    assert min(zooms) >= 0.75
    assert max(zooms) <= 1.26
    assert len(zooms) > 3
    assert sample.image_rgb[10:18, 10:18].max() == BLACK
    assert (sample.image_rgb == BLACK).sum() == 3 * (64 + 60)  # the original is as it was


def test_only_small_objects_that_stand_alone() -> None:
    """Of 16 x 16 px, which is not under 16; two whose surroundings of 2 px overlap the other; one alone, of 15 x 16."""
    boxes = [(2, 2, 18, 18), (30, 4, 36, 10), (36 + MARGIN_PX - 1, 4, 50, 12), (80, 40, 95, 56)]
    counts = np.zeros(4, int)
    for seed in range(10):
        found = copy_paste(np.random.default_rng(seed), painted(boxes), NOTHING, settings(copy_paste_px=16))
        counts += np.bincount(found.labels, minlength=4) - 1
    assert counts.tolist() == [0, 0, 0, 10]
    found = copy_paste(np.random.default_rng(0), painted(boxes), NOTHING, settings(copy_paste_px=16.01))
    assert sorted(found.labels.tolist()) == [0, 0, 1, 2, 3, 3]


def test_without_objects_or_without_room() -> None:
    for sample, occupied in (
        (painted([]), NOTHING),
        (painted([(10, 10, 18, 18)]), np.array([[0.0, 0, 120, 80]])),
        (painted([(0, 0, 8, 8)], (9, 9)), NOTHING),
    ):
        found = copy_paste(np.random.default_rng(0), sample, occupied, settings())
        np.testing.assert_array_equal(found.image_rgb, sample.image_rgb)
        np.testing.assert_array_equal(found.boxes_xyxy_px, sample.boxes_xyxy_px)


@pytest.mark.parametrize(("share", "mean"), [(0.0, 0), (0.5, 0.5), (1.0, 1)])
def test_in_training_samples(tmp_path: Path, share: float, mean: float) -> None:
    """copy_paste is the share of images with copies; a crowd region, the left half, is no object but stays free."""
    table = with_boxes(table_of(tmp_path, [(96, 96)]), [(0, 60, 60, 70, 70, 1), (0, 0, 0, 48, 96, 0)], crowd=(1,))
    plain = dict.fromkeys(("mosaic", "translate", "scale", "flip_left_right"), 0.0)
    augment = AugmentConfig(copy_paste=share, **plain)
    samples = TrainingSamples(table, ImageFiles(table, 96), 96, augment, 0, multiple=32)
    copies = []
    for position in range(60):
        sample = samples.sample(SampleRequest(0, position, (0,)), [])
        copies.append(len(sample.labels) - 1)
        assert (sample.labels == 1).all()
        assert sample.boxes_xyxy_px[:, 0].min() >= 48
    assert np.mean(copies) == pytest.approx(mean, abs=0.2 if share == 0.5 else 0)
