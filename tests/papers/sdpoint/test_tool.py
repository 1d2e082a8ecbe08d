"""A detector with a choice of costs, from training to prediction, by the tools."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import pytest

from detect.inference import timing
from detect.models.checkpoint import load_checkpoint
from detect.papers.sdpoint.instances import instances_in
from detect.papers.sdpoint.transform import PLAIN, instance_of
from tests.inference.clips import write_clip
from tests.tools.running import TRAIN, make_world, run_here

SDPOINT = ("--set", "sdpoint.ratios=[0.5]", "sdpoint.way=shrink")
EVALUATE = ("evaluate.py", "--data", "data.yaml", "--workers", 0, "--device", "cpu")
PREDICT = ("predict.py", "--source", "shapes/images/val", "--device", "cpu")
DEVICE = ("predict.py", "--device", "cpu")
SHARE = 0.665
"""Of 1@0.5."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is timed here is timed once."""
    monkeypatch.setattr(timing, "MAX_ROUNDS", 1)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model, data, and two trained checkpoints: ``run`` with SDPoint, ``plain`` without."""
    folder = make_world(tmp_path_factory.mktemp("instances"))
    for out, options in (("run", SDPOINT), ("plain", ())):
        ended = run_here(folder, *TRAIN, "--epochs", 1, "--out", out, *options)
        assert ended.code == 0, ended.error
    return folder


@pytest.fixture(scope="module")
def measured(world: Path) -> Path:
    """The checkpoint with the records of its instances."""
    shutil.copy(world / "run/best.pt", world / "measured.pt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "MAX_ROUNDS", 1)
        options = ("--baseline", "plain/best.pt", "--metrics-json", "m.json", "--out", "out")
        ended = run_here(world, *EVALUATE, "--weights", "measured.pt", "--instances", *options)
    assert ended.code == 0, ended.error
    (world / "printed").write_text(ended.output)
    return world / "measured.pt"


def test_measuring(world: Path, measured: Path) -> None:
    lines = (world / "printed").read_text().splitlines()
    assert lines[0].startswith("2 instances, each with norms of its own; data.yaml val at 64 px in fp32 on cpu")
    # The head reads the second point's map in front of it, so that 2@0.5 saves nothing and is left out.
    assert [line[2:7] for line in lines if line[2:].startswith(("1@0.5", "2@0.5", "plain"))] == ["1@0.5", "plain"]
    assert "Baseline: plain/best.pt at lower image sizes" in lines
    assert lines[-3].startswith(f"stored in {measured}: detect predict --cost")
    assert lines[-2:] == ["metrics: m.json", "picture: out/instances.png"]
    assert cv2.imread(str(world / "out/instances.png")) is not None
    metrics = json.loads((world / "m.json").read_text())
    assert [one["name"] for one in metrics["instances"]] == ["plain", "1@0.5"]
    assert [one["source"] for one in metrics["baselines"]] == ["measured.pt", "plain/best.pt"]
    assert [[one["image_size"] for one in base["sizes"]] for base in metrics["baselines"]] == [[32, 64]] * 2
    found = load_checkpoint(measured)
    assert [record.metrics for record in instances_in(found).records] == [
        one["metrics"] for one in metrics["instances"]
    ]
    assert instances_in(found).measured["command"].endswith(" --metrics-json m.json --out out")
    assert instance_of(found.model) == PLAIN


def test_the_plain_instance_is_what_the_tool_measures_without(world: Path, measured: Path, tmp_path: Path) -> None:
    assert run_here(world, *EVALUATE, "--weights", measured, "--metrics-json", tmp_path / "m.json").code == 0
    alone = json.loads((tmp_path / "m.json").read_text())
    metrics = instances_in(load_checkpoint(measured)).records[0].metrics
    assert {name: alone[name] for name in metrics} == pytest.approx(metrics)


def test_measuring_one_of_them(world: Path, measured: Path, tmp_path: Path) -> None:
    ended = run_here(world, *EVALUATE, "--weights", measured, "--cost", SHARE, "--metrics-json", tmp_path / "m.json")
    assert ended.code == 0, ended.error
    assert ended.output.startswith("instance 1@0.5: costs 0.665 of the full network; AP ")
    alone = json.loads((tmp_path / "m.json").read_text())
    assert alone["cost"] == SHARE
    metrics = instances_in(load_checkpoint(measured)).records[1].metrics
    assert {name: alone[name] for name in metrics} == pytest.approx(metrics)


def test_the_norms_of_a_run_that_goes_on(world: Path) -> None:
    before = (world / "run/last.pt").read_bytes()
    ended = run_here(world, *EVALUATE, "--weights", "run/last.pt", "--instances")
    assert ended.code == 0, ended.error
    lines = ended.output.splitlines()
    assert lines[0].startswith("2 instances, all with the norms of the training (uniform); ")
    assert lines[-1] == f"not stored: {world / 'run/last.pt'} is what a training resumes from; best.pt keeps records"
    assert (world / "run/last.pt").read_bytes() == before


@pytest.mark.parametrize(
    ("budget", "line"),
    [
        (("--cost", SHARE), "instance 1@0.5: costs 0.665 of the full network; AP "),
        (("--cost", 1), "instance plain: the full network"),
        (("--gflops", 0.00442), "instance 1@0.5: needs 0.004411 GFLOPs at 64 px; AP "),
        (("--gflops", 0.018, "--image-size", 128), "instance 1@0.5: needs 0.01764 GFLOPs at 128 px; AP "),
        (("--target-ms", 60_000), " ms here at 64 px; AP "),
    ],
)
def test_prediction_within_a_budget(world: Path, measured: Path, tmp_path: Path, budget: tuple, line: str) -> None:
    ended = run_here(world, *PREDICT, "--weights", measured, "--out", tmp_path, *budget)
    assert ended.code == 0, ended.error
    assert line in ended.output.splitlines()[0]
    assert len(list(tmp_path.glob("*.jpg"))) == 4


def test_a_deadline(world: Path, measured: Path, tmp_path: Path) -> None:
    """A minute for each frame, and a microsecond: then all are late, but for the first by the cheapest instance."""
    video = write_clip(tmp_path / "drive.mp4", 5)
    words = ("--weights", measured, "--source", video, "--out", tmp_path / "out")
    ended = run_here(world, *DEVICE, *words, "--deadline", 60_000)
    assert ended.code == 0, ended.error
    lines = ended.output.splitlines()
    assert lines[-4] == "deadline 60000 ms: 0 of 5 frames late (0.0%)"
    assert lines[-3].split()[:6] == ["instance", "cost", "AP", "frames", "share", "late"]
    assert lines[-1].startswith("all")
    ended = run_here(world, *DEVICE, *words, "--deadline", 0.001)
    late, _, row, _ = ended.output.splitlines()[-4:]
    assert late == "deadline 0.001 ms: 5 of 5 frames late (100.0%)"
    assert row.split()[3:6] == ["5", "100.0%", "5"]


def test_a_deadline_for_images(world: Path, measured: Path, tmp_path: Path) -> None:
    ended = run_here(world, *PREDICT, "--weights", measured, "--out", tmp_path, "--deadline", 60_000, "--json")
    assert ended.code == 0, ended.error
    assert [json.loads(line)["file_name"] for line in ended.output.splitlines()]  # nothing else on standard output
    assert "deadline 60000 ms: 0 of 4 frames late (0.0%)" in ended.error.splitlines()


def test_costs_side_by_side(world: Path, measured: Path, tmp_path: Path) -> None:
    words = ("--weights", measured, "--source", "shapes/images/test", "--device", "cpu", "--out", tmp_path)
    ended = run_here(world, "compare_costs.py", *words, "--costs", 1, SHARE, "--conf", 0.001)
    assert ended.code == 0, ended.error
    lines = ended.output.splitlines()
    assert [line.split(":")[0] for line in lines[:2]] == ["cost 1", "cost 0.665"]
    assert len(list(tmp_path.glob("*.jpg"))) == 1


BEST = ("--weights", "run/best.pt")
NO_INSTANCES = "the checkpoint has no instances, because it was trained without SDPoint; detect train --set "


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*EVALUATE, "--weights", "plain/best.pt", "--instances"), f"error: plain/best.pt: {NO_INSTANCES}"),
        ((*EVALUATE, *BEST, "--instances", "--cost", 0.5), "argument --cost: not allowed with argument --instances"),
        ((*EVALUATE, *BEST, "--instances", "--baseline", "none.pt"), "none.pt: cannot be read"),
        ((*EVALUATE, *BEST, "--instances", "--results-json", "r.json"), "--results-json: is of one network, not of"),
        ((*EVALUATE, *BEST, "--instances", "--image-size", 60), "image size: must be a multiple of 32, found 60"),
        ((*EVALUATE, *BEST, "--baseline", "plain/best.pt"), "--baseline: belongs to --instances"),
        ((*EVALUATE, *BEST, "--cost", 0.5), "are measured: detect val --weights FILE --data DATA --instances"),
        ((*EVALUATE, *BEST, "--cost", "much"), "argument --cost: invalid float value: 'much'"),
        ((*PREDICT, *BEST, "--cost", 0.5), "are measured: detect val --weights FILE --data DATA --instances"),
        ((*PREDICT, "--weights", "plain/best.pt", "--gflops", 1), NO_INSTANCES),
        ((*PREDICT, *BEST, "--cost", 2), "cost: must be above 0 and at most 1, the full network; found 2"),
        ((*PREDICT, *BEST, "--cost", 1, "--target-ms", 3), "argument --target-ms: not allowed with argument --cost"),
        ((*PREDICT, *BEST, "--gflops", 1, "--cost", 1), "argument --cost: not allowed with argument --gflops"),
        (("compare_costs.py", *PREDICT[1:], *BEST), "are measured: detect val"),
        ((*PREDICT, *BEST, "--deadline", 40), "are measured: detect val --weights FILE --data DATA --instances"),
        ((*PREDICT, "--weights", "plain/best.pt", "--deadline", 40), NO_INSTANCES),
        ((*PREDICT, *BEST, "--deadline", 0), "deadline: must be above 0 ms, found 0"),
        ((*PREDICT, *BEST, "--deadline", 40, "--cost", 1), "argument --cost: not allowed with argument --deadline"),
        (
            (*PREDICT, *BEST, "--target-ms", 3, "--deadline", 4),
            "argument --deadline: not allowed with argument",
        ),
    ],
)
def test_bad_input(world: Path, tmp_path: Path, words: tuple, message: str) -> None:
    out = () if words[0] == "evaluate.py" else ("--out", tmp_path / "out")
    assert message in run_here(world, *words, *out).complaint
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", [("--batch-size", 2), ("--image-size", 64)])
def test_a_deadline_is_for_single_frames(world: Path, measured: Path, tmp_path: Path, option: tuple) -> None:
    words = ("--weights", measured, "--out", tmp_path / "out", "--deadline", 40)
    complaint = run_here(world, *PREDICT, *words, *option).complaint
    assert complaint == "error: deadline: frames go one by one, at their instance's size; no batch size or image size"


def test_a_budget_below_the_cheapest(world: Path, measured: Path, tmp_path: Path) -> None:
    ended = run_here(world, *PREDICT, "--weights", measured, "--out", tmp_path / "out", "--cost", 0.1)
    assert ended.complaint == "error: cost 0.1: no instance is within it; 1@0.5 costs 0.665 of the full network"
    assert not (tmp_path / "out").exists()
