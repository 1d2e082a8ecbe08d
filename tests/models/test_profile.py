from __future__ import annotations

import functools
from pathlib import Path

import pytest

from detect.config.loader import CONFIGS
from detect.errors import InputError
from detect.models.profile import ModelProfile, profile_model
from tests.models.yamls import TINY, write_model

GOLDEN = Path(__file__).parent / "golden"

# Parameters (80 classes) and multiply-adds (640 px) of the published code of YOLOv5 v6.0 and of SPD-Conv.
PUBLISHED = {
    "yolov5n": (1_872_157, 2_234_060_800),
    "yolov5s": (7_235_389, 8_216_780_800),
    "yolov5m": (21_190_557, 24_436_224_000),
    "yolov5l": (46_563_709, 54_496_870_400),
    "yolov5n-spd": (2_256_157, 4_396_748_800),
    "yolov5s-spd": (8_771_389, 16_867_532_800),
    "yolov5m-spd": (24_646_557, 43_900_416_000),
    "yolov5l-spd": (52_707_709, 89_099_878_400),
}

# The literal reading of the paper's Figure 3 (space-to-depth, then the convolution), by arithmetic over its layers.
LITERAL = {
    ("yolov5n-spd", 3): (3_600_157, 4_003_532_800),
    ("yolov5s-spd", 3): (14_147_389, 15_294_668_800),
    ("yolov5m-spd", 3): (36_742_557, 40_361_472_000),
    ("yolov5l-spd", 3): (74_211_709, 82_808_422_400),
    ("yolov5n-spd", 1): (1_552_157, 1_906_380_800),
    ("yolov5s-spd", 1): (5_955_389, 6_906_060_800),
    ("yolov5m-spd", 1): (18_310_557, 21_487_104_000),
    ("yolov5l-spd", 1): (41_443_709, 49_253_990_400),
}


@functools.cache
def profile(name: str) -> ModelProfile:
    return profile_model(name, 640, 80)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts(name: str) -> None:
    parameters, macs = PUBLISHED[name]
    assert profile(name).parameters == parameters
    assert profile(name).macs == macs


@pytest.mark.parametrize(("name", "kernel_size"), LITERAL)
def test_counts_with_space_to_depth_first(tmp_path: Path, name: str, kernel_size: int) -> None:
    """As a user would write it: the order in ``defaults``, the kernel in the six rows."""
    text = (CONFIGS / "models" / "yolov5.yaml").read_text(encoding="utf-8")
    text = text.replace("order: conv_first, activation", "order: spd_first, activation")
    text = text.replace("module: Downsample, args: {", f"module: Downsample, args: {{kernel_size: {kernel_size}, ")
    found = profile_model(f"{write_model(tmp_path, text)}:{name}", 640, 80)
    parameters, macs = LITERAL[name, kernel_size]
    assert found.parameters == parameters
    assert found.macs == macs


def test_the_control_costs_what_spd_costs() -> None:
    control, spd = profile("yolov5n-matched"), profile("yolov5n-spd")
    assert control.parameters == 3_648_525
    assert control.macs == pytest.approx(spd.macs, rel=0.01)
    assert control.macs < spd.macs


def test_the_numbers_in_the_yaml_are_true() -> None:
    """The header of yolov5.yaml states parameters and G multiply-adds of all models."""
    header = (CONFIGS / "models" / "yolov5.yaml").read_text(encoding="utf-8").split("\nname:")[0].split()
    for name in [*PUBLISHED, "yolov5n-matched"]:
        at = header.index(name)
        assert header[at + 1 : at + 4] == [f"{profile(name).parameters:,}", f"{profile(name).macs / 1e9:.3f}", "G"]


@pytest.mark.parametrize("name", ["yolov5n", "yolov5n-spd"])
def test_golden_table(name: str) -> None:
    """The whole graph as text, so that a change of it is seen.

    Where the change is wanted, run ``python tools/describe.py --model NAME > tests/models/golden/NAME.txt`` for both
    names, and read the diff.
    """
    expected = (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")
    assert profile(name).table() + "\n" == expected


def test_hand_counted_rows(tmp_path: Path) -> None:
    """TINY at 32 px with 3 classes. Each Conv keeps three maps: of the convolution, the norm and the activation."""
    found = profile_model(str(write_model(tmp_path, TINY)), 32, 3)
    stem, down, detect = found.rows
    assert (stem.name, stem.module, stem.inputs, stem.channels, stem.reduction) == ("stem", "Conv", ("image",), 8, 2)
    assert stem.parameters == 3 * 3 * 3 * 8 + 16
    assert stem.macs == 3 * 3 * 3 * 8 * 16 * 16
    assert stem.activation_bytes == 3 * 8 * 16 * 16 * 4
    assert down.parameters == 3 * 3 * 8 * 16 + 32
    assert down.macs == 3 * 3 * 8 * 16 * 8 * 8
    assert down.activation_bytes == 3 * 16 * 8 * 8 * 4
    assert detect.inputs == ("stem", "down")
    assert detect.parameters == (8 + 1) * 8 + (16 + 1) * 8  # one anchor: 8 outputs
    assert detect.macs == 8 * 8 * 16 * 16 + 16 * 8 * 8 * 8
    assert detect.activation_bytes == 8 * (16 * 16 + 8 * 8) * 4


def test_sums() -> None:
    found = profile("yolov5n-spd")
    assert found.parameters == sum(row.parameters for row in found.rows)
    assert found.macs == sum(row.macs for row in found.rows)
    assert found.activation_bytes == sum(row.activation_bytes for row in found.rows)
    assert found.gflops == pytest.approx(2 * found.macs / 1e9)
    plain = found.to_plain()
    assert {key: plain[key] for key in ("name", "image_size", "num_classes", "parameters", "macs")} == {
        "name": "yolov5n-spd",
        "image_size": [640, 640],
        "num_classes": 80,
        "parameters": found.parameters,
        "macs": found.macs,
    }
    assert len(plain["layers"]) == len(found.rows) == 25


def test_multiply_adds_grow_with_the_area() -> None:
    small = profile_model("yolov5n-spd", 320, 80)
    assert 4 * small.macs == profile("yolov5n-spd").macs
    assert small.parameters == profile("yolov5n-spd").parameters


def test_nothing_is_computed() -> None:
    """At this size the maps would take terabytes."""
    found = profile_model("yolov5l-spd", 65536, 80)
    assert found.activation_bytes > 1e12
    assert found.macs == pytest.approx(PUBLISHED["yolov5l-spd"][1] * (65536 / 640) ** 2, rel=1e-4)


@pytest.mark.parametrize("size", [1, 33, 100, 650])
def test_size_that_does_not_suit(size: int) -> None:
    with pytest.raises(InputError, match=rf"^image size {size}: must be a multiple of 32 for yolov5n$"):
        profile_model("yolov5n", size, 80)


def test_unknown_model() -> None:
    with pytest.raises(InputError, match=r"^model 'yolov5' is neither .* did you mean 'yolov5[nsml]'\?$"):
        profile_model("yolov5", 640, 80)
