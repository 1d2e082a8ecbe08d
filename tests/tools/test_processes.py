"""Commands in several processes: the images are shared, and the results are those of one process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from detect.config.base import to_plain
from tests.tools.running import run_by_two, run_here
from tests.training.small import make_shapes

WEIGHTS = ("--weights", "yolov5n-spd-shapes", "--device", "cpu")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    data = make_shapes(folder / "shapes", sizes=(1, 3, 1), image_size=192)
    (folder / "data.yaml").write_text(yaml.safe_dump(to_plain(data)))
    return folder


def by_two(folder: Path, tool: str, *words: object) -> str:
    """What a tool prints in two processes."""
    ended = run_by_two(folder, tool, *words)
    assert [one.code for one in ended] == [0, 0], ended
    return "".join(one.output for one in ended)


def test_evaluate(world):
    words = (*WEIGHTS, "--data", "data.yaml", "--workers", 0, "--batch-size", 2)
    ended = run_here(world, "evaluate.py", *words, "--metrics-json", "one.json", "--results-json", "found-by-one.json")
    assert ended.code == 0, ended.error
    output = by_two(world, "evaluate.py", *words, "--metrics-json", "two.json", "--results-json", "found-by-two.json")
    assert output.count("AP50") == ended.output.count("AP50")
    one, two = (json.loads((world / f"{name}.json").read_text()) for name in ("one", "two"))
    assert one["AP"] > 0.3
    assert {key: two[key] for key in one if key.startswith("A")} == {
        key: one[key] for key in one if key.startswith("A")
    }
    assert (world / "found-by-two.json").read_bytes() == (world / "found-by-one.json").read_bytes()


@pytest.mark.slow
def test_predict(world):
    words = (*WEIGHTS, "--source", "shapes/images/val", "--save-json", "--save-csv", "--save-txt")
    ended = run_here(world, "predict.py", *words, "--out", "one")
    assert ended.code == 0, ended.error
    output = by_two(world, "predict.py", *words, "--out", "two")
    assert output.count("drawn images:") == 1
    assert output.count("shapes/images/val/") == 3
    files = sorted(path.relative_to(world / "one") for path in (world / "one").rglob("*") if path.is_file())
    assert len(files) == 3 + 3 + 3  # drawn images, text files; JSON, CSV and the list of what was written
    assert files == sorted(path.relative_to(world / "two") for path in (world / "two").rglob("*") if path.is_file())
    for file in files:
        if file.name != ".detect-outputs":  # in the order of writing
            assert (world / "two" / file).read_bytes() == (world / "one" / file).read_bytes(), file
