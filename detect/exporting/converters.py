"""Export to other formats than ONNX: OpenVINO, ncnn and LiteRT; what each can hold, and how it is written.

A file passes the gate of ``detect.exporting.parity`` in its own runtime, with ONNX's tolerances, or is not written.
"""

from __future__ import annotations

import io
import json
import logging
import subprocess
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from detect.data.annotations import AnnotationTable
from detect.errors import InputError
from detect.exporting.metadata import describe
from detect.exporting.onnx import checked_options, checked_parity, write_graph
from detect.exporting.onnx_graph import read_values
from detect.exporting.options import DEFAULT_OPSET, ExportOptions
from detect.exporting.parity import ExportError, Parity
from detect.exporting.wrappers import wrapped
from detect.inference.runtimes.formats import DIGESTS, LITERT, NCNN, OPENVINO, Format, digests, metadata_text
from detect.inference.runtimes.litert import LABELS
from detect.inference.runtimes.litert import METADATA as LITERT_METADATA
from detect.inference.runtimes.ncnn import INPUT_HW
from detect.inference.runtimes.ncnn import METADATA as NCNN_METADATA
from detect.inference.runtimes.openvino import SECTION, import_openvino
from detect.models.checkpoint import Checkpoint
from detect.models.heads import AnchorFreeDetect, side_means_apart
from detect.models.model import fuse_conv_bn
from detect.runtime.files import atomic_files

_PARAM_HEAD_LINES = 2
"""Lines before the layers of ncnn's ``.param`` file: a number that all have, and the counts of layers and blobs."""


@dataclass(frozen=True)
class Converter:
    """Way to a format.

    Args:
        format: of the files.
        write: writes all files of the format; raises ``ExportError`` where the format's converter fails.
        packages: modules that it needs, beside those of the runtime and of an export to ONNX.
        always_raw: a detector's file has the maps of its head, which the programs that run it decode.
        dynamic: it can take images of any size.
        half: the weights can be stored in half precision.
    """

    format: Format
    write: Callable[[Checkpoint, Path, ExportOptions], None]
    packages: tuple[str, ...] = ()
    always_raw: bool = False
    dynamic: bool = True
    half: bool = True

    def checked(self, options: ExportOptions, is_classifier: bool) -> ExportOptions:
        """The options as the format has them.

        Raises:
            InputError: a package is missing, or an option is not possible.
        """
        name = self.format.name
        refused = {
            "nms": options.suppression is not None,
            "int8": options.int8,
            "masks packed": options.masks == "packed",
            "opset": options.opset != DEFAULT_OPSET,
            "half": options.half and not self.half,
            "dynamic": options.dynamic and not self.dynamic,
        }
        if found := [f"--{option}" for option, is_given in refused.items() if is_given]:
            raise InputError(f"{', '.join(found)}: not with --format {name}; leave it out, or take --format onnx")
        self.format.require((*self.packages, *self.format.packages), f"export to {self.format.title}")
        return replace(options, raw=(options.raw or self.always_raw) and not is_classifier)


def write_openvino(checkpoint: Checkpoint, path: Path, options: ExportOptions) -> None:
    """Write both files, the weights in half precision with ``half``; ``ExportError`` if OpenVINO refuses the graph."""
    graph = path.with_name("graph.onnx")
    write_graph(fuse_conv_bn(checkpoint.model), graph, checkpoint, replace(options, half=False))
    convert_openvino(graph, path, describe(checkpoint, options), half=options.half)


def convert_openvino(graph: Path, path: Path, metadata: dict[str, str], *, half: bool) -> None:
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


def write_ncnn(checkpoint: Checkpoint, path: Path, options: ExportOptions) -> None:
    """Write the three files; ``half`` stores the weights in half precision. ``ExportError`` where pnnx fails."""
    graph, size = path.with_name("graph.onnx"), options.image_size
    model = fuse_conv_bn(checkpoint.model)
    for head in model.modules():
        if isinstance(head, AnchorFreeDetect):
            head.side_means = side_means_apart  # ncnn's tensors have three axes beside that of the batch
    # Of one size: what pnnx writes takes others, too, unless a layer has it as a constant, which the gate sees.
    write_graph(model, graph, checkpoint, replace(options, half=False, dynamic=False))
    input_hw = json.dumps(None if options.dynamic else [size, size])
    convert_ncnn(graph, path, describe(checkpoint, options) | {INPUT_HW: input_hw}, half=options.half)


def convert_ncnn(graph: Path, path: Path, metadata: dict[str, str], *, half: bool) -> None:
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
    path.with_suffix(NCNN_METADATA).write_text(metadata_text(metadata | {DIGESTS: found}), encoding="utf-8")


def rename_blobs(text: str, names: Mapping[str, str]) -> str:
    """Rename blobs of a ``.param`` file: after type and name of a layer come two counts, inputs and outputs."""
    lines = text.splitlines()
    for number, line in enumerate(lines[_PARAM_HEAD_LINES:], _PARAM_HEAD_LINES):
        words = line.split()
        end = 4 + int(words[2]) + int(words[3])
        lines[number] = " ".join([*words[:4], *(names.get(blob, blob) for blob in words[4:end]), *words[end:]])
    return "\n".join(lines) + "\n"


class _ChannelsLast(nn.Module):
    """A network for images (1, H, W, 3), as cameras and other programs for LiteRT have them; outputs as they are."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        found: Tensor | list[Tensor] = self.network(images.permute(0, 3, 1, 2))
        return found


def write_litert(checkpoint: Checkpoint, path: Path, options: ExportOptions) -> None:
    """Write the file, for one image; ``ExportError`` where litert-torch fails."""
    assert options.image_size is not None, "it is resolved"
    convert_litert(wrapped(fuse_conv_bn(checkpoint.model), options.raw), options.image_size, path)
    append_metadata(path, describe(checkpoint, options), checkpoint.names)


def convert_litert(network: nn.Module, size: int, path: Path) -> None:
    """Convert a network for images (1, 3, ``size``, ``size``) to a file for (1, ``size``, ``size``, 3).

    Raises:
        ExportError: litert-torch cannot convert it.
    """
    import litert_torch

    module, example = _ChannelsLast(network).eval(), torch.zeros(1, size, size, 3)
    with _own_split(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        try:
            litert_torch.convert(module, (example,)).export(str(path))
        except (RuntimeError, ValueError, TypeError, AttributeError, LookupError, AssertionError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ExportError(f"litert-torch cannot convert the model: {reason}") from None


def append_metadata(path: Path, metadata: dict[str, str], names: Sequence[str]) -> None:
    """Append the archive with the metadata and the list of classes, which programs that know neither do not see."""
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(LITERT_METADATA, metadata_text(metadata))
        archive.writestr(LABELS, "\n".join(names) + "\n")


@contextmanager
def _own_split() -> Iterator[None]:
    """Inside, a division of a tensor is several slices: litert-torch 0.10 fails at one into a single part."""
    from litert_torch.fx_infra import decomp

    level, split = logging.root.level, torch.ops.aten.split_with_sizes.default
    decomp.add_pre_convert_decomp(split, _split)
    try:
        yield
    finally:
        decomp.remove_pre_convert_decomp(split)
        logging.root.setLevel(level)


def _split(x: Any, sizes: list[int], dim: int = 0) -> list[Any]:
    """Parts of ``x`` of these sizes along ``dim``."""
    places = pairwise(accumulate(sizes, initial=0))
    return [torch.ops.aten.slice.Tensor(x, dim, start, end) for start, end in places]


_ALL = (
    Converter(OPENVINO, write_openvino),
    Converter(NCNN, write_ncnn, ("pnnx",), always_raw=True),
    Converter(LITERT, write_litert, ("litert_torch",), always_raw=True, dynamic=False, half=False),
)
CONVERTERS = {one.format.name: one for one in _ALL}


def export_converted(
    checkpoint: Checkpoint, path: Path, options: ExportOptions, table: AnnotationTable | None = None
) -> Parity:
    """Write a checkpoint's model in another format than ONNX, and compare it with PyTorch in the format's runtime.

    Args:
        checkpoint: the model, exported with its graph's transform.
        path: the file, with the suffix of its format; the files beside it have its name otherwise. They are written
            only if their outputs are those of PyTorch.
        options: the kind of file.
        table: a labelled split on which a detector's AP is compared as well.

    Returns:
        The distance of the file's outputs from PyTorch's.

    Raises:
        InputError: a package is missing, ``path`` has another suffix, or an option is not possible.
        ExportError: the converter cannot write the model, or the file is not the model.
    """
    converter, suffix = CONVERTERS[options.format.name], options.format.suffix
    if path.suffix.lower() != suffix:
        raise InputError(f"{path}: a file of {options.format.title} must end with {suffix}")
    options = converter.checked(options, checkpoint.model.definition.is_classifier)
    options = checked_options(checkpoint, path, options)
    with atomic_files(path, options.format.beside) as temporary:
        converter.write(checkpoint, temporary, options)
        return checked_parity(checkpoint, temporary, options, path, table)
