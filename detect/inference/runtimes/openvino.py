"""An exported file in OpenVINO. PyTorch is not used."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from detect.errors import InputError
from detect.inference.runtimes.exported import ExportedNetwork
from detect.inference.runtimes.formats import OPENVINO, check_cpu, check_digests
from detect.runtime.threads import num_threads

SECTION = "detect"
"""Section of the file's ``rt_info`` with the metadata; OpenVINO's own tools keep facts about a model in others."""


class OpenVinoSession:
    """A file in OpenVINO on the CPU; see ``detect.inference.runtimes.exported.Session``.

    Args:
        path: the ``.xml`` file; the weights are in the ``.bin`` file beside it.

    Raises:
        InputError: a file is missing or damaged, or OpenVINO is not installed.
    """

    device_name = "cpu"

    def __init__(self, path: Path) -> None:
        OPENVINO.require(OPENVINO.packages, str(path))
        openvino = import_openvino()
        self._path, core = path, openvino.Core()
        if not path.is_file():
            raise InputError(f"{path}: cannot be read: No such file")
        try:
            model = core.read_model(path)
            self.metadata = _metadata(model)
        except RuntimeError as error:
            raise InputError(f"{path}: is not an OpenVINO file, or is damaged: {_line(error)}") from None
        check_digests(path, OPENVINO.beside, self.metadata)
        # Newer processors would compute in bfloat16 otherwise, and more threads than one are taken by default.
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": num_threads()}
        try:
            self._compiled = core.compile_model(model, "CPU", settings)
        except RuntimeError as error:
            raise InputError(f"{path}: OpenVINO cannot load it: {_line(error)}") from None

    @property
    def input_hw(self) -> tuple[int, ...] | None:
        shape = self._compiled.inputs[0].get_partial_shape()
        return None if shape.is_dynamic else tuple(shape.to_shape())[2:]

    @property
    def num_outputs(self) -> int:
        return len(self._compiled.outputs)

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        try:
            found = self._compiled([pixels])
        except RuntimeError as error:
            raise InputError(f"{self._path}: OpenVINO cannot run it: {_line(error)}") from None
        return [np.array(found[output]) for output in self._compiled.outputs]


def open_network(path: Path, device: str) -> ExportedNetwork:
    """Open a file that ``detect export --format openvino`` wrote."""
    check_cpu(path, device, OPENVINO.title)
    return ExportedNetwork(path, OpenVinoSession(path), OPENVINO.version)


def import_openvino() -> Any:
    """Import OpenVINO without its telemetry, which reports each import to Google Analytics unless it is forbidden.

    OpenVINO has a stand-in for installations without that package.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def _metadata(model: Any) -> dict[str, str]:
    if not model.has_rt_info(SECTION):
        return {}
    section = model.get_rt_info(SECTION).value
    return {key: str(model.get_rt_info([SECTION, key]).value) for key in section} if isinstance(section, dict) else {}


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
