"""The export of a detector as a page for browsers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from detect.api.exporting import RUNNER, Exported, ExportRequest, run_export
from detect.errors import InputError
from detect.exporting.web.folder import MODEL_FILE, write_page
from detect.exporting.web.runtime import PACKAGE, read_runtime
from detect.models.checkpoint import load_checkpoint
from detect.runtime.files import atomic_folder


def run_web_export(request: ExportRequest, runtime: Path | None) -> Exported:
    """Export a detector into a new folder, with a page that runs it; ``runtime`` is the npm package onnxruntime-web.

    Raises:
        InputError: an option, the checkpoint or the package is wrong.
        ExportError: the file does not compute what the model does; there is no folder then.
    """
    if request.instances is not None:
        raise InputError("--instances: not together with --format web, whose page has one network; --cost exports one")
    out = request.out or request.weights.with_name("web")
    found = read_runtime(runtime)
    checkpoint = load_checkpoint(request.weights)
    if checkpoint.model.definition.is_classifier:
        raise InputError(f"{request.weights}: is a classifier; --format web is for detectors")
    with atomic_folder(out) as building:
        model = building / MODEL_FILE
        exported = run_export(replace(request, out=model))
        (building / RUNNER.name).unlink()  # a web server would give it to everybody
        write_page(building, request.weights, checkpoint, found)
    lines = [line.replace(str(model), str(out / MODEL_FILE)) for line in exported.lines[:-1]]  # without the runner's
    lines += rounding_note(request)
    total = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    lines.append(f"{out}: {total / 2**20:.1f} MiB with {PACKAGE} {found.version}; python -m http.server -d {out}")
    record = {**exported.record, "out": str(out), "folder_bytes": total, "runtime": f"{PACKAGE} {found.version}"}
    return Exported(out, tuple(lines), record)


def rounding_note(request: ExportRequest) -> list[str]:
    """Line about a file whose activations have 8 bits: the browser rounds some of them to the other neighbour."""
    if not request.int8 or request.weights_only:
        return []
    return [
        "INT8: in a browser boxes are pixels from those of the same file in Python: the runtimes round differently; "
        "those of --int8 --weights-only are not"
    ]
