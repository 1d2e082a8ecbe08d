from __future__ import annotations

import json
from pathlib import Path

import pytest

from detect.papers.tables.tables import shipped_tables
from tests.tools.running import run_here, run_process


def write_table(folder: Path, macs_giga: float) -> None:
    row = f"{{label: ResNet-10, paper: {{BFLOPs: {macs_giga}}}, model: resnet10, image_size: 256}}"
    columns = "[{name: BFLOPs, measure: bflops}, {name: Top-1}]"
    (folder / "my.yaml").write_text(
        f"name: my\ntitle: My table\nnum_classes: 1000\ncolumns: {columns}\nrows: [{row}]\n"
    )


@pytest.mark.slow
def test_shipped_table(tmp_path: Path) -> None:
    code, output, errors = run_process(tmp_path, "reproduce.py", "csp-figure-8")
    assert (code, errors) == (0, "")
    assert "34.41" in output
    assert "32.64" in output


def test_beyond_the_tolerance(tmp_path: Path) -> None:
    """ResNet-10 has 2.273 BFLOPs; the table is printed all the same, and the exit code says it."""
    write_table(tmp_path, macs_giga=2.5)
    ended = run_here(tmp_path, "reproduce.py", "my.yaml")
    assert (ended.code, ended.error) == (3, "")
    assert "-9.1!" in ended.output
    write_table(tmp_path, macs_giga=2.27)
    assert run_here(tmp_path, "reproduce.py", "my.yaml").code == 0


def test_json(tmp_path: Path) -> None:
    write_table(tmp_path, macs_giga=2.5)
    ended = run_here(tmp_path, "reproduce.py", "my.yaml", "--json")
    assert ended.code == 3
    found = json.loads(ended.output)
    assert found["name"] == "my"
    assert found["rows"][0]["ours"]["BFLOPs"] == pytest.approx(2.2733, abs=1e-4)
    assert not found["rows"][0]["within_tolerance"]


def test_list(tmp_path: Path) -> None:
    code, output, errors = run_here(tmp_path, "reproduce.py", "--list")
    assert (code, errors) == (0, "")
    assert [line.split()[0] for line in output.splitlines()] == list(shipped_tables())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("csp-tabel-1",), "error: unknown table 'csp-tabel-1'; did you mean 'csp-table-1'?"),
        (("none.yaml",), "error: none.yaml: cannot be read: No such file or directory"),
        ((), "error: give the name of a table, or --list; --help lists what there is"),
        (("csp-figure-8", "--picture", "x.png"), "error: --picture: csp-figure-8 has no figure"),
        (("csp-table-1", "--list"), "error: give the name of a table, or --list; --help lists what there is"),
    ],
)
def test_refused_in_one_line(tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    ended = run_here(tmp_path, "reproduce.py", *options)
    assert (ended.complaint, ended.output) == (message, "")
