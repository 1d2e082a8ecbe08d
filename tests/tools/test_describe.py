from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def describe(*options: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the tool."""
    command = [sys.executable, "tools/describe.py", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)
    return done.returncode, done.stdout, done.stderr


def test_json() -> None:
    code, output, errors = describe("--model", "yolov5n-spd", "--image-size", "320", "--num-classes", "3", "--json")
    assert (code, errors) == (0, "")
    found = json.loads(output)
    assert {"parameters", "macs", "gflops", "layers"} <= found.keys()
    assert (found["name"], found["image_size"], found["num_classes"]) == ("yolov5n-spd", [320, 320], 3)
    assert found["gflops"] == pytest.approx(2 * found["macs"] / 1e9)
    assert found["parameters"] == sum(layer["parameters"] for layer in found["layers"])
    assert found["macs"] == sum(layer["macs"] for layer in found["layers"])
    assert found["layers"][0]["name"] == "stem"
    assert found["layers"][0]["inputs"] == ["image"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--model", "yolov5n-sdp"),
            "error: model 'yolov5n-sdp' is neither a .yaml file nor a shipped model; did you mean 'yolov5n-spd'?\n",
        ),
        (
            ("--model", "yolov5n", "--image-size", "100"),
            "error: image size 100: must be a multiple of 32 for yolov5n\n",
        ),
    ],
)
def test_refused_in_one_line(options: tuple[str, ...], message: str) -> None:
    assert describe(*options) == (2, "", message)
