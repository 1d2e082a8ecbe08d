"""OpenVINO's intermediate representation: the graph as ``.xml``, its weights beside it as ``.bin``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from detect.exporting.metadata import describe
from detect.exporting.onnx import write_graph
from detect.exporting.options import ExportOptions
from detect.exporting.parity import ExportError
from detect.inference.runtimes.formats import DIGESTS, OPENVINO, digests
from detect.inference.runtimes.openvino import SECTION, import_openvino
from detect.models.checkpoint import Checkpoint
from detect.models.model import fuse_conv_bn


def write(checkpoint: Checkpoint, path: Path, options: ExportOptions) -> None:
    """Write both files; ``half`` stores the weights in half precision, the CPU computes in float32.

    Raises:
        ExportError: as of ``convert``.
    """
    graph = path.with_name("graph.onnx")
    write_graph(fuse_conv_bn(checkpoint.model), graph, checkpoint, replace(options, half=False))
    convert(graph, path, describe(checkpoint, options), half=options.half)


def convert(graph: Path, path: Path, metadata: dict[str, str], *, half: bool) -> None:
    """Convert an ONNX file; ``ExportError`` where OpenVINO cannot read it."""
    openvino = import_openvino()
    try:
        model = openvino.Core().read_model(graph)
    except RuntimeError as error:
        raise ExportError(f"OpenVINO cannot read the model: {' '.join(str(error).split())[:200]}") from None
    openvino.save_model(model, path, compress_to_fp16=half)
    for key, value in (metadata | {DIGESTS: digests(path, OPENVINO.beside)}).items():
        model.set_rt_info(value, [SECTION, key])
    openvino.save_model(model, path, compress_to_fp16=half)
