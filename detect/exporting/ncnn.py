"""ncnn's files: the graph as ``.param``, its weights as ``.bin``, and the metadata as ``.json``."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from detect.exporting.metadata import describe
from detect.exporting.onnx import write_graph
from detect.exporting.onnx_graph import read_values
from detect.exporting.options import ExportOptions
from detect.exporting.parity import ExportError
from detect.inference.runtimes.formats import DIGESTS, NCNN, digests, metadata_text
from detect.inference.runtimes.ncnn import INPUT_HW, METADATA
from detect.models.checkpoint import Checkpoint
from detect.models.model import fuse_conv_bn

_HEAD_LINES = 2
"""Of a ``.param`` file: a number that all have, and the counts of layers and blobs."""


def write(checkpoint: Checkpoint, path: Path, options: ExportOptions) -> None:
    """Write the three files; ``half`` stores the weights in half precision. ``ExportError`` as of ``convert``."""
    graph, size = path.with_name("graph.onnx"), options.image_size
    # Of one size: what pnnx writes takes others, too, unless a layer has it as a constant, which the gate sees.
    write_graph(fuse_conv_bn(checkpoint.model), graph, checkpoint, replace(options, half=False, dynamic=False))
    input_hw = json.dumps(None if options.dynamic else [size, size])
    convert(graph, path, describe(checkpoint, options) | {INPUT_HW: input_hw}, half=options.half)


def convert(graph: Path, path: Path, metadata: dict[str, str], *, half: bool) -> None:
    """Convert an ONNX file of one size, whose names of inputs and outputs stay.

    Raises:
        ExportError: pnnx, ncnn's converter, fails.
    """
    import pnnx

    inputs, outputs = read_values(graph)
    (name, shape), weights = inputs[0], path.with_suffix(".bin")
    sides = ",".join(map(str, shape))
    words = [f"inputshape=[{sides}]f32", f"fp16={int(half)}", f"ncnnparam={path.name}", f"ncnnbin={weights.name}"]
    command = [pnnx.EXEC_PATH, graph.name, *words]
    done = subprocess.run(command, check=False, cwd=path.parent, capture_output=True, text=True, errors="replace")
    if done.returncode or not path.is_file():
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ExportError(f"pnnx cannot convert the model (exit code {done.returncode}): {last[:200]}")
    blobs = {"in0": name, **{f"out{number}": value for number, (value, _) in enumerate(outputs)}}
    path.write_text(rename_blobs(path.read_text(encoding="utf-8"), blobs), encoding="utf-8")
    found = digests(path, (NCNN.suffix, weights.suffix))
    path.with_suffix(METADATA).write_text(metadata_text(metadata | {DIGESTS: found}), encoding="utf-8")


def rename_blobs(text: str, names: Mapping[str, str]) -> str:
    """Rename blobs of a ``.param`` file: after type and name of a layer come two counts, inputs and outputs."""
    lines = text.splitlines()
    for number, line in enumerate(lines[_HEAD_LINES:], _HEAD_LINES):
        words = line.split()
        end = 4 + int(words[2]) + int(words[3])
        lines[number] = " ".join([*words[:4], *(names.get(blob, blob) for blob in words[4:end]), *words[end:]])
    return "\n".join(lines) + "\n"
