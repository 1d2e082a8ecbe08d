"""SAHI with a detector of ours, with the real package."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from detect import Detector
from detect.data.images import read_image
from detect.data.shapes import generate_shapes
from detect.errors import InputError
from detect.inference import sahi_model

WEIGHTS = "yolov5n-spd-shapes"


def test_the_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sahi", None)
    sahi_model._model_class.cache_clear()
    with pytest.raises(InputError, match=r"SahiModel: needs the package sahi: pip install 'detect-small\[sahi\]'"):
        _ = sahi_model.SahiModel


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """An image of the shapes, in the middle of one that is three times as high and wide; gives it with the place."""
    folder = tmp_path_factory.mktemp("scene") / "shapes"
    generate_shapes(folder, 1, 1, 1)
    image = read_image(next((folder / "images" / "test").glob("*.jpg")))
    height, width = image.shape[:2]
    large = np.full((3 * height, 3 * width, 3), 114, np.uint8)
    large[height : 2 * height, width : 2 * width] = image
    return image, large


@pytest.mark.slow
def test_predictions_are_the_detectors(scene):
    pytest.importorskip("sahi", reason="needs the extra sahi")
    from sahi.predict import get_prediction

    from detect.inference.sahi_model import SahiModel

    image, _ = scene
    expected = Detector(WEIGHTS, "cpu").predict(image, conf=0.4)
    assert len(expected) > 0
    found = get_prediction(image, SahiModel(WEIGHTS, device="cpu", confidence_threshold=0.4)).object_prediction_list
    assert [one.category.name for one in found] == expected.class_names
    assert np.allclose([one.bbox.to_xyxy() for one in found], expected.boxes_xyxy_px)
    assert np.allclose([one.score.value for one in found], expected.scores)
    ids = Detector(WEIGHTS, "cpu").category_ids
    assert [one.category.id for one in found] == [ids[label] for label in expected.labels]


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 4])
def test_slices(scene, batch_size):
    """Nine slices of the image's size: what is found in the middle one lies where it stands in the whole."""
    sahi = pytest.importorskip("sahi", reason="needs the extra sahi")
    from sahi.predict import get_sliced_prediction

    from detect.inference.sahi_model import register

    register()
    image, large = scene
    height, width = image.shape[:2]
    model = sahi.AutoDetectionModel.from_pretrained(
        "detect", model_path=WEIGHTS, device="cpu", confidence_threshold=0.4, image_size=max(height, width)
    )
    found = get_sliced_prediction(
        large,
        model,
        slice_height=height,
        slice_width=width,
        overlap_height_ratio=0,
        overlap_width_ratio=0,
        perform_standard_pred=False,
        postprocess_type="NMS",
        batch_size=batch_size,
        verbose=0,
    ).object_prediction_list
    expected = Detector(WEIGHTS, "cpu").predict(image, conf=0.4)
    shifted = sorted((expected.boxes_xyxy_px + np.array([width, height, width, height])).tolist())
    inside = sorted(
        one.bbox.to_xyxy()
        for one in found
        if width <= sum(one.bbox.to_xyxy()[::2]) / 2 < 2 * width
        and height <= sum(one.bbox.to_xyxy()[1::2]) / 2 < 2 * height
    )
    assert np.allclose(inside, shifted, atol=1.01)  # SAHI's slices have whole pixels
    assert {one.category.name for one in found} <= set(expected.names)
