"""Export to ONNX: one file that computes boxes or class probabilities, and says how to use it."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch
from torch.export import Dim

from detect import __version__
from detect.errors import InputError
from detect.export.masks import Masks, check_masks, pack_masks
from detect.export.melting import melted
from detect.export.metadata import describe
from detect.export.parity import ExportError, Parity, compare_onnx
from detect.export.tidy import fold_constants, remove_traces
from detect.export.wrappers import Wrapper, wrapped
from detect.inference.inputs import checked_size
from detect.models.checkpoint import Checkpoint
from detect.models.model import Model
from detect.runtime.files import atomic_path

OPSETS = range(16, 24)
"""Operator sets that the exporter can write."""
DEFAULT_OPSET = 18
"""The exporter's own; an older one goes through a converter."""


def export_onnx(
    checkpoint: Checkpoint,
    path: Path,
    image_size: int | None = None,
    opset: int = DEFAULT_OPSET,
    masks: Masks = "folded",
) -> Parity:
    """Write a checkpoint's model as ONNX, with any batch size, height and width, and compare it with PyTorch.

    Args:
        checkpoint: the model.
        path: the file. It appears only if its outputs are those of PyTorch.
        image_size: side of the network input in pixels (a detector's long side), for the metadata; None is the one of
            the training.
        opset: version of the ONNX operator set.
        masks: how binary weights are stored (``detect.export.masks``).

    Returns:
        How far the file's outputs are from PyTorch's.

    Raises:
        InputError: a package is missing, ``path`` is a folder, or the size, the operator set or the form of the masks
            is not possible.
        ExportError: the exported graph is not the model.
    """
    _require_packages()
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file in it")
    wanted = checkpoint.image_size if image_size is None else image_size
    model = checkpoint.model
    size = checked_size(wanted, model.max_reduction)
    if opset not in OPSETS:
        raise InputError(f"opset: must be from {OPSETS[0]} to {OPSETS[-1]}, found {opset}")
    check_masks(model, masks)
    with atomic_path(path) as temporary:
        _write(wrapped(melted(model)), temporary, opset)
        _finish(temporary, opset, describe(checkpoint, size, masks), model if masks == "packed" else None)
        parity = compare_onnx(model, temporary, size)
        if not parity.good:
            raise ExportError(f"{path}: not written, because its outputs differ: {parity.line()}")
    return parity


def _write(wrapper: Wrapper, path: Path, opset: int) -> None:
    side = wrapper.model.max_reduction
    # Two images, not square: no dimension can be mistaken for another or for 1.
    example = torch.zeros(2, 3, 2 * side, 3 * side)
    # As multiples: else the exporter cannot see that two ways to halve a map give the same size (PeleeNet's stem).
    batch, rows, columns = (Dim(name) for name in ("batch", "rows", "columns"))
    with _quiet_exporter():
        try:
            program = torch.onnx.export(
                wrapper,
                (example,),
                dynamo=True,
                opset_version=opset,
                input_names=["images"],
                output_names=[wrapper.output_name],
                dynamic_shapes={"images": {0: batch, 2: side * rows, 3: side * columns}},
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            reason = str(error.__cause__ or error).strip().splitlines()[0]
            raise ExportError(f"this PyTorch's exporter cannot write the model: {reason}") from None
    assert program is not None, "the exporter returns a program when it is given no file"
    program.save(path, external_data=False)


def _finish(path: Path, opset: int, metadata: dict[str, str], packed: Model | None) -> None:
    """Check and tidy the exporter's file, pack the binary weights of ``packed``, and write the metadata into it."""
    model = onnx.load(path)
    written = {entry.domain: entry.version for entry in model.opset_import}
    if written != {"": opset}:
        raise ExportError(f"the exporter wrote operator sets {written} instead of {opset}; take {DEFAULT_OPSET}")
    fold_constants(model)
    remove_traces(model)
    sides = model.graph.input[0].type.tensor_type.shape.dim[2:]
    for dim, name in zip(sides, ("height", "width"), strict=True):
        dim.dim_param = name  # in place of 32*rows; the metadata tells of what it must be a multiple
    if packed is not None:
        pack_masks(model, packed)  # last: folding would undo it
    model.producer_name, model.producer_version = "detect", __version__
    onnx.helper.set_model_props(model, metadata)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (
        onnx.checker.ValidationError
    ) as error:  # older exporters leave newer attributes when they convert to an old set
        reason = str(error).splitlines()[0]
        raise ExportError(
            f"opset {opset}: this PyTorch's exporter cannot write it ({reason}); take {DEFAULT_OPSET}"
        ) from None
    onnx.save(model, path)


def _require_packages() -> None:
    """Say at once what is missing, not after the work."""
    missing = [name for name in ("onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"export to ONNX needs {' and '.join(missing)}: pip install {' '.join(missing)}")


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence the exporter's remarks on its own passes; what matters of them is checked afterwards."""
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
