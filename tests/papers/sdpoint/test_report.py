"""The comparison of instances as text, as JSON, as a picture and in the checkpoint."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import pytest

from detect.evaluation.outputs import EvaluationOutputs
from detect.models import catalog
from detect.models.checkpoint import Checkpoint, load_checkpoint, rewrite_checkpoint
from detect.papers.sdpoint.instances import instances_in
from detect.papers.sdpoint.report import (
    InstanceReport,
    comparison_record,
    comparison_table,
    draw_comparison,
    file_stamp,
    store_records,
    write_comparison,
)
from tests.papers.sdpoint.samples import MEASURED, RECORDS, comparison, detector, record

TABLE = """\
5 instances, each with norms of its own; shapes val at 32 px in fp32 on cpu
share: of the plain network's multiply-adds; GMACs: billions of them for one square image; \
ms: of the network alone for it, median, all in turn

  instance       share     GMACs       ms      AP     own   other
*+1@0.5          0.250 2.500e-07     2.50   0.300   0.125       -
*+1@0.75         0.600 6.000e-07     6.00   0.450   0.300   0.500
  2@0.5          0.650 6.500e-07     6.50   0.400
*+2@0.75         0.900 9.000e-07     9.00   0.520   0.450   0.575
  plain          1.000 1.000e-06    10.00   0.500

*: on the Pareto front; no other instance of this cost or less reaches this AP
+: the same by milliseconds
own: AP of this plain network at the image size that has as many multiply-adds
other: the same of plain.pt

Baseline: this plain network at lower image sizes
  size           share     GMACs       ms      AP
  16 px          0.200 2.000e-07     2.00   0.100
  24 px          0.600 6.000e-07     6.00   0.300
  32 px          1.000 1.000e-06    10.00   0.500

Baseline: plain.pt at lower image sizes
  size           share     GMACs       ms      AP
  24 px          0.600 6.000e-07     6.00   0.500
  32 px          1.000 1.000e-06    10.00   0.600"""
"""At 250 of the first baseline: an eighth of the way from 0.1 to 0.3; at 900: three quarters from 0.3 to 0.5, and of
the other from 0.5 to 0.6, which has nothing as cheap as 250."""


def test_the_table() -> None:
    assert comparison_table(comparison()) == TABLE


def test_the_table_says_whose_norms_they_are_and_what_is_absent() -> None:
    records = (*RECORDS[:4], record(2, 0.75, 900, -1))
    lines = comparison_table(comparison(has_own_norms=False, records=records)).splitlines()
    assert lines[0].startswith("5 instances, all with the norms of the training (uniform); ")
    assert lines[-1] == "-1: there is no such object in the ground truth"


def test_the_record() -> None:
    found = comparison_record(comparison())
    assert found["metric"] == "AP"
    assert found["split"] == "val"
    assert [one["pareto"] for one in found["instances"]] == [False, True, True, False, True]
    assert found["instances"][1] == {
        "name": "1@0.5",
        "point": 1,
        "ratio": 0.5,
        "scale": 1.0,
        "share": 0.25,
        "macs": 250,
        "ms": 2.5,
        "metrics": {"AP": 0.3},
        "pareto": True,
        "pareto_ms": True,
        "baselines": [pytest.approx(0.125), None],
    }
    assert [one["source"] for one in found["baselines"]] == ["sd.pt", "plain.pt"]
    assert found["baselines"][1]["sizes"][0] == {
        "image_size": 24,
        "share": 0.6,
        "macs": 600,
        "ms": 6.0,
        "metrics": {"AP": 0.5},
    }


def test_the_files(tmp_path: Path) -> None:
    assert write_comparison(EvaluationOutputs(), comparison(), "title") == []
    wanted = EvaluationOutputs(tmp_path / "m.json", None, tmp_path / "out")
    lines = write_comparison(wanted, comparison(), "title")
    assert lines == [f"metrics: {tmp_path / 'm.json'}", f"picture: {tmp_path / 'out/instances.png'}"]
    assert json.loads((tmp_path / "m.json").read_text()) == comparison_record(comparison())


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"baselines": comparison().baselines[:1]},
        {"records": RECORDS[:1]},
        {"records": tuple(record(n, 0.5, 10 * n, n / 100) for n in range(1, 40))},  # all on the front
    ],
    ids=["two baselines", "one", "one instance", "many"],
)
def test_the_picture(tmp_path: Path, changes: dict[str, Any]) -> None:
    draw_comparison(tmp_path / "a.png", comparison(**changes), "_$\\alpha_1$ 猫")
    image = cv2.imread(str(tmp_path / "a.png"))
    assert image is not None
    assert image.shape == (660, 960, 3)
    assert image.std() > 5


# ---------------------------------------------------------------------------------------- in the checkpoint


@pytest.fixture
def stored(tmp_path: Path) -> tuple[Path, Checkpoint]:
    """A checkpoint without records, and its file."""
    checkpoint = detector(tmp_path, records=())
    rewrite_checkpoint(tmp_path / "best.pt", checkpoint)
    return tmp_path / "best.pt", checkpoint


def test_records_of_the_fronts_are_kept(stored: tuple[Path, Checkpoint]) -> None:
    """Another instance is better or as cheap as 2@0.5 by multiply-adds, but none by milliseconds."""
    path, checkpoint = stored
    before = instances_in(checkpoint)
    assert before is not None
    quick = replace(RECORDS[3], ms=2.0)
    for records, kept in ((((*RECORDS[:3], quick, RECORDS[4])), 5), (RECORDS, 4)):
        line = store_records(path, checkpoint, comparison(records=records), file_stamp(path))
        assert line == (
            f"stored in {path}: detect predict --cost, --gflops and --target-ms choose by them; "
            f"{kept} of 5 instances, those on a front, stay in the file"
        )
    found = instances_in(load_checkpoint(path))
    assert found is not None
    left = [one for one in before.members if one != quick.instance]
    assert list(found.members) == [one.instance for one in found.records] == left
    assert found.measured == MEASURED
    assert list(found.statistics) == left[1:]


def test_a_link_stays_one(stored: tuple[Path, Checkpoint], tmp_path: Path) -> None:
    path, checkpoint = stored
    link = tmp_path / "link.pt"
    link.symlink_to(path)
    store_records(link, checkpoint, comparison(), file_stamp(link))
    assert link.is_symlink()
    assert instances_in(load_checkpoint(path)).records[:3] == RECORDS[:3]


def write_protected(path: Path, checkpoint: Checkpoint) -> Checkpoint:
    path.chmod(0o444)
    return checkpoint


def resumable(path: Path, checkpoint: Checkpoint) -> Checkpoint:
    return replace(checkpoint, training={"epoch": 1})


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (write_protected, "{} is write-protected"),
        (resumable, "{} is what a training resumes from; best.pt keeps records"),
    ],
)
def test_what_is_not_written(stored: tuple[Path, Checkpoint], prepare: Any, reason: str) -> None:
    path, checkpoint = stored
    before = path.read_bytes()
    checkpoint = prepare(path, checkpoint)
    assert store_records(path, checkpoint, comparison(), file_stamp(path)) == f"not stored: {reason.format(path)}"
    assert path.read_bytes() == before


def test_a_shipped_file_stays_as_it_is(stored: tuple[Path, Checkpoint], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name is found, and instances that are no good on somebody's data are not lost to everybody."""
    path, checkpoint = stored
    monkeypatch.setattr(catalog, "WEIGHTS", path.parent)
    before = path.read_bytes()
    assert InstanceReport(Path(path.stem), checkpoint, None)._path == path
    line = store_records(path, checkpoint, comparison(), file_stamp(path))
    assert line == f"not stored: {path} is shipped, with the records of its card; a copy of it keeps others"
    assert path.read_bytes() == before


@pytest.mark.parametrize("gone", [False, True])
def test_a_file_that_has_changed(stored: tuple[Path, Checkpoint], gone: bool) -> None:
    """A training that goes on has written better weights meanwhile, or somebody has removed the file."""
    path, checkpoint = stored
    stamp = file_stamp(path)
    path.unlink()
    if not gone:
        path.write_bytes(b"better weights")
    line = store_records(path, checkpoint, comparison(), stamp)
    assert line == f"not stored: {path} has changed since it was read"
    assert path.exists() != gone
    assert gone or path.read_bytes() == b"better weights"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_must_not_be_written(stored: tuple[Path, Checkpoint]) -> None:
    path, checkpoint = stored
    path.parent.chmod(0o500)
    line = store_records(path, checkpoint, comparison(), file_stamp(path))
    path.parent.chmod(0o700)
    assert line == f"not stored: {path}: Permission denied"
