from __future__ import annotations

import json
from pathlib import Path

import pytest

from detect.models.catalog import FOLDERS, shipped_models, shipped_parts
from tests.tools.running import run_here, run_process


def test_json(tmp_path: Path) -> None:
    options = ("--model", "yolov5n-spd", "--image-size", "320", "--num-classes", "3", "--json")
    code, output, errors = run_here(tmp_path, "describe.py", *options)
    assert (code, errors) == (0, "")
    found = json.loads(output)
    assert (found["name"], found["image_size"], found["num_classes"]) == ("yolov5n-spd", [320, 320], 3)
    assert found["gflops"] == pytest.approx(2 * found["macs"] / 1e9)
    assert found["parameters"] == sum(row["parameters"] for row in found["rows"])
    assert found["macs"] == sum(row["macs"] for row in found["rows"])
    assert found["macs"] == sum(layer["macs"] for layer in found["layers"])
    assert found["rows"][0]["name"] == found["layers"][0]["row"] == "stem"
    assert found["rows"][0]["inputs"] == ["image"]
    assert found["size_bytes"] == sum(row["size_bytes"] for row in found["rows"]) == 4 * found["stored_values"]
    assert found["size_bytes"] < found["file_bytes"] < 1.05 * found["size_bytes"]
    assert found["bottleneck_macs"] == max(layer["macs"] for layer in found["layers"])


@pytest.mark.slow
def test_json_of_several(tmp_path: Path) -> None:
    words = ("--model", "resnet10", "resnet10+width=0.5", "--image-size", 64, "--json")
    found = json.loads(run_here(tmp_path, "describe.py", *words).output)
    assert [model["name"] for model in found] == ["resnet10", "resnet10+width=0.5"]


def test_table(tmp_path: Path) -> None:
    """The graph, the measures, and nothing else."""
    code, output, errors = run_here(tmp_path, "describe.py", "--model", "yolov5n")
    assert (code, errors) == (0, "")
    assert output.startswith("name ")
    assert "\nyolov5n, 640 x 640 px, 80 classes: 1,872,157 parameters, 2.234 G multiply-adds (4.47 GFLOPs), " in output
    assert output.splitlines()[-1].startswith("  bottleneck ")


@pytest.mark.slow
def test_sizes_of_a_binary_model(tmp_path: Path) -> None:
    """0.19 MiB as counted; the file has a name for each of its 256 tensors too."""
    options = ("--model", "resnet20+bdsc", "--num-classes", "10", "--image-size", "32")
    output = run_here(tmp_path, "describe.py", *options).output
    assert "\n  size 0.19 MiB as the BDSC paper counts: " in output
    assert "\n  checkpoint file 0.27 MiB: " in output


def test_classifier_layer_by_layer(tmp_path: Path) -> None:
    options = ("--model", "resnet10", "--num-classes", "1000", "--image-size", "256", "--layers")
    output = run_here(tmp_path, "describe.py", *options).output
    assert "classify.linear" in output
    assert "in a Darknet weights file 5,248,936" in output
    assert "with max-pools 2.273" in output


@pytest.mark.slow
def test_several_side_by_side(tmp_path: Path) -> None:
    """Each for itself, then a line for each; the picture is written beside."""
    options = ("--model", "resnet10", "resnet10+width=0.5", "--image-size", 64, "--picture", tmp_path / "costs.png")
    code, output, errors = run_here(tmp_path, "describe.py", *options)
    assert (code, errors) == (0, "")
    last = output.splitlines()[-2:]
    assert [line.split()[:2] for line in last] == [["resnet10", "4,773,008"], ["resnet10+width=0.5", "1,206,896"]]
    assert (tmp_path / "costs.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_list(tmp_path: Path) -> None:
    """Every name that can be given, with a few words."""
    code, output, errors = run_process(tmp_path, "describe.py", "--list")
    assert (code, errors) == (0, "")
    lines = [line.split(maxsplit=1) for line in output.splitlines() if line.startswith("  ")]
    names = [*shipped_models(), *(name for section in FOLDERS for name in shipped_parts(section))]
    assert [name for name, _ in lines] == names
    assert all(2 < len(words) < 150 for _, words in lines)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--model", "yolov5n-sdp"),
            "error: model 'yolov5n-sdp' is neither a .yaml file nor a shipped model or backbone; "
            "did you mean 'yolov5n-spd'?",
        ),
        (
            ("--model", "yolov5n", "--image-size", "100"),
            "error: image size 100: must be a multiple of 32 for yolov5n",
        ),
        (
            ("--model", "resnet10", "--image-size", "64", "--picture", "costs.jpg"),
            "error: costs.jpg: the picture is a PNG file; its name must end in .png",
        ),
        (("--model",), "error: argument --model: expected at least one argument; --help lists what there is"),
        (
            ("--model", "yolov5n", "--list"),
            "error: argument --list: not allowed with argument --model; --help lists what there is",
        ),
        ((), "error: one of the arguments --model --weights --list is required; --help lists what there is"),
    ],
)
def test_refused_in_one_line(tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    ended = run_here(tmp_path, "describe.py", *options)
    assert (ended.complaint, ended.output) == (message, "")
