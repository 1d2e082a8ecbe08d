"""The folder of a page: its files, its facts, and that a refused export leaves nothing."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from detect.api import exporting
from detect.api.exporting import ExportRequest, rounding_note, run_web_export
from detect.cli.main import run_command
from detect.errors import InputError
from detect.exporting.web.folder import write_page
from detect.exporting.web.runtime import WebRuntime
from detect.models.checkpoint import load_checkpoint, rewrite_checkpoint
from tests.exporting.exports import exporter_once
from tests.exporting.web.test_runtime import archive

RUNTIME = WebRuntime("1.30.0", b"// script", b"\0asm")
HOSTILE = ("</script><img src=x onerror=alert(1)>", "\u202ereversed", "x" * 100)


def test_the_files(checkpoint, tmp_path):
    write_page(tmp_path, Path("runs/mine/best.pt"), checkpoint, RUNTIME)
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    runtime = {"ort/ort.wasm.bundle.min.js", "ort/ort-wasm-simd-threaded.wasm", "ort/LICENSE.txt"}
    own = {"index.html", "main.js", "worker.js", "detector.js", "model.json"}
    assert found == runtime | own | {"page.css", "page.js", "drawing.js", "sources.js", "icon.svg"}
    assert (tmp_path / "ort" / "ort.wasm.bundle.min.js").read_bytes() == b"// script"
    assert "onnxruntime-web 1.30.0" in (tmp_path / "ort" / "LICENSE.txt").read_text()


def test_the_scripts_name_files_of_the_folder(checkpoint, tmp_path):
    """Relative to the page, so that the folder may lie anywhere on a server; model.onnx is the export's own."""
    write_page(tmp_path, Path("best.pt"), checkpoint, RUNTIME)
    named = set()
    for path in (tmp_path / name for name in ("index.html", "main.js", "worker.js", "page.js", "detector.js")):
        named |= set(re.findall(r'"(\.?/[\w.-][\w./-]*)"', path.read_text(encoding="utf-8")))
    assert {name for name in named if not (tmp_path / name).is_file()} == {"./model.onnx"}
    assert {name for name in named if name.startswith("/")} == set()


def test_facts_and_hostile_names(checkpoint, tmp_path):
    write_page(tmp_path, Path("a\u202eb.pt"), replace(checkpoint, names=HOSTILE), RUNTIME)
    text = (tmp_path / "model.json").read_text(encoding="ascii")
    facts = json.loads(text)
    assert facts["file"] == "a\\u202eb.pt"
    assert facts["runtime"] == "onnxruntime-web 1.30.0"
    assert [one["name"] for one in facts["classes"]] == [*HOSTILE]
    shown = [one["shown"] for one in facts["classes"]]
    assert shown == [HOSTILE[0], "\\u202ereversed", f"{'x' * 30}…{'x' * 29}"]
    assert facts["classes"][0]["color"] == "#ff2a0d"  # hue 0.02, saturation 0.95: 255 * (1, 0.164, 0.05)


def test_a_refused_export_leaves_nothing(tmp_path, monkeypatch):
    package = str(archive(tmp_path / "package.tgz"))
    out = str(tmp_path / "page")
    for words, line in (
        (("--format", "web"), "--format web: needs the npm package onnxruntime-web"),
        (("--runtime", package), "--runtime: belongs to --format web"),
        (
            ("--format", "web", "--runtime", package, "--instances", "all"),
            "--instances: not together with --format web",
        ),
    ):
        monkeypatch.setattr(sys, "argv", ["detect", "export", "--weights", "yolov5n-spd-bccd", "--out", out, *words])
        with pytest.raises(InputError, match=line):
            run_command()
    assert [path.name for path in tmp_path.iterdir()] == ["package.tgz"]


@pytest.mark.slow
def test_a_whole_export_reads_its_checkpoint_once(checkpoint, tmp_path, monkeypatch):
    weights, out, read = tmp_path / "model.pt", tmp_path / "page", []
    rewrite_checkpoint(weights, checkpoint)
    monkeypatch.setattr(exporting, "load_checkpoint", lambda path: read.append(path) or load_checkpoint(path))
    with exporter_once():
        exported = run_web_export(ExportRequest(weights, out, threads=1), archive(tmp_path / "package.tgz"))
    assert read == [weights]
    assert {"model.onnx", "index.html", "worker.js"} <= {path.name for path in out.iterdir()}
    assert not (out / "onnx_runner.py").exists()
    assert exported.record["parity"]["difference"]["good"]


def test_classifiers_are_refused(classifier, tmp_path):
    rewrite_checkpoint(tmp_path / "classifier.pt", classifier)
    request = ExportRequest(tmp_path / "classifier.pt", tmp_path / "page")
    with pytest.raises(InputError, match="is a classifier; --format web is for detectors"):
        run_web_export(request, archive(tmp_path / "package.tgz"))


def test_a_used_folder_is_refused(tmp_path):
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "mine.txt").touch()
    with pytest.raises(InputError, match="exists already and is not an empty folder"):
        run_web_export(ExportRequest(Path("yolov5n-spd-bccd"), tmp_path / "page"), archive(tmp_path / "package.tgz"))


def test_a_note_where_activations_are_rounded():
    request = ExportRequest(Path("yolov5n-spd-bccd"), int8=True, data="bccd")
    (line,) = rounding_note(request)
    assert "the runtimes round differently" in line
    assert rounding_note(replace(request, weights_only=True)) == rounding_note(replace(request, int8=False)) == []
