from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest

from detect.analysis.profile import ModelProfile, profile_model, profile_with_file
from detect.analysis.report import comparison_table, layer_table, row_table, summary
from detect.config.yaml_files import CONFIGS
from detect.errors import InputError
from tests.models.thin import thin
from tests.models.yamls import TINY, write_model, write_rows

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
SCALES = {
    "n": "{depth: 0.33, width: 0.25}",
    "s": "{depth: 0.33, width: 0.50}",
    "m": "{depth: 0.67, width: 0.75}",
    "l": "{depth: 1.00, width: 1.00}",
}
LITERAL = {
    ("n", 3): (3_600_157, 4_003_532_800),
    ("s", 3): (14_147_389, 15_294_668_800),
    ("m", 3): (36_742_557, 40_361_472_000),
    ("l", 3): (74_211_709, 82_808_422_400),
    ("n", 1): (1_552_157, 1_906_380_800),
    ("s", 1): (5_955_389, 6_906_060_800),
    ("m", 1): (18_310_557, 21_487_104_000),
    ("l", 1): (41_443_709, 49_253_990_400),
}

# Published configurations of Darknet, with 1000 classes at 256 px and with 80 at 416 px: trainable parameters, weights
# of convolutions alone, values in the weights file, multiply-adds, BFLOPs of convolutions and max-pools.
DARKNET = {
    ("resnet10", 1000, 256): (5_244_968, 5_240_000, 5_248_936, 1_136_119_808, 2.2733),
    # Its classifier is applied to each of 8 x 8 cells.
    ("resnet50-darknet", 1000, 256): (22_780_456, 22_734_016, 22_825_896, 4_999_610_368, 10.0003),
    ("cspdarknet53", 1000, 256): (27_642_184, 27_605_856, 27_677_512, 6_533_652_480, 13.0673),
    ("cspresnext50", 1000, 256): (20_557_480, 20_499_136, 20_614_824, 3_964_616_704, 7.9303),
    ("yolov3-tiny", 80, 416): (8_852_366, 8_845_488, 8_858_734, 2_782_480_896, 5.5707),
}


@functools.cache
def profile(name: str) -> ModelProfile:
    return profile_model(name, 640, 80)


@pytest.mark.parametrize("name", thin(PUBLISHED, 4))
def test_published_counts(name: str) -> None:
    parameters, macs = PUBLISHED[name]
    assert profile(name).parameters == parameters
    assert profile(name).macs == macs


@pytest.mark.parametrize(("name", "num_classes", "image_size"), thin(DARKNET, 0, 4))
def test_conventions(name: str, num_classes: int, image_size: int) -> None:
    found = profile_model(name, image_size, num_classes)
    parameters, weights, stored, macs, bflops = DARKNET[name, num_classes, image_size]
    assert (found.parameters, found.weights, found.stored_values, found.macs) == (parameters, weights, stored, macs)
    assert found.bflops == pytest.approx(bflops, abs=5e-5)
    assert found.gflops == pytest.approx(2 * macs / 1e9)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "kernel_size"),
    [pytest.param(*key, marks=pytest.mark.slow) if key != ("n", 3) else key for key in LITERAL],
)
def test_counts_with_space_to_depth_first(tmp_path: Path, size: str, kernel_size: int) -> None:
    """As a user would write it: the order in ``defaults``, the kernel in the six rows."""
    text = f"""
name: literal
scale: {SCALES[size]}
defaults: {{downsample: spd, order: spd_first}}
backbone: {{part: yolov5, override: {_kernels("down2", "down3", "down4", "down5", size=kernel_size)}}}
neck: {{part: yolov5-panet, override: {_kernels("down_p3", "down_p4", size=kernel_size)}}}
head: yolov5
"""
    found = profile_model(str(write_model(tmp_path, text)), 640, 80)
    parameters, macs = LITERAL[size, kernel_size]
    assert found.parameters == parameters
    assert found.macs == macs


def _kernels(*rows: str, size: int) -> str:
    return "{" + ", ".join(f"{row}: {{args: {{kernel_size: {size}}}}}" for row in rows) + "}"


@pytest.mark.slow
def test_the_control_costs_what_spd_costs() -> None:
    control, spd = profile("yolov5n-matched"), profile("yolov5n-spd")
    assert control.parameters == 3_648_525
    assert control.macs == pytest.approx(spd.macs, rel=0.01)
    assert control.macs < spd.macs


@pytest.mark.slow
def test_the_numbers_in_the_yaml_are_true() -> None:
    """The header of yolov5.yaml states parameters and G multiply-adds of all models."""
    header = (CONFIGS / "models" / "yolov5.yaml").read_text(encoding="utf-8").split("\nname:")[0].split()
    for name in [*PUBLISHED, "yolov5n-matched"]:
        at = header.index(name)
        assert header[at + 1 : at + 4] == [f"{profile(name).parameters:,}", f"{profile(name).macs / 1e9:.3f}", "G"]


@pytest.mark.slow
@pytest.mark.parametrize(("file", "size"), [("csppeleenet", 416), ("reference-detectors", 320)])
def test_the_numbers_of_reconstructed_detectors_are_true(file: str, size: int) -> None:
    """Their headers state parameters, stored values, BFLOPs, the paper's BFLOPs and how far ours are from them."""
    header = (CONFIGS / "models" / f"{file}.yaml").read_text(encoding="utf-8").split("\nname:")[0]
    lines = [line.split() for line in header.splitlines() if re.match(r"#   [a-z]", line)]
    assert len(lines) in (11, 6)
    for _, name, parameters, stored, bflops, paper, *rest in lines:
        found = profile_model(name, size, 80)
        assert (parameters, stored) == (f"{found.parameters:,}", f"{found.stored_values:,}")
        assert bflops == f"{found.bflops:.3f}"
        if paper != "-":
            deviation = next(word for word in rest if word[0] in "+-")
            assert deviation == f"{100 * (found.bflops / float(paper.rstrip(',')) - 1):+.1f}"


@pytest.mark.parametrize("name", thin(["yolov5n", "yolov5n-spd"], 1))
def test_golden_table(name: str) -> None:
    """The whole graph as text, so that a change of it is seen.

    Where the change is wanted, run ``detect describe --model NAME > tests/analysis/golden/NAME.txt`` for both
    names, and read the diff.
    """
    expected = (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")
    found = profile_with_file(name, 640, 80)
    assert f"{row_table(found)}\n\n{summary(found)}\n" == expected


def test_hand_counted_rows(tmp_path: Path) -> None:
    """TINY at 32 px with 3 classes. Training keeps three maps of each Conv: what the norm, the activation and the next
    convolution read. What the head gives is for the loss to keep."""
    found = profile_model(str(write_model(tmp_path, TINY)), 32, 3)
    stem, down, detect = found.rows
    assert (stem.name, stem.module, stem.inputs, stem.channels, stem.reduction) == ("stem", "Conv", ("image",), 8, 2)
    assert stem.parameters == 3 * 3 * 3 * 8 + 16
    assert stem.weights == 3 * 3 * 3 * 8
    assert stem.stored_values == 3 * 3 * 3 * 8 + 32  # a norm: weight, bias, mean, variance
    assert stem.size_bytes == 4 * stem.stored_values
    assert stem.macs == 3 * 3 * 3 * 8 * 16 * 16
    assert stem.activation_bytes == 3 * 8 * 16 * 16 * 4
    assert down.parameters == 3 * 3 * 8 * 16 + 32
    assert down.macs == 3 * 3 * 8 * 16 * 8 * 8
    assert down.activation_bytes == 3 * 16 * 8 * 8 * 4
    assert detect.inputs == ("stem", "down")
    assert detect.parameters == (8 + 1) * 8 + (16 + 1) * 8  # one anchor: 8 outputs
    assert detect.weights == 8 * 8 + 16 * 8
    assert detect.stored_values == detect.parameters  # no norms
    assert detect.macs == 8 * 8 * 16 * 16 + 16 * 8 * 8 * 8
    assert detect.activation_bytes == 0


def test_hand_counted_layers(tmp_path: Path) -> None:
    """TINY at 32 px with 3 classes: maps of 16*16 = 256 and 8*8 = 64 cells."""
    found = profile_model(str(write_model(tmp_path, TINY)), 32, 3)
    assert [layer.path for layer in found.layers] == ["stem", "down", "detect.predict.0", "detect.predict.1"]
    read = 3 * 32 * 32 + 8 * 256 + 8 * 256 + 16 * 64
    written = 8 * 256 + 16 * 64 + 8 * 256 + 8 * 64
    assert found.cio == read + written
    assert found.bottleneck == found.layers[1]  # 73,728 multiply-adds; stem: 55,296
    assert found.bottleneck.macs == 73_728


def test_without_layers(tmp_path: Path) -> None:
    """A space-to-depth computes nothing, and says so."""
    found = profile_model(str(write_rows(tmp_path, "name: fold, module: SpaceToDepth")), 32, 3)
    assert (found.parameters, found.macs, found.bflops, found.cio, found.bottleneck) == (0, 0, 0, 0, None)
    assert "bottleneck" not in summary(found)
    assert found.to_plain()["bottleneck"] is None
    assert comparison_table([found]).splitlines()[-1].startswith("rows")


def test_space_to_depth_costs_what_it_says(tmp_path: Path) -> None:
    """A space-to-depth and its 3x3 convolution cost as much as rows of their own as together in the stem."""
    apart = "name: fold, module: SpaceToDepth", "name: conv, module: Conv, args: {out_channels: 16, kernel_size: 3}"
    together = "name: stem, module: Stem, args: {out_channels: 16, downsample: spd}"
    first = profile_model(str(write_rows(tmp_path, *apart)), 32, 3)
    second = profile_model(str(write_rows(tmp_path, together)), 32, 3)
    assert (first.parameters, first.macs, first.cio) == (second.parameters, second.macs, second.cio)


def test_classifier() -> None:
    """ResNet-10's last layers at 256 px: a global pool of 8x8 cells and 512 * 1000 weights."""
    found = profile_model("resnet10", 256, 1000)
    pool, linear = found.layers[-2:]
    assert (pool.kind, pool.kernel_hw) == ("average pool", (8, 8))
    assert (linear.kind, linear.weights) == ("linear", 512_000)


def test_layer_table(tmp_path: Path) -> None:
    found = profile_model(str(write_model(tmp_path, TINY)), 32, 3)
    lines = layer_table(found).splitlines()
    assert len(lines) == 2 + 4
    assert lines[2].split() == (
        ["1", "stem", "convolution", "3x3", "1", "3", ">", "8", "32x32", ">", "16x16", "216", "0.06", "5.1"]
    )


def test_summary(tmp_path: Path) -> None:
    """TINY at 32 px: 216 + 16 + 1152 + 32 + 72 + 136 parameters; two norms of 8 and 16 channels store 48 more."""
    text = summary(profile_model(str(write_model(tmp_path, TINY)), 32, 3))
    assert text.splitlines()[0].startswith("tiny, 32 x 32 px, 3 classes: 1,624 parameters, ")
    assert "alone 1,560; values in a Darknet weights file 1,672" in text
    assert text.splitlines()[-1].endswith("down, 3x3 convolution, 8 to 16 channels at 8x8")
    assert "  size 0.01 MiB as the BDSC paper counts: 4 bytes for each of these values; " in text  # 6,688 bytes
    assert "checkpoint file" not in text


def test_sizes(tmp_path: Path) -> None:
    """TINY with BDSC: ``down`` has 8*16 weights, 16*16*9 bits, 16 magnitudes and two norms of 16; else as before."""
    path = str(write_model(tmp_path, TINY + "conv: bdsc\n"))
    found = profile_with_file(path, 32, 3)
    ordinary = 4 * (216 + 4 * 8 + 72 + 136)  # stem and head
    assert found.rows[1].size_bytes == 4 * (128 + 16 + 2 * 4 * 16) + 288
    assert found.size_bytes == ordinary + found.rows[1].size_bytes
    assert found.file_bytes is not None
    assert found.file_bytes > found.size_bytes
    plain = found.to_plain()
    assert (plain["size_bytes"], plain["file_bytes"]) == (found.size_bytes, found.file_bytes)
    assert sum(row["size_bytes"] for row in plain["rows"]) == found.size_bytes
    text = summary(found)
    assert f"checkpoint file {found.file_bytes / 2**20:.2f} MiB: the same, with names of tensors, " in text
    cells = comparison_table([found, profile_model(path, 32, 3)]).splitlines()
    assert cells[2].split()[4:6] == ["0.00", f"{found.file_bytes / 2**20:.2f}"]
    assert cells[3].split()[4] == "0.00"


def test_a_graph_without_a_head_has_no_file(tmp_path: Path) -> None:
    found = profile_with_file(str(write_rows(tmp_path, "name: fold, module: SpaceToDepth")), 32, 3)
    assert found.file_bytes is None
    assert "checkpoint file" not in summary(found)
    assert found.to_plain()["file_bytes"] is None


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
    assert len(plain["rows"]) == len(found.rows) == 25
    assert len(plain["layers"]) == len(found.layers)
    assert sum(layer["macs"] for layer in plain["layers"]) == found.macs
    assert sum(row["macs"] for row in plain["rows"]) == found.macs


@pytest.mark.slow
def test_multiply_adds_grow_with_the_area() -> None:
    small = profile_model("yolov5n-spd", 320, 80)
    assert 4 * small.macs == profile("yolov5n-spd").macs
    assert small.parameters == profile("yolov5n-spd").parameters


def test_nothing_is_computed(tmp_path: Path) -> None:
    """At this size the maps of TINY would take 150 GB."""
    path = str(write_model(tmp_path, TINY))
    found = profile_model(path, 65536, 3)
    assert found.activation_bytes > 1e11
    assert found.macs == profile_model(path, 32, 3).macs * 2048**2


@pytest.mark.parametrize("size", [1, 33, 100, 650])
def test_size_that_does_not_suit(size: int) -> None:
    with pytest.raises(InputError, match=rf"^image size {size}: must be a multiple of 32 for yolov5n$"):
        profile_model("yolov5n", size, 80)


def test_unknown_model() -> None:
    with pytest.raises(InputError, match=r"^model 'yolov5n-sdp' is neither .* did you mean 'yolov5n-spd'\?$"):
        profile_model("yolov5n-sdp", 640, 80)
