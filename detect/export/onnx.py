"""Export to ONNX: one file that computes boxes and probabilities, and says how to use it.

Letters: B images, H W pixels, P predictions of an image, K classes.
"""

from __future__ import annotations

import copy
import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from detect import __version__
from detect.errors import InputError
from detect.export.metadata import describe
from detect.export.parity import ExportError, Parity, compare_onnx
from detect.export.tidy import fold_constants, remove_traces
from detect.inference.inputs import checked_size
from detect.models.blocks.conv import Conv
from detect.models.checkpoint import Checkpoint
from detect.models.detector import DetectionModel
from detect.runtime.files import atomic_path

OPSETS = range(16, 24)
"""Operator sets that the exporter can write."""
DEFAULT_OPSET = 18
"""The exporter's own; an older one goes through a converter."""


class DecodedDetector(nn.Module):
    """A detection model with its decoding, and with each norm melted into its convolution.

    Args:
        model: in evaluation mode; it is copied, not changed.
    """

    def __init__(self, model: DetectionModel) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)
        for layer in self.model.modules():
            # A decoupled convolution has no weights of its own that a norm could melt into.
            if isinstance(layer, Conv) and isinstance(layer.conv, nn.Conv2d):
                layer.conv = fuse_conv_bn_eval(layer.conv, layer.norm)
                layer.add_module("norm", nn.Identity())  # in its place
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1] to (B, P, 5 + K), as ``DetectionModel.decode`` gives it."""
        return self.model.decode(self.model(images))


def export_onnx(
    checkpoint: Checkpoint, path: Path, image_size: int | None = None, opset: int = DEFAULT_OPSET
) -> Parity:
    """Write a checkpoint's model as ONNX, with any batch size, height and width, and compare it with PyTorch.

    Args:
        checkpoint: the model.
        path: the file. It appears only if its predictions are those of PyTorch.
        image_size: long side of the network input in pixels, for the metadata; None is the one of the training.
        opset: version of the ONNX operator set.

    Returns:
        How far the file's predictions are from PyTorch's.

    Raises:
        InputError: a package is missing, ``path`` is a folder, or the size or the operator set is not possible.
        ExportError: the exported graph is not the model.
    """
    _require_packages()
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file in it")
    wanted = checkpoint.image_size if image_size is None else image_size
    size = checked_size(wanted, checkpoint.model.max_reduction)
    if opset not in OPSETS:
        raise InputError(f"opset: must be from {OPSETS[0]} to {OPSETS[-1]}, found {opset}")
    with atomic_path(path) as temporary:
        _write(DecodedDetector(checkpoint.detector), temporary, opset)
        _finish(temporary, opset, describe(checkpoint, size))
        parity = compare_onnx(checkpoint.detector, temporary, size)
        if not parity.good:
            raise ExportError(f"{path}: not written, because its predictions differ: {parity.line()}")
    return parity


def _write(detector: DecodedDetector, path: Path, opset: int) -> None:
    side = detector.model.max_reduction
    # Two images, not square: no dimension can be mistaken for another or for 1.
    example = torch.zeros(2, 3, 2 * side, 3 * side)
    with _quiet_exporter():
        program = torch.onnx.export(
            detector,
            (example,),
            dynamo=True,
            opset_version=opset,
            input_names=["images"],
            output_names=["predictions"],
            dynamic_shapes={"images": {0: "batch", 2: "height", 3: "width"}},
            verbose=False,
        )
    assert program is not None, "the exporter returns a program when it is given no file"
    program.save(path, external_data=False)


def _finish(path: Path, opset: int, metadata: dict[str, str]) -> None:
    """Check and tidy the exporter's file, and write the metadata into it."""
    model = onnx.load(path)
    written = {entry.domain: entry.version for entry in model.opset_import}
    if written != {"": opset}:
        raise ExportError(f"the exporter wrote operator sets {written} instead of {opset}; take {DEFAULT_OPSET}")
    fold_constants(model)
    remove_traces(model)
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
