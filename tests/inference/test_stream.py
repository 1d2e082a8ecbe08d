"""``Detector.stream``: many kinds of sources, a batch at a time."""

from __future__ import annotations

import gc
import sys
import weakref

import numpy as np
import pytest
import torch
from PIL import Image

from detect import Detector
from detect.data.images import write_image
from detect.errors import InputError
from detect.inference.stream import detect_frames
from detect.models.build import build_model
from detect.models.checkpoint import save_checkpoint
from tests.inference.clips import camera, gray, number_of, write_clip
from tests.inference.samples import make_detections

LOW = {"conf": 0.0, "max_det": 5}


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """An untrained model: what it finds means nothing, but it finds something at a low score."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    model = build_model("yolov5n+width=0.1", num_classes=2)
    save_checkpoint(path, model, names=("cat", "dog"), category_ids=(1, 2), image_size=64, metrics={}, provenance={})
    return Detector(path, device="cpu")


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)


def test_a_folder_of_images_and_videos(detector, image, tmp_path):
    write_image(tmp_path / "a.png", image)
    write_clip(tmp_path / "b.mp4", num_frames=5)
    write_image(tmp_path / "c.png", image)
    found = list(detector.stream(tmp_path, batch_size=4, **LOW))
    assert [(each.source[-5:], each.index) for each in found] == [
        ("a.png", None),
        *(("b.mp4", index) for index in range(5)),
        ("c.png", None),
    ]
    assert [each.time_s for each in found] == [None, *(pytest.approx(index / 10) for index in range(5)), None]
    for each in found:
        expected = detector.predict(each.image_rgb, **LOW)
        np.testing.assert_allclose(each.detections.boxes_xyxy_px, expected.boxes_xyxy_px, atol=1e-3)
        assert len(each.detections) == 5
        assert each.detections.image_hw == each.image_rgb.shape[:2]
        assert each.detections.track_ids is None


def test_arrays_pictures_and_streams(detector, image):
    with camera(3, stalls=False) as address:
        found = list(detector.stream([image, address, Image.fromarray(image)], **LOW))
    assert [each.source for each in found] == ["image 0", address, address, address, "image 2"]
    assert [number_of(each.image_rgb) for each in found[1:4]] == [0, 1, 2]
    np.testing.assert_array_equal(found[0].detections.boxes_xyxy_px, found[4].detections.boxes_xyxy_px)


def test_every_third_frame(detector, tmp_path):
    found = list(detector.stream(write_clip(tmp_path / "a.mp4"), every=3, batch_size=3, **LOW))
    assert [(each.index, number_of(each.image_rgb)) for each in found] == [(0, 0), (3, 3), (6, 6), (9, 9)]


def test_no_more_than_a_batch_is_held(tmp_path):
    """Frames that were handed over and let go of are not there any more while the next batch is read."""
    alive: list[weakref.ref] = []
    most = 0

    def predict(images, conf):
        nonlocal most
        alive.extend(weakref.ref(image) for image in images)
        most = max(most, sum(each() is not None for each in alive))
        return [make_detections([]) for _ in images]

    gc.disable()
    try:
        frames = detect_frames(
            predict, write_clip(tmp_path / "a.mp4", 24), every=1, batch_size=4, track=False, conf=0.25
        )
        count = 0
        for each in frames:
            count += 1
            del each
    finally:
        gc.enable()
    assert (count, most) == (24, 4)


def test_what_cannot_be_read_is_skipped_and_counted(detector, image, tmp_path, caplog):
    write_image(tmp_path / "a.png", image)
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "broken\n.mp4").write_bytes(b"no video")
    write_image(tmp_path / "c.png", image)
    found = list(detector.stream(tmp_path, batch_size=2, **LOW))
    assert [each.source for each in found] == [str(tmp_path / "a.png"), str(tmp_path / "c.png")]
    assert found[0].line().startswith(f"{tmp_path / 'a.png'}: ")
    skipped = [record.getMessage() for record in caplog.records]
    assert len(skipped) == 3
    assert all("\n" not in line for line in skipped)
    assert skipped[-1] == "2 of 4 sources could not be read and were skipped"


def test_a_single_bad_file_is_an_error(detector, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"broken.png: is not an image"):
        list(detector.stream(tmp_path / "broken.png"))
    (tmp_path / "none.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"none of the 2 images could be read; the first: .*broken.png"):
        list(detector.stream(tmp_path))


def test_line_counts_each_class(detector, image):
    (nothing,) = detector.stream(image, conf=1.0)
    assert nothing.line() == "image 0: nothing"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every: must be at least 1, found 0"),
        ({"batch_size": 0}, "batch size: must be at least 1, found 0"),
        ({"conf": 7}, "score threshold: must be from 0 to 1, found 7"),
        ({"track": True}, "tracking needs a video, a camera or a stream; among images nothing can be followed"),
    ],
)
def test_options_out_of_range_are_refused_at_once(detector, image, options, message):
    with pytest.raises(InputError, match=message):
        detector.stream(image, **options)


def test_tracking_without_its_library(detector, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "trackers", None)
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(InputError, match=r"tracking needs the package \w+: pip install 'detect-small\[track\]'"):
        detector.stream(write_clip(tmp_path / "a.mp4"), track=True)


def test_gray_frames_can_be_told_apart():
    assert [number_of(gray(number)) for number in range(25)] == list(range(25))
