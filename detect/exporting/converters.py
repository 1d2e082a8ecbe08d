"""Export to other formats than ONNX: what each can hold, and the module that writes it.

A file passes the gate of ``detect.exporting.parity`` in its own runtime, with ONNX's tolerances, or is not written.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from pathlib import Path

from detect.data.annotations import AnnotationTable
from detect.errors import InputError
from detect.exporting.onnx import checked_options, checked_parity
from detect.exporting.options import DEFAULT_OPSET, ExportOptions
from detect.exporting.parity import Parity
from detect.inference.runtimes.formats import LITERT, NCNN, OPENVINO, Format
from detect.models.checkpoint import Checkpoint
from detect.runtime.files import atomic_files


@dataclass(frozen=True)
class Converter:
    """Way to a format.

    Args:
        format: of the files.
        module: has ``write(checkpoint, path, options)``, which writes all files of the format.
        packages: modules that it needs, beside those of the runtime and of an export to ONNX.
        always_raw: a detector's file has the maps of its head, which the programs that run it decode.
        dynamic: it can take images of any size.
        half: the weights can be stored in half precision.
    """

    format: Format
    module: str
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


_ALL = (
    Converter(OPENVINO, "detect.exporting.openvino"),
    Converter(NCNN, "detect.exporting.ncnn", ("pnnx",), always_raw=True),
    Converter(LITERT, "detect.exporting.litert", ("litert_torch",), always_raw=True, dynamic=False, half=False),
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
        importlib.import_module(converter.module).write(checkpoint, temporary, options)
        return checked_parity(checkpoint, temporary, options, path, table)
