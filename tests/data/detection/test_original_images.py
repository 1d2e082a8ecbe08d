from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from detect.data.annotations import encode_paths
from detect.data.detection.loading import OriginalLoader
from detect.data.images import write_image
from detect.errors import InputError
from tests.evaluation.synthetic import make_table

SHAPES = [(5, 7), (9, 4), (3, 3)]


@pytest.fixture
def table(tmp_path: Path):
    """Three images of known pixels; the last is said to be larger than it is."""
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{row}.png" for row in range(len(SHAPES))]
    for path, shape in zip(paths, SHAPES, strict=True):
        write_image(path, rng.integers(0, 256, (*shape, 3), dtype=np.uint8))
    sizes = np.array([*SHAPES[:2], (3, 8)], dtype=np.int32)
    return dataclasses.replace(make_table([[], [], []]), image_paths=encode_paths(paths), sizes_hw=sizes)


def test_images_come_one_by_one_as_they_are(table, caplog):
    loader = OriginalLoader(table, workers=0)
    batches = list(loader)
    assert [batch.rows.tolist() for batch in batches] == [[0], [1]]
    rng = np.random.default_rng(0)
    for batch, shape in zip(batches, SHAPES, strict=False):
        assert np.array_equal(batch.images[0].numpy(), rng.integers(0, 256, (*shape, 3), dtype=np.uint8))
        assert batch.letterboxes[0].image_hw == shape
        assert batch.preprocess_seconds > 0
        assert len(batch.targets) == 0
    assert list(loader.unreadable) == [2]
    assert "has (3, 3) pixels (height, width), its annotation says (3, 8)" in caplog.text


def test_an_unreadable_image_is_refused(table):
    with pytest.raises(InputError, match="its annotation says"):
        list(OriginalLoader(table, 0, strict=True))
