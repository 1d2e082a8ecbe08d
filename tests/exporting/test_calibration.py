"""Images of a calibration: which ones, scaled how, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from detect.data.classification.table import ClassTable
from detect.data.images import ImageError
from detect.errors import InputError
from detect.exporting import int8
from detect.exporting.calibration import Calibration, read_calibration, warn_of_grey
from detect.exporting.comparison_inputs import comparison_images
from detect.exporting.onnx_runner import OnnxModel
from detect.inference.runtimes.onnx_runtime import OnnxNetwork

NAMES = ("a", "b")


class Images(ClassTable):
    """Images in memory, of any shapes; None cannot be read."""

    def read(self, row):
        if self.pixels[row] is None:
            raise ImageError(f"image {row}: is damaged")
        return self.pixels[row]


def images_of(*pixels):
    return Images(np.array([b"x"] * len(pixels)), np.zeros(len(pixels), np.int64), NAMES, pixels)


def noise(count):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (40, 60, 3), dtype=np.uint8) for _ in range(count)]


def test_the_input_is_the_runner_s(checkpoint, exported):
    """Scaled, padded, ordered and divided as the program that users get does it, to the last bit."""
    images = comparison_images()
    network, runner = OnnxNetwork(exported[0], "cpu"), OnnxModel(str(exported[0]))
    calibration = read_calibration(images_of(*images), checkpoint, 96, len(images), "minmax")
    found = [int8._network_input(network, image) for image in calibration.images]
    expected = [runner.network_input([runner.scaled(image[..., ::-1].copy())[0]]) for image in images]
    assert len(found) == len(expected)
    for one in expected:
        assert any(one.shape == other.shape and (one == other).all() for other in found)


def test_a_classifier_sees_the_middle(classifier):
    calibration = read_calibration(images_of(*noise(20)), classifier, 32, 18, "entropy")
    assert (len(calibration.images), calibration.method) == (18, "entropy")
    assert {image.shape for image in calibration.images} == {(32, 32, 3)}


def test_the_same_images_each_time(checkpoint):
    first, second = (read_calibration(images_of(*noise(30)), checkpoint, 96, 16, "minmax").images for _ in range(2))
    assert all((one == other).all() for one, other in zip(first, second, strict=True))


def test_what_cannot_be_read_is_left_out(checkpoint, caplog):
    calibration = read_calibration(images_of(*noise(16), None), checkpoint, 96, 64, "minmax")
    assert len(calibration.images) == 16
    assert [record.getMessage() for record in caplog.records] == ["calibration: image 16: is damaged; left out"]


def test_few_images(checkpoint, caplog):
    assert len(read_calibration(images_of(*noise(2)), checkpoint, 96, 64, "minmax").images) == 2
    assert "calibration: 2 training images are few; 16 or more are better" in caplog.text


@pytest.mark.parametrize(
    ("pixels", "count", "message"),
    [
        (noise(1), 64, "needs at least 2 training images, found 1; 16 or more"),
        (noise(20), 1, "needs at least 2 training images, 1 was asked for; 16 or more"),
        ([None, None], 64, "found 0"),
        ([np.full((40, 60, 3), level, np.uint8) for level in (3, 200)], 64, "the 2 training images show nothing"),
    ],
)
def test_refused(checkpoint, pixels, count, message):
    with pytest.raises(InputError, match=message):
        read_calibration(images_of(*pixels), checkpoint, 96, count, "minmax")


def test_grey_images(caplog):
    colours = noise(3)
    grey = [image[..., :1].repeat(3, axis=2) for image in colours]
    for calibration, other in ((grey, grey), (colours, colours), (colours, grey), ([*grey, colours[0]], colours)):
        warn_of_grey(Calibration(calibration), images_of(*other))
    assert caplog.text == ""
    warn_of_grey(Calibration(grey), images_of(*colours))
    assert "all 3 training images are grey, those of the other split are not" in caplog.text
