from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from detect.config.augment import AlbumentationConfig
from detect.data.detection.albumentations_stage import AlbumentationsStage
from detect.data.detection.geometry import Sample
from detect.errors import InputError
from detect.runtime.reproducibility import generator

S = 64


def stage_of(*transforms: AlbumentationConfig) -> AlbumentationsStage:
    return AlbumentationsStage(transforms, S)


def sample_of(boxes: list[list[float]], labels: list[int]) -> Sample:
    image = np.random.default_rng(0).integers(256, size=(S, S, 3), dtype=np.uint8)
    return Sample(image, np.array(boxes, dtype=float).reshape(-1, 4), np.array(labels, dtype=np.int64))


FLIPS = stage_of(AlbumentationConfig("HorizontalFlip", 0.5), AlbumentationConfig("VerticalFlip", 0.5))


def flips_drawn(stage: AlbumentationsStage, *key: int) -> tuple[bool, bool]:
    """Which flips happened, read off a box in the top left corner."""
    boxes = stage(generator(*key), sample_of([[0, 0, 10, 10]], [0])).boxes_xyxy_px
    return bool(boxes[0, 0] > 0), bool(boxes[0, 1] > 0)


def test_no_boxes() -> None:
    for name in ["Blur", "HorizontalFlip", "CoarseDropout", "Affine"]:
        result = stage_of(AlbumentationConfig(name, 1.0))(generator(0), sample_of([], []))
        assert result.image_rgb.shape == (S, S, 3)
        assert result.boxes_xyxy_px.shape == (0, 4)
        assert result.labels.dtype == np.int64


def test_boxes_and_labels_move_along() -> None:
    # Left and right exchanged: x1' = 64 - x2. Labels remain integers.
    sample = sample_of([[0, 10, 20, 30], [60.5, 0, 64, 64]], [7, 3])
    result = stage_of(AlbumentationConfig("HorizontalFlip", 1.0))(generator(0), sample)
    np.testing.assert_allclose(result.boxes_xyxy_px, [[44, 10, 64, 30], [0, 0, 3.5, 64]], atol=1e-4)
    np.testing.assert_array_equal(result.image_rgb, sample.image_rgb[:, ::-1])
    assert result.labels.tolist() == [7, 3]
    assert result.labels.dtype == np.int64


def test_boxes_out_of_view_are_dropped() -> None:
    move = AlbumentationConfig("Affine", 1.0, {"translate_px": {"x": 40, "y": 0}, "scale": 1.0})
    result = stage_of(move)(generator(0), sample_of([[0, 0, 10, 10], [10, 10, 30, 20], [30, 0, 50, 10]], [1, 2, 3]))
    assert result.labels.tolist() == [1, 2]
    np.testing.assert_allclose(result.boxes_xyxy_px, [[40, 0, 50, 10], [50, 10, 64, 20]], atol=0.1)


def test_colour_leaves_boxes_exactly_alone() -> None:
    sample = sample_of([[1 / 3, 2 / 3, 10, 10]], [1])
    result = stage_of(AlbumentationConfig("Blur", 1.0))(generator(0), sample)
    np.testing.assert_array_equal(result.boxes_xyxy_px, sample.boxes_xyxy_px)
    assert (result.image_rgb != sample.image_rgb).any()


def test_same_key_same_result() -> None:
    stage = stage_of(AlbumentationConfig("GaussNoise", 1.0), AlbumentationConfig("RandomBrightnessContrast", 1.0))
    images = [stage(generator(0, 1, position), sample_of([], [])).image_rgb for position in (5, 5, 6)]
    np.testing.assert_array_equal(images[0], images[1])
    assert (images[0] != images[2]).any()


def test_samples_and_epochs_have_their_own_streams() -> None:
    stage = stage_of(AlbumentationConfig("GaussNoise", 1.0))
    keys = [(0, epoch, position) for epoch in range(3) for position in range(10)]
    images = {stage(generator(*key), sample_of([], [])).image_rgb.tobytes() for key in keys}
    assert len(images) == 30


def test_transforms_are_independent() -> None:
    """With one stream for both flips, they would always happen together."""
    drawn = [flips_drawn(FLIPS, position) for position in range(120)]
    for pair in [(False, False), (False, True), (True, False), (True, True)]:
        assert 12 <= drawn.count(pair) <= 48  # 30 expected, standard deviation 4.7


def test_probability_zero() -> None:
    sample = sample_of([[0, 0, 10, 10]], [1])
    result = stage_of(AlbumentationConfig("HorizontalFlip", 0.0))(generator(0), sample)
    np.testing.assert_array_equal(result.image_rgb, sample.image_rgb)


def test_mistakes_show_at_once() -> None:
    for transform, message in [
        (AlbumentationConfig("Blurr"), r"unknown transform 'Blurr'; did you mean 'Blur'\?"),
        (AlbumentationConfig("DualTransform"), "unknown transform 'DualTransform'"),
        (AlbumentationConfig("Compose"), "unknown transform 'Compose'"),
        (AlbumentationConfig("ToTensorV2"), "unknown transform"),
        (AlbumentationConfig("Blur", 0.5, {"blur_limits": 3}), r"albumentations\[0\]: Blur: .*blur_limits"),
        (AlbumentationConfig("Blur", 0.5, {"blur_limit": "x"}), r"albumentations\[0\]: Blur: .*valid integer"),
        (AlbumentationConfig("Blur", 0.5, {"p": 0.5}), r"albumentations\[0\]: Blur: .*multiple values"),
        (AlbumentationConfig("RandomCrop", 0.0, {"height": 32, "width": 32}), r"RandomCrop: turns \(64, 64, 3\)"),
        (AlbumentationConfig("Normalize"), "Normalize: turns .* float32; only transforms that keep size and type"),
        (AlbumentationConfig("FDA"), "FDA: .*metadata"),
        (AlbumentationConfig("CubicSymmetry"), "CubicSymmetry: "),
    ]:
        with pytest.raises(InputError, match=message) as caught:
            stage_of(transform)
        assert "\n" not in str(caught.value)


@pytest.mark.slow  # where the stage is made in this process, the guard of all tests refuses connections
def test_import_opens_no_connection() -> None:
    """In a fresh process: the library's look-up of a newer version stays off."""
    code = (
        "import sys\n"
        "def refuse(event, arguments):\n"
        "    if event in ('socket.connect', 'socket.getaddrinfo'):\n"
        "        sys.exit(f'{event} {arguments}')\n"
        "sys.addaudithook(refuse)\n"
        "from detect.config.augment import AlbumentationConfig\n"
        "from detect.data.detection.albumentations_stage import AlbumentationsStage\n"
        "AlbumentationsStage([AlbumentationConfig('Blur')], 64)\n"
        "print('albumentations' in sys.modules)\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "NO_ALBUMENTATIONS_UPDATE"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
