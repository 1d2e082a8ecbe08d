from __future__ import annotations

import numpy as np
import pytest
import torch

from detect.boxes.convert import (
    box_areas,
    box_sizes,
    cxcywh_to_xyxy,
    xywh_to_cxcywh,
    xywh_to_xyxy,
    xyxy_to_cxcywh,
    xyxy_to_xywh,
)

# A box from (1, 2) to (5, 10): 4 wide, 8 high, its centre at (3, 6); and one without area at (7, 7).
XYXY = [[1.0, 2, 5, 10], [7, 7, 7, 7]]
XYWH = [[1.0, 2, 4, 8], [7, 7, 0, 0]]
CXCYWH = [[3.0, 6, 4, 8], [7, 7, 0, 0]]


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_every_conversion(kind) -> None:
    xyxy, xywh, cxcywh = kind(XYXY), kind(XYWH), kind(CXCYWH)
    assert xyxy_to_xywh(xyxy).tolist() == XYWH
    assert xywh_to_xyxy(xywh).tolist() == XYXY
    assert xyxy_to_cxcywh(xyxy).tolist() == CXCYWH
    assert xywh_to_cxcywh(xywh).tolist() == CXCYWH
    assert cxcywh_to_xyxy(cxcywh).tolist() == XYXY
    assert box_sizes(xyxy).tolist() == [[4, 8], [0, 0]]
    assert box_areas(xyxy).tolist() == [32, 0]


def test_no_boxes_and_leading_dimensions() -> None:
    assert xyxy_to_cxcywh(np.zeros((0, 4))).shape == (0, 4)
    assert box_areas(torch.zeros(2, 3, 4)).shape == (2, 3)
    assert cxcywh_to_xyxy(torch.zeros(2, 3, 4, dtype=torch.float64)).dtype == torch.float64
