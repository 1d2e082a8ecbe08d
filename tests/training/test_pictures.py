from __future__ import annotations

import dataclasses

import numpy as np
from PIL import Image

from detect.data.annotations import AnnotationTable, Problems, encode_paths
from detect.data.images import write_image
from detect.evaluation.coco import FoundBoxes
from detect.evaluation.detection import Evaluation
from detect.evaluation.postprocess import COCO_SETTINGS
from detect.training.loggers import LoggedRun
from detect.training.recorder import TILE_PX, Recorder, detections_picture, tile_images


def flat(height, width, value):
    return np.full((height, width, 3), value, np.uint8)


def test_one_image_fills_its_tile():
    np.testing.assert_array_equal(tile_images([flat(10, 10, 7)]), flat(TILE_PX, TILE_PX, 7))


def test_places_and_sizes():
    """Five images: a grid of 3 columns and 2 rows. Each is scaled to 320 px, in the top left corner of its tile."""
    shapes = [(640, 320), (320, 640), (3, 1), (1, 1000), (320, 320)]
    sheet = tile_images([flat(height, width, 10 * i) for i, (height, width) in enumerate(shapes)])
    assert sheet.shape == (640, 960, 3)
    expected = flat(640, 960, 255)
    expected[:320, :160] = 0  # halved
    expected[:160, 320:640] = 10  # halved
    expected[:320, 640:747] = 20  # enlarged: 320 high, 320 / 3 = 106.7 wide
    expected[320:321, :320] = 30  # 0.32 px high: at least one
    expected[320:, 320:640] = 40
    np.testing.assert_array_equal(sheet, expected)


def test_predictions_of_a_set_with_a_damaged_image(tmp_path):
    write_image(tmp_path / "a.png", flat(32, 64, 50))
    (tmp_path / "b.png").write_bytes(b"no image")
    table = AnnotationTable(
        image_paths=encode_paths([tmp_path / "b.png", tmp_path / "a.png"]),
        image_ids=np.array([1, 2]),
        has_own_ids=True,
        sizes_hw=np.array([[32, 64], [32, 64]], np.int32),
        box_offsets=np.zeros(3, np.int64),
        boxes_xyxy_px=np.zeros((0, 4)),
        labels=np.zeros(0, np.int64),
        is_crowd=np.zeros(0, bool),
        areas=np.zeros(0),
        names=("thing",),
        category_ids=np.array([1]),
        is_labelled=True,
        problems=Problems(),
    )
    # One box that is shown, in the good image, and one below the score that is shown.
    boxes = np.array([[10.0, 5, 20, 10], [1, 1, 5, 5]])
    found = FoundBoxes(np.array([1, 1]), np.array([0, 0]), boxes, np.array([0.9, 0.1]))
    evaluation = Evaluation(None, found, table, COCO_SETTINGS, {})
    recorder = Recorder(LoggedRun(tmp_path / "run", {}))
    recorder.picture("val/predictions", detections_picture(evaluation), 1)
    picture = np.asarray(Image.open(tmp_path / "run" / "val_predictions.jpg"))
    assert picture.shape == (TILE_PX, TILE_PX, 3)
    # The image is enlarged five times: the first box is at (50, 25, 150, 75), the other one at (5, 5, 30, 30).
    assert picture[20:80, 45:155].std() > 20
    assert picture[:35, :35].std() < 2

    nothing = dataclasses.replace(table, image_paths=encode_paths([tmp_path / "b.png"] * 2))
    (tmp_path / "run" / "val_predictions.jpg").unlink()
    recorder.picture("val/predictions", detections_picture(dataclasses.replace(evaluation, table=nothing)), 2)
    assert not (tmp_path / "run" / "val_predictions.jpg").exists()
