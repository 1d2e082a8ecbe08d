from __future__ import annotations

import math

import pytest
import torch
from torchvision.ops import box_convert, box_iou

from detect.losses.assignment import Matches, covered, match_best, match_by_ratio
from detect.models.catalog import find_definition
from detect.structures import Targets

ANCHOR = torch.tensor([[16.0, 16.0]])


def targets(*rows: tuple) -> Targets:
    """Targets from (centre x, centre y, width, height in px) with the label 0 in image 0, or those two behind."""
    full = [(*row, 0, 0)[:6] for row in rows]
    cxcywh = torch.tensor([row[:4] for row in full], dtype=torch.float32).view(-1, 4)
    boxes = torch.cat([cxcywh[:, :2] - cxcywh[:, 2:] / 2, cxcywh[:, :2] + cxcywh[:, 2:] / 2], dim=1)
    labels, images = (torch.tensor([row[i] for row in full], dtype=torch.int64) for i in (4, 5))
    return Targets(images, labels, boxes)


def match(given: Targets, anchors: torch.Tensor = ANCHOR, grid_hw: tuple[int, int] = (4, 4)) -> Matches:
    """At reduction 8 and the ratio 4."""
    return match_by_ratio(given, grid_hw, anchors, 8, 4.0)


def cells(matches: Matches) -> list[tuple[int, int]]:
    """(column, row) of each match."""
    return list(zip(matches.column.tolist(), matches.row.tolist(), strict=True))


def test_no_targets() -> None:
    found = match(targets())
    assert len(found) == 0
    assert found.boxes_cxcywh_cells.shape == (0, 4)
    assert (found.row.dtype, found.labels.dtype, found.image.dtype) == (torch.int64,) * 3


def test_cells() -> None:
    for x, y, expected in [
        # In the middle of a cell, nothing is nearer than half a cell.
        (1.5, 1.5, [(1, 1)]),
        (1.2, 1.5, [(1, 1), (0, 1)]),
        (1.8, 1.5, [(1, 1), (2, 1)]),
        (1.5, 1.2, [(1, 1), (1, 0)]),
        (1.5, 1.8, [(1, 1), (1, 2)]),
        # Own cell first, then left, above, right, below.
        (1.2, 1.2, [(1, 1), (0, 1), (1, 0)]),
        (2.8, 1.8, [(2, 1), (3, 1), (2, 2)]),
        (1.2, 2.8, [(1, 2), (0, 2), (1, 3)]),
        # There is nothing outside the grid.
        (0.2, 0.2, [(0, 0)]),
        (0.8, 0.2, [(0, 0), (1, 0)]),
        (3.8, 3.8, [(3, 3)]),
        (3.2, 3.8, [(3, 3), (2, 3)]),
    ]:
        found = match(targets((8 * x, 8 * y, 16, 16)))
        assert cells(found) == expected
        centres = [[pytest.approx(x - column, abs=1e-5), pytest.approx(y - row, abs=1e-5)] for column, row in expected]
        assert found.boxes_cxcywh_cells[:, :2].tolist() == centres
        torch.testing.assert_close(found.boxes_cxcywh_cells[:, 2:], torch.full((len(expected), 2), 2.0))  # 16 px


def test_centres_on_a_border_of_cells() -> None:
    """Exactly there, and only there, the own cell counts once more for each such direction, as in the source."""
    for x, y, expected in [
        (2.0, 1.5, [(2, 1), (1, 1), (2, 1)]),
        (2.0, 2.0, [(2, 2), (1, 2), (2, 1), (2, 2), (2, 2)]),
        (0.0, 1.5, [(0, 1), (0, 1)]),
        (4.0, 1.5, [(3, 1), (3, 1)]),  # the right edge of the image belongs to the last column
    ]:
        found = match(targets((8 * x, 8 * y, 16, 16)))
        assert cells(found) == expected
        assert found.boxes_cxcywh_cells[:, 0].tolist() == [x - column for column, _ in expected]


def test_every_matched_centre_can_be_decoded() -> None:
    """From half a cell before its cell to half a cell behind: what the decoding reaches."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.rand(500, 2, generator=generator) * 32
    found = match(targets(*((x, y, 16, 16) for x, y in centres.tolist())))
    assert len(found) > 1000
    assert found.boxes_cxcywh_cells[:, :2].min() >= -0.5
    assert found.boxes_cxcywh_cells[:, :2].max() <= 1.5


def test_ratio() -> None:
    for width, height, fits in [
        (16, 16, True),
        (63.9, 16, True),
        (64, 16, False),  # the factor 4 itself does not match
        (16, 64, False),
        (4.1, 16, True),
        (4, 16, False),
        (16, 4, False),
        (63.9, 4.1, True),  # each side is judged alone
        (0, 16, False),
        (0, 0, False),
    ]:
        assert len(match(targets((12, 12, width, height)))) == int(fits)


def test_several_anchors() -> None:
    """A 16 px box differs by 2, 1, 3.75 and 4 from these anchors."""
    anchors = torch.tensor([[8.0, 8.0], [16.0, 16.0], [60.0, 16.0], [16.0, 64.0]])
    found = match(targets((12, 12, 16, 16)), anchors)
    assert found.anchor.tolist() == [0, 1, 2]
    assert cells(found) == [(1, 1)] * 3


def test_labels_and_images_follow() -> None:
    """By neighbour, then anchor, then target: own cells of both targets for both anchors first."""
    anchors = torch.tensor([[16.0, 16.0], [20.0, 20.0]])
    found = match(targets((9.6, 12, 16, 16, 5, 1), (20, 20, 16, 16, 7, 0)), anchors)
    assert found.labels.tolist() == [5, 7, 5, 7, 5, 5]
    assert found.image.tolist() == [1, 0, 1, 0, 1, 1]
    assert found.anchor.tolist() == [0, 0, 1, 1, 0, 1]
    assert cells(found) == [(1, 1), (2, 2), (1, 1), (2, 2), (0, 1), (0, 1)]


def test_grid_that_is_not_square() -> None:
    assert cells(match(targets((36, 12, 16, 16)), grid_hw=(2, 6))) == [(4, 1)]
    assert cells(match(targets((12, 36, 16, 16)), grid_hw=(6, 2))) == [(1, 4)]


def slow_matches(given: Targets, grid_hw: tuple[int, int], anchors_px: torch.Tensor, reduction: int, max_ratio: float):
    """One target, one anchor, one cell at a time: {(image, anchor, column, row, label, x, y, w, h)}."""
    found = []
    for image, label, (x1, y1, x2, y2) in zip(
        given.image_index.tolist(), given.labels.tolist(), given.boxes_xyxy_px.tolist(), strict=True
    ):
        x, y, w, h = (x1 + x2) / 2 / reduction, (y1 + y2) / 2 / reduction, (x2 - x1) / reduction, (y2 - y1) / reduction
        for anchor, (anchor_w, anchor_h) in enumerate((anchors_px / reduction).tolist()):
            if max(w / anchor_w, anchor_w / w, h / anchor_h, anchor_h / h) >= max_ratio:
                continue
            column, row = math.floor(x), math.floor(y)
            chosen = [(column, row)]
            if x - column != 0.5:
                chosen.append((column - 1 if x - column < 0.5 else column + 1, row))
            if y - row != 0.5:
                chosen.append((column, row - 1 if y - row < 0.5 else row + 1))
            for c, r in chosen:
                if 0 <= c < grid_hw[1] and 0 <= r < grid_hw[0]:
                    found.append((image, anchor, c, r, label, x - c, y - r, w, h))
    return sorted(found)


def test_agrees_with_the_slow_way() -> None:
    for grid_hw, reduction in [((10, 14), 8), ((5, 7), 16)]:
        for seed in range(5):
            generator = torch.Generator().manual_seed(seed)
            number = 60
            centres = torch.rand(number, 2, generator=generator) * torch.tensor([grid_hw[1], grid_hw[0]]) * reduction
            sizes = torch.exp(torch.rand(number, 2, generator=generator) * 3.5 + 1)  # 2.7 to 90 px
            given = Targets(
                torch.randint(0, 4, (number,), generator=generator),
                torch.randint(0, 3, (number,), generator=generator),
                torch.cat([centres - sizes / 2, centres + sizes / 2], dim=1),
            )
            anchors = torch.tensor([[10.0, 13.0], [16.0, 30.0], [33.0, 23.0]])
            found = match_by_ratio(given, grid_hw, anchors, reduction, 4.0)
            columns = (
                found.image,
                found.anchor,
                found.column,
                found.row,
                found.labels,
                *found.boxes_cxcywh_cells.unbind(1),
            )
            rows = sorted(zip(*(column.tolist() for column in columns), strict=True))
            expected = slow_matches(given, grid_hw, anchors, reduction, 4.0)
            assert len(rows) == len(expected) > 100
            for row, slow in zip(rows, expected, strict=True):
                assert row[:5] == slow[:5]
                assert row[5:] == pytest.approx(slow[5:], abs=1e-4)


# ------------------------------------------------------------------------------------- the one best anchor

LEVELS = torch.tensor([[[8.0, 8.0], [8.0, 24.0]], [[32.0, 32.0], [64.0, 32.0]]])
"""Two anchors on each of two levels, at the reductions 8 and 16."""


def match_one(given: Targets, anchors: torch.Tensor = LEVELS) -> list[Matches]:
    """On a 64 px image."""
    return match_best(given, [(8, 8), (4, 4)], anchors, (8, 16))


def test_no_targets_for_the_best_anchor() -> None:
    for found in match_one(targets()):
        assert len(found) == 0
        assert found.boxes_cxcywh_cells.shape == (0, 4)
        assert (found.row.dtype, found.labels.dtype, found.anchor.dtype) == (torch.int64,) * 3


def test_the_anchor_most_like_the_target() -> None:
    for width, height, level, anchor in [
        (8, 8, 0, 0),
        (8, 23, 0, 1),
        (30, 30, 1, 0),
        (200, 200, 1, 1),  # larger than every anchor: 64 x 32 covers most of it
        (1, 1, 0, 0),  # 1 / 64, more than 1 / 192
        # IoU with 8 x 8 64 / 128, with 8 x 24 128 / 192: no matter that the sides of both are within a factor of 2.
        (8, 16, 0, 1),
        (16, 16, 0, 1),  # 128 / 320; 64 / 256 with 8 x 8 and 256 / 1024 with 32 x 32
    ]:
        expected = [0, 0]
        expected[level] = 1
        found = match_one(targets((20, 20, width, height)))
        assert [len(matches) for matches in found] == expected
        assert found[level].anchor.tolist() == [anchor]


def test_an_anchor_of_both_levels_learns_on_both() -> None:
    """32 x 32 px is the second anchor at reduction 8, the first at 16; (20, 44) px is in cells (2, 5) and (1, 2)."""
    anchors = torch.tensor([[[8.0, 8.0], [32.0, 32.0]], [[32.0, 32.0], [64.0, 32.0]]])
    fine, coarse = match_one(targets((20, 44, 30, 30, 5, 1), (20, 20, 64, 32, 4, 0)), anchors)
    assert (fine.anchor.tolist(), cells(fine), fine.labels.tolist(), fine.image.tolist()) == ([1], [(2, 5)], [5], [1])
    assert (coarse.anchor.tolist(), coarse.labels.tolist(), coarse.image.tolist()) == ([0, 1], [5, 4], [1, 0])
    assert cells(coarse) == [(1, 2), (1, 1)]
    assert fine.boxes_cxcywh_cells.tolist() == [[0.5, 0.5, 3.75, 3.75]]
    assert coarse.boxes_cxcywh_cells[0].tolist() == [0.25, 0.75, 1.875, 1.875]


@pytest.mark.parametrize("name", ["yolov3-tiny", "yolov3-tiny-prn"])
def test_every_anchor_of_yolov3_tiny_learns(name: str) -> None:
    """A target of each anchor's size; 81 x 82 px is on both levels."""
    anchors = torch.tensor(find_definition(name).rows[-1].args["anchors_px"], dtype=torch.float32)
    given = targets(*((104, 104, *size) for size in anchors.flatten(0, 1).unique(dim=0).tolist()))
    found = match_best(given, [(13, 13), (7, 7)], anchors, (16, 32))
    assert len(given) == 5
    assert [sorted(matches.anchor.tolist()) for matches in found] == [[0, 1, 2]] * 2


def test_different_anchors_equally_like() -> None:
    """4 x 8 and 8 x 4 both cover half of 8 x 8: the first one learns, on its own level only."""
    anchors = torch.tensor([[[50.0, 50.0], [4.0, 8.0]], [[8.0, 4.0], [90.0, 90.0]]])
    found = match_one(targets((20, 20, 8, 8)), anchors)
    assert [matches.anchor.tolist() for matches in found] == [[1], []]


def test_the_same_anchor_twice_on_a_level() -> None:
    """One of them learns."""
    found = match_one(targets((20, 20, 8, 8)), torch.tensor([[[8.0, 8.0]] * 2, [[50.0, 50.0]] * 2]))
    assert [matches.anchor.tolist() for matches in found] == [[0], []]


@pytest.mark.parametrize("size", [(0, 0), (0, 8), (8, 0)])
def test_targets_without_area(size: tuple[int, int]) -> None:
    assert [len(matches) for matches in match_one(targets((20, 20, *size)))] == [0, 0]


def test_only_the_own_cell() -> None:
    for x, y, cell, centre in [
        (12, 12, (1, 1), (0.5, 0.5)),
        (8, 15.2, (1, 1), (0.0, 0.9)),  # near its borders too the own cell is the only one
        (0, 0, (0, 0), (0.0, 0.0)),
        (64, 64, (7, 7), (1.0, 1.0)),  # the right and lower edges of the image belong to the last cells
    ]:
        found = match_one(targets((x, y, 8, 8)))[0]
        assert cells(found) == [cell]
        assert found.boxes_cxcywh_cells[0].tolist() == pytest.approx([*centre, 1, 1], abs=1e-5)


def test_labels_and_images_follow_to_each_level() -> None:
    given = targets((40, 40, 30, 30, 5, 1), (20, 20, 8, 8, 7, 0), (4, 4, 64, 32, 2, 3), (60, 4, 9, 9, 1, 2))
    fine, coarse = match_one(given)
    assert (fine.labels.tolist(), fine.image.tolist(), cells(fine)) == ([7, 1], [0, 2], [(2, 2), (7, 0)])
    assert (coarse.labels.tolist(), coarse.image.tolist(), cells(coarse)) == ([5, 2], [1, 3], [(2, 2), (0, 0)])


def test_every_target_is_learnt_once_where_all_anchors_differ() -> None:
    """Against one target at a time, with torchvision's IoU of boxes moved to one corner."""
    generator = torch.Generator().manual_seed(0)
    centres, sizes = torch.rand(200, 2, generator=generator) * 64, torch.rand(200, 2, generator=generator) * 60 + 1
    boxes = torch.cat([centres, sizes], dim=1).tolist()
    found = match_one(targets(*((*box, i % 3, i) for i, box in enumerate(boxes))))
    where = {
        int(image): (level, int(anchor), int(row), int(column))
        for level, matches in enumerate(found)
        for image, anchor, row, column in zip(matches.image, matches.anchor, matches.row, matches.column, strict=True)
    }
    assert sum(map(len, found)) == len(where) == 200
    anchors = torch.cat([torch.zeros(4, 2), LEVELS.flatten(0, 1)], dim=1)
    for i, (centre, size) in enumerate(zip(centres, sizes, strict=True)):
        best = int(box_iou(torch.cat([torch.zeros(2), size])[None], anchors).argmax())
        x, y = (centre / (8, 16)[best // 2]).floor().tolist()
        assert where[i] == (best // 2, best % 2, y, x)


# --------------------------------------------------------------------------------------- covered objects


def test_nothing_is_covered_without_targets() -> None:
    found = covered(torch.rand(2, 60, 4), targets(), 0.5)
    assert found.shape == (2, 60)
    assert found.dtype == torch.bool
    assert not found.any()


def test_covered_by_its_own_images_objects() -> None:
    """10 px predictions shifted by 0, 2, 4 and 6 px from the object of image 1: IoU 1, 80/120, 60/140 and 40/160."""
    predictions = torch.tensor([[20.0 + shift, 20, 10, 10] for shift in (0, 2, 4, 6)]).repeat(2, 1, 1)
    given = targets((20, 20, 10, 10, 0, 1), (90, 90, 10, 10, 0, 1))
    assert covered(predictions, given, 0.5)[1].tolist() == [True, True, False, False]
    assert covered(predictions, given, 0.4)[1].tolist() == [True, True, True, False]
    assert not covered(predictions, given, 0.1)[0].any()


def test_boxes_without_area_cover_nothing() -> None:
    """0 / 0 is no overlap."""
    assert not covered(torch.zeros(1, 1, 4), targets((0, 0, 0, 0)), 0.0).any()


def test_an_overlap_of_all_is_not_above_one() -> None:
    assert not covered(torch.tensor([[[20.0, 20, 10, 10]]]), targets((20, 20, 10, 10)), 1.0).any()


def test_boxes_as_large_as_they_can_be_decoded() -> None:
    """1000 times an anchor of 373 px, against an object of 400 px: IoU 1e-6, and no number is infinite."""
    predictions = torch.tensor([[[200.0, 200, 373e3, 373e3]]])
    assert covered(predictions, targets((200, 200, 400, 400)), 1e-7).all()
    assert not covered(predictions, targets((200, 200, 400, 400)), 1e-5).any()


@pytest.mark.parametrize("pairs_at_once", [1, 700, 2**18])
def test_covered_agrees_with_torchvision(monkeypatch: pytest.MonkeyPatch, pairs_at_once: int) -> None:
    """Image by image, with objects in any order and none in image 1; one, two and all objects at once."""
    monkeypatch.setattr("detect.losses.assignment.PAIRS_AT_ONCE", pairs_at_once)
    generator = torch.Generator().manual_seed(0)
    predictions = torch.rand(3, 300, 4, generator=generator) * 30 + 10
    rows = (torch.rand(20, 4, generator=generator) * 30 + 10).tolist()
    given = targets(*((*row, 0, 2 * (i % 2)) for i, row in enumerate(rows)))
    found = covered(predictions, given, 0.5)
    boxes = box_convert(predictions, "cxcywh", "xyxy")
    for image in range(3):
        objects = given.boxes_xyxy_px[given.image_index == image]
        expected = (box_iou(boxes[image], objects) > 0.5).any(dim=1)
        assert found[image].tolist() == expected.tolist()
    assert 50 < found[0].sum() < 250
