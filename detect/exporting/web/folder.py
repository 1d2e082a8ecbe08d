"""The folder of a page that runs a detector in the browser: page, worker, runtime, and facts about the model."""

from __future__ import annotations

import json
from pathlib import Path

from detect.browser import SHARED_FILES, describe_classes, page_file, shown_name
from detect.exporting.web.runtime import BINARY, PACKAGE, SCRIPT, WebRuntime
from detect.models.checkpoint import Checkpoint

MODEL_FILE = "model.onnx"
OWN_FILES = ("index.html", "main.js", "worker.js", "detector.mjs")
RUNTIME_FOLDER = "ort"
_LICENCE = """\
{script} and {binary} are of the npm package onnxruntime-web {version}, https://github.com/microsoft/onnxruntime,
which names the licences of its own parts in ThirdPartyNotices.txt.

MIT License

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""


def write_page(folder: Path, source: Path, checkpoint: Checkpoint, runtime: WebRuntime) -> None:
    """Write everything but ``MODEL_FILE`` into a folder.

    Args:
        folder: an existing one.
        source: the checkpoint's file, whose name is shown.
        checkpoint: of a detector.
        runtime: for browsers.
    """
    for name in (*OWN_FILES, *SHARED_FILES):
        (folder / as_served(name)).write_bytes(page_file(__package__, name))
    facts = {
        "file": shown_name(source.name),
        "model": shown_name(checkpoint.model.definition.name),
        "classes": describe_classes(checkpoint.names),
        "runtime": f"{PACKAGE} {runtime.version}",
    }
    (folder / "model.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    place = folder / RUNTIME_FOLDER
    place.mkdir()
    (place / as_served(SCRIPT)).write_bytes(runtime.script)
    (place / BINARY).write_bytes(runtime.binary)
    licence = _LICENCE.format(script=as_served(SCRIPT), binary=BINARY, version=runtime.version)
    (place / "LICENSE.txt").write_text(licence, encoding="utf-8")


def as_served(name: str) -> str:
    """Name of a file in the folder: ``.js`` for ``.mjs``, to which some web servers give no JavaScript type."""
    return name.removesuffix(".mjs") + ".js" if name.endswith(".mjs") else name
