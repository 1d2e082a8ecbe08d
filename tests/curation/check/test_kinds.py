"""What a check advises for each kind of problem."""

from __future__ import annotations

import pytest

from detect.curation.check.kinds import CORRECT, FIX, mend_of
from detect.data import checks
from detect.data.annotations import Understood
from detect.data.formats import coco, coco_annotations, shards


@pytest.mark.parametrize(
    ("kind", "mend"),
    [
        (checks.NO_AREA, FIX),
        (checks.REPEATED, FIX),
        (coco.REPEATED_IMAGE, FIX),
        (coco_annotations.ZERO_ID, CORRECT),
        (coco_annotations.REPEATED_ID, CORRECT),
        (coco_annotations.OTHER_TYPE_ID, CORRECT),
        (coco_annotations.BAD_CROWD, CORRECT),
        (shards.REPEATED_ID, CORRECT),
        (Understood("notes on something that was read (skipped)"), ""),
    ],
)
def test_what_is_left_out_and_what_is_corrected(kind: str, mend: str) -> None:
    assert mend_of(kind) == mend


def test_pixels_in_place_of_shares_are_named() -> None:
    assert "they are pixels" in mend_of(checks.OUTSIDE)
