"""Tools whose standard output nobody reads: ``tools/evaluate.py ... --metrics-json x.json | head -2``."""

from __future__ import annotations

import json

import pytest
import yaml

from detect.config.base import to_plain
from tests.tools.running import run_unheard
from tests.training.small import make_shapes

WEIGHTS = ("--weights", "yolov5n-spd-shapes", "--device", "cpu")
DATA = ("--data", "data.yaml")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    data = make_shapes(folder / "shapes", sizes=(1, 2, 1), image_size=192)
    (folder / "data.yaml").write_text(yaml.safe_dump(to_plain(data)))
    return folder


@pytest.mark.parametrize(
    ("words", "files"),
    [
        (("evaluate.py", *WEIGHTS, *DATA, "--workers", 0, "--metrics-json", "m.json"), ["m.json"]),
        (
            ("predict.py", *WEIGHTS, "--source", "shapes/images/val", "--save-csv", "--out", "p"),
            ["p/000001.jpg", "p/000002.jpg", "p/predictions.csv"],
        ),
        (("data.py", "check", *DATA, "--workers", 0, "--json", "c.json"), ["c.json"]),
        (("data.py", "stats", *DATA, "--split", "val", "--json", "s.json"), ["s.json"]),
        (("data.py", "convert", *DATA, "--to", "yolo", "--out", "y"), ["y/data.yaml"]),
        (("data.py", "view", *DATA, "--out", "v"), ["v/sheet.jpg"]),
        (("describe.py", "--model", "yolov5n+width=0.1+depth=0.1", "--picture", "d.png"), ["d.png"]),
        pytest.param(("ship.py", *WEIGHTS[:2], "--out", "shipped.pt"), ["shipped.pt"], marks=pytest.mark.slow),
    ],
    ids=lambda value: " ".join(map(str, value[:2])) if isinstance(value, tuple) else "",
)
def test_all_files_are_there(world, words, files):
    ended = run_unheard(world, *words)
    expected = 2 if "check" in words else 0  # the one image of train has no boxes
    assert (ended.code, "Traceback" in ended.error) == (expected, False), ended.error
    assert [name for name in files if not (world / name).is_file()] == []
    if files == ["m.json"]:
        assert json.loads((world / "m.json").read_text())["AP"] > 0.3
