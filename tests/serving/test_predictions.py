"""Facts and predictions as plain values, without a server."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from detect.data.images import ImageError
from detect.errors import InputError
from detect.inference.detector import Detector
from detect.papers.sdpoint.instances import Instances
from detect.papers.sdpoint.transform import PLAIN, Instance, InstanceCosts
from detect.serving.predictions import MAX_PICTURE_PX, Query, ServedDetector, parse_query
from tests.inference.onnx_files import write_onnx
from tests.papers.sdpoint.samples import detector as checkpoint_of
from tests.papers.sdpoint.samples import record
from tests.serving.servers import png, served


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, Query(0.25, None, None)),
        ({"conf": "0.05", "cost": "0.6", "tile": "640"}, Query(0.05, 0.6, 640)),
    ],
)
def test_a_query(given, expected):
    assert parse_query(given) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"confi": "1"}, "confi: is not an option; did you mean 'conf'?"),
        ({"conf": "much"}, "conf: must be a decimal number, found 'much'"),
        ({"tile": "1.5"}, "tile: must be a whole number, found '1.5'"),
        ({"tile": ""}, "tile: must be a whole number, found ''"),
    ],
)
def test_a_wrong_query(given, message):
    with pytest.raises(InputError) as raised:
        parse_query(given)
    assert str(raised.value) == message


def test_what_is_found(tmp_path):
    """In 32 x 64 px nothing is scaled: the network's pixels are the image's, boxes end at its border."""
    found = served(tmp_path).predict(png(32, 64), Query(conf=0.5))
    (one,) = found.pop("detections")
    assert one == {
        "category": "c",
        "label": 2,
        "score": 0.9,
        "bbox": [4.0, 8.0, 16.0, 24.0],
        "xyxy": [4.0, 8.0, 20.0, 32.0],
    }
    assert found.pop("ms").keys() == {"read", "detect"}
    facts = {"width": 64, "height": 32, "reached_limit": False, "views": 1, "cost": 1.0, "multiply_adds": None}
    assert found == facts


def test_the_minimum_score(tmp_path):
    assert len(served(tmp_path).predict(png(), Query(conf=0.05))["detections"]) == 2


def test_tiles(tmp_path):
    """64 px tiles of 120 x 64 px that share a fifth of their side or more: two beside each other, and the whole."""
    assert served(tmp_path).predict(png(64, 115), Query(tile=64))["views"] == 3


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (Query(conf=float("nan")), "score threshold: must be from 0 to 1, found nan"),
        (Query(tile=8), "tile: must be at least 32 pixels, found 8"),
        (Query(cost=0.5), "the cost of an exported file is fixed"),
    ],
)
def test_options_out_of_range(tmp_path, query, message):
    with pytest.raises(InputError, match=message):
        served(tmp_path).predict(png(64, 65), query)


def test_too_many_tiles(tmp_path):
    """Of 32 px every 25 px: 1 + ceil((1000 - 32) / 25) = 40 a side, and the whole image."""
    with pytest.raises(InputError, match="tile: 32 px make 1601 tiles of this image; at most 1000 are served"):
        served(tmp_path).predict(png(1000, 1000), Query(tile=32))


def test_what_is_no_image(tmp_path):
    with pytest.raises(ImageError, match="the image: is not an image, or damaged; read are JPEG"):
        served(tmp_path).predict(b"hello", Query())


def test_facts(tmp_path):
    facts = served(tmp_path).describe()
    assert {name: facts[name] for name in ("file", "model", "device", "image_size", "costs")} == {
        "file": "model.onnx",
        "model": "hand-made",
        "device": "cpu",
        "image_size": 64,
        "costs": None,
    }
    assert [one["name"] for one in facts["classes"]] == ["a", "b", "c"]
    assert facts["classes"][0]["color"] == "#ff2a0d"  # hue 0.02, saturation 0.95: 255, 13 + 0.12 * 242, 13


def test_hostile_names_are_made_visible(tmp_path):
    names = ["<img src=x onerror=alert(1)>", "\u202ereversed", "x" * 500]
    path = write_onnx(tmp_path / "m.onnx", *hand_made(), names=json.dumps(names))
    shown = [one["shown"] for one in ServedDetector(Detector(path, device="cpu"), path).describe()["classes"]]
    assert shown[:2] == ["<img src=x onerror=alert(1)>", "\\u202ereversed"]  # the page takes no HTML
    assert len(shown[2]) <= 60


def hand_made():
    """Nodes, constants and output of a network that finds nothing: its only row has no score."""
    from onnx import helper

    nodes = [
        helper.make_node("ReduceMean", ["images"], ["means"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Mul", ["means", "zero"], ["zeros"]),
        helper.make_node("Squeeze", ["zeros", "axis"], ["flat"]),
        helper.make_node("Add", ["flat", "table"], ["out"]),
    ]
    constants = {"axis": np.array([3]), "zero": np.float32(0), "table": np.zeros((1, 1, 8), np.float32)}
    return nodes, constants, {}


# ------------------------------------------------------------------------------------------------- costs


@pytest.fixture
def slider(tmp_path: Path) -> ServedDetector:
    """Shares 1, 0.25, 0.6, 0.65 and 0.9 with AP 0.5, 0.3, 0.45, 0.4 and 0.52."""
    return ServedDetector(Detector(checkpoint_of(tmp_path), device="cpu"), tmp_path / "slider.pt")


def test_the_table_of_costs(slider):
    costs = slider.describe()["costs"]
    assert (costs["metric"], costs["measured_on"]) == ("AP", "shapes val, 32 px")
    rows = [(one["name"], one["cost"], one["multiply_adds"], one["ms"], one["metric"]) for one in costs["networks"]]
    assert rows == [
        ("1@0.5", 0.25, 250, 2.5, 0.3),
        ("1@0.75", 0.6, 600, 6.0, 0.45),
        ("2@0.5", 0.65, 650, 6.5, 0.4),
        ("2@0.75", 0.9, 900, 9.0, 0.52),
        ("plain", 1.0, 1000, 10.0, 0.5),
    ]
    assert [one["name"] for one in costs["networks"] if one["is_best"]] == ["1@0.5", "1@0.75", "2@0.75"]


def test_each_request_has_its_own_cost(slider):
    """What the request before has chosen does not count."""
    asked = (0.6, None, 0.25, 1.0)
    assert [slider.predict(png(32, 32), Query(cost=cost))["cost"] for cost in asked] == [0.6, 1.0, 0.25, 1.0]


def test_multiply_adds_are_those_of_the_image(tmp_path, slider):
    """The long side of 32 x 16 px becomes the network's 32; the short one is padded to its multiple, here 16."""
    checkpoint = checkpoint_of(tmp_path)
    costs, multiple = InstanceCosts(checkpoint.model.graph, 2), checkpoint.model.max_reduction
    image_hw = (-(-16 // multiple) * multiple, 32)
    counted = [slider.predict(png(16, 32), Query(cost=cost))["multiply_adds"] for cost in (1.0, 0.25)]
    assert counted == [costs.macs(PLAIN, image_hw), costs.macs(Instance(1, 0.5), image_hw)]
    assert counted[1] < counted[0]


def test_multiply_adds_of_tiles_are_their_sum(slider):
    """Three views of 32 x 32 px each: two tiles of 32 px, and the whole image, which is scaled to 32 x 18."""
    one, wide = (slider.predict(png(32, width), Query())["multiply_adds"] for width in (32, 57))
    found = slider.predict(png(32, 57), Query(tile=32))
    assert (found["views"], found["multiply_adds"]) == (3, 2 * one + wide)


def test_no_such_cost(slider):
    with pytest.raises(InputError, match=r"cost 0.1: no instance is within it; 1@0.5 costs 0.250"):
        slider.predict(png(), Query(cost=0.1))


@pytest.mark.parametrize("metric", [float("nan"), "high"])
def test_damaged_records(tmp_path, metric):
    records = (record(0, 1.0, 1000, 0.5), record(1, 0.5, 250, metric))
    with pytest.raises(InputError, match="the records of the instances are damaged; measure them again"):
        ServedDetector(Detector(checkpoint_of(tmp_path, records), device="cpu"), tmp_path / "a.pt")


def test_instances_that_were_not_measured(tmp_path):
    checkpoint = checkpoint_of(tmp_path, ())
    assert isinstance(checkpoint.extras["instances"], Instances)
    detector = ServedDetector(Detector(checkpoint, device="cpu"), tmp_path / "a.pt")
    assert detector.describe()["costs"] is None
    assert detector.predict(png(), Query())["cost"] == 1.0
    with pytest.raises(InputError, match="cannot be chosen before the checkpoint's instances are measured"):
        detector.predict(png(), Query(cost=0.5))


# ----------------------------------------------------------------------------------------------- picture


def test_the_picture_is_upright(tmp_path):
    """EXIF orientation 6: the stored image is shown turned to the right."""
    stored = Image.fromarray(np.full((20, 40, 3), 90, np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    stored.save(tmp_path / "a.tif", exif=exif)
    made = cv2.imdecode(np.frombuffer(served(tmp_path).picture((tmp_path / "a.tif").read_bytes()), np.uint8), 1)
    assert made.shape == (40, 20, 3)


def test_a_large_picture_is_scaled_down(tmp_path):
    made = served(tmp_path).picture(png(2, 2 * MAX_PICTURE_PX))
    assert cv2.imdecode(np.frombuffer(made, np.uint8), 1).shape == (1, MAX_PICTURE_PX, 3)
