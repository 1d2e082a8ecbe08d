"""The picture of space-to-depth is what its command draws."""

from __future__ import annotations

import runpy

import numpy as np
from PIL import Image

from tests.documents.pages import ROOT


def test_space_to_depth() -> None:
    names = runpy.run_path(str(ROOT / "docs" / "draw_space_to_depth.py"))
    drawn = np.asarray(names["draw"]())
    with Image.open(names["OUT"]) as kept:
        below = slice(names["TEXT_PX"], None)  # fonts differ
        assert np.array_equal(drawn[below], np.asarray(kept.convert("RGB"))[below])
