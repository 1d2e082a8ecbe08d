"""Export to ONNX: one file that computes boxes or class probabilities, with the metadata to use it."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import onnx
import torch
from torch.export import Dim

from detect import __version__
from detect.data.annotations import AnnotationTable
from detect.errors import InputError
from detect.exporting.metadata import describe
from detect.exporting.onnx_graph import (
    append_suppression,
    expand_softmax,
    fold_constants,
    remove_traces,
    shrink_constants,
)
from detect.exporting.options import DEFAULT_OPSET, DEFAULT_OPTIONS, OPSETS, ExportOptions, Masks
from detect.exporting.parity import ExportError, Parity, compare_file
from detect.exporting.wrappers import Wrapper, halved, wrapped
from detect.inference.inputs import checked_size
from detect.inference.runtimes.formats import ONNX
from detect.models.checkpoint import Checkpoint
from detect.models.model import ClassificationModel, Model, fuse_conv_bn
from detect.models.packing import packed_layers
from detect.runtime.files import atomic_path
from detect.runtime.plugins import find_plugin


def export_onnx(
    checkpoint: Checkpoint, path: Path, options: ExportOptions = DEFAULT_OPTIONS, table: AnnotationTable | None = None
) -> Parity:
    """Write a checkpoint's model as ONNX, and compare the file with PyTorch.

    Args:
        checkpoint: the model, exported with its graph's transform.
        path: the file. It is written only if its outputs are those of PyTorch.
        options: the kind of file.
        table: a labelled split on which a detector's AP is compared as well.

    Returns:
        The distance of the file's outputs from PyTorch's.

    Raises:
        InputError: a package is missing, ``path`` is a folder, or an option is not possible for this model.
        ExportError: the exported graph is not the model.
    """
    options = checked_options(checkpoint, path, options)
    with atomic_path(path) as temporary:
        write_graph(fuse_conv_bn(checkpoint.model), temporary, checkpoint, options)
        return checked_parity(checkpoint, temporary, options, path, table)


def checked_options(checkpoint: Checkpoint, path: Path, options: ExportOptions) -> ExportOptions:
    """Resolve the image size; ``InputError`` as of ``export_onnx``."""
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file in it")
    size = checkpoint.image_size if options.image_size is None else options.image_size
    options = replace(options, image_size=checked_size(size, checkpoint.model.max_reduction))
    check_export(checkpoint.model, options)
    return options


def checked_parity(
    checkpoint: Checkpoint, written: Path, options: ExportOptions, path: Path, table: AnnotationTable | None = None
) -> Parity:
    """Compare a written file with PyTorch; ``ExportError``, which names ``path``, where it differs."""
    parity = compare_file(checkpoint, written, options, table)
    if not parity.good:
        raise ExportError(f"{path}: not written, because its outputs differ: {parity.line()}")
    return parity


def write_graph(model: Model, path: Path, checkpoint: Checkpoint, options: ExportOptions) -> None:
    """Write a model of a checkpoint, a copy that may be changed, with its metadata; options as ``check_export``."""
    _write(wrapped(halved(model) if options.half else model, options.raw), path, options)
    _finish(path, checkpoint, options)


def check_export(model: Model, options: ExportOptions) -> None:
    """Raise ``InputError`` where a package is missing, or an option is not possible for the model."""
    _require_packages()
    if options.opset not in OPSETS:
        raise InputError(f"opset: must be from {OPSETS[0]} to {OPSETS[-1]}, found {options.opset}")
    check_masks(model, options.masks)
    if options.int8 and options.half:
        raise InputError("int8: the other layers stay in float32; leave half precision out")
    if options.int8 and options.masks == "packed":
        raise InputError("int8: packed weights are unpacked to float32; take folded ones")
    if options.half and options.masks == "packed":
        raise InputError("masks: packed weights are unpacked to float32; take folded ones for half precision")
    if options.suppression is not None and isinstance(model, ClassificationModel):
        raise InputError(f"nms: {model.definition.name} is a classifier; non-maximum suppression is for detectors")
    if options.raw and isinstance(model, ClassificationModel):
        raise InputError(f"raw: {model.definition.name} is a classifier; raw maps are for detectors")
    if options.raw and options.suppression is not None:
        raise InputError("raw: non-maximum suppression needs boxes, which a raw file does not have; leave one out")
    if options.dynamic and (reason := model.graph.transform.fixed_sizes):
        raise InputError(f"dynamic: {reason}; leave --dynamic out")


def check_masks(model: Model, masks: Masks) -> None:
    """Raise ``InputError`` for ``packed`` masks of a model without binary weights."""
    if masks == "packed" and not packed_layers(model):
        raise InputError(
            f"masks: packed needs binary weights (conv: bdsc), {model.definition.name} has none; take folded"
        )


def _write(wrapper: Wrapper, path: Path, options: ExportOptions) -> None:
    """Write the network with PyTorch's exporter."""
    if options.dynamic:
        side = wrapper.model.max_reduction
        # Two images, not square: no two dimensions are equal, and none is 1.
        example = torch.zeros(2, 3, 2 * side, 3 * side)
        # As multiples: otherwise the exporter cannot see that two ways to halve a map agree (PeleeNet's stem).
        batch, rows, columns = (Dim(name) for name in ("batch", "rows", "columns"))
        shapes = {"images": {0: batch, 2: side * rows, 3: side * columns}}
    else:
        assert options.image_size is not None, "it is resolved"
        example, shapes = torch.zeros(1, 3, options.image_size, options.image_size), None
    with _quiet_exporter():
        try:
            program = torch.onnx.export(
                wrapper,
                (example,),
                dynamo=True,
                opset_version=options.opset,
                input_names=["images"],
                output_names=list(wrapper.output_names),
                dynamic_shapes=shapes,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            reason = str(error.__cause__ or error).strip().splitlines()[0]
            raise ExportError(f"this PyTorch's exporter cannot write the model: {reason}") from None
    assert program is not None, "the exporter returns a program when it is given no file"
    program.save(path, external_data=False)


def _finish(path: Path, checkpoint: Checkpoint, options: ExportOptions) -> None:
    """Check and clean the exporter's file, add masks, suppression and metadata."""
    model = onnx.load(path)
    written = {entry.domain: entry.version for entry in model.opset_import}
    if written != {"": options.opset}:
        raise ExportError(
            f"the exporter wrote operator sets {written} instead of {options.opset}; take {DEFAULT_OPSET}"
        )
    fold_constants(model)
    if options.format is ONNX:  # other runtimes have kernels for it, and pnnx does not know the largest of an axis
        expand_softmax(model)
    shrink_constants(model)
    remove_traces(model)
    if options.dynamic:
        sides = model.graph.input[0].type.tensor_type.shape.dim[2:]
        for dim, name in zip(sides, ("height", "width"), strict=True):
            dim.dim_param = name  # in place of 32*rows; the metadata has the multiple
        if options.raw:
            for value, reduction in zip(model.graph.output, checkpoint.detector.head.reductions, strict=True):
                for dim, name in zip(value.type.tensor_type.shape.dim[2:], ("height", "width"), strict=True):
                    dim.dim_param = f"{name}/{reduction}"
    if options.masks == "packed":
        find_plugin("onnx_masks", options.masks)(model, checkpoint.model)  # last: folding would undo it
    if options.suppression is not None:
        model = append_suppression(model, options.suppression)
    model.producer_name, model.producer_version = "detect", __version__
    onnx.helper.set_model_props(model, describe(checkpoint, options))
    _check_model(model, options.opset)
    onnx.save(model, path)


def _check_model(model: onnx.ModelProto, opset: int) -> None:
    try:
        onnx.checker.check_model(model, full_check=True)
    except onnx.checker.ValidationError as error:
        # Older exporters leave newer attributes when they convert to an older set.
        reason = str(error).splitlines()[0]
        raise ExportError(
            f"opset {opset}: this PyTorch's exporter cannot write it ({reason}); take {DEFAULT_OPSET}"
        ) from None


def _require_packages() -> None:
    missing = [name for name in ("onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"export to ONNX needs {' and '.join(missing)}: pip install 'detect-small[export]'")


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence the exporter's messages about its own passes; its result is checked afterwards."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # PyTorch 2.11 warns about itself.
            warnings.filterwarnings("ignore", message=r".*LeafSpec.*", category=FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
