"""An exported file in LiteRT, the successor of TensorFlow Lite. PyTorch is not used."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from detect.errors import InputError, unreadable
from detect.inference.runtimes.exported import ExportedNetwork
from detect.inference.runtimes.formats import LITERT, MAX_METADATA, check_cpu, parse_metadata
from detect.runtime.threads import num_threads

METADATA = "metadata.json"
LABELS = "labels.txt"
"""Names in the archive at the end of the file, where TensorFlow Lite's own tools look for a list of classes."""


class LiteRtSession:
    """A file in LiteRT on the CPU; see ``detect.inference.runtimes.exported.Session``.

    Args:
        path: the ``.tflite`` file: one image (1, H, W, 3), and an archive with the metadata at its end.

    Raises:
        InputError: the file is missing or damaged, or LiteRT is not installed.
    """

    device_name = "cpu"

    def __init__(self, path: Path) -> None:
        LITERT.require(LITERT.packages, str(path))
        from ai_edge_litert.interpreter import Interpreter

        self._path, self.metadata = path, _read_metadata(path)
        try:
            interpreter = Interpreter(str(path), num_threads=num_threads())
            interpreter.allocate_tensors()
            self._runner = interpreter.get_signature_runner()
        except (ValueError, RuntimeError) as error:
            raise InputError(f"{path}: LiteRT cannot load it: {' '.join(str(error).split())[:200]}") from None
        self._interpreter = interpreter  # the runner has no reference of its own
        self._input = next(iter(self._runner.get_input_details()), "")
        self._outputs = sorted(self._runner.get_output_details(), key=lambda name: (len(name), name))

    @property
    def input_hw(self) -> tuple[int, ...]:
        return tuple(self._runner.get_input_details()[self._input]["shape"].tolist()[1:3])

    @property
    def num_outputs(self) -> int:
        return len(self._outputs)

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        try:
            found = self._runner(**{self._input: np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))})
        except (ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{self._path}: LiteRT cannot run it: {reason}") from None
        return [found[name] for name in self._outputs]


def open_network(path: Path, device: str) -> ExportedNetwork:
    """Open a file that ``detect export --format litert`` wrote."""
    check_cpu(path, device, LITERT.title)
    return ExportedNetwork(path, LiteRtSession(path), LITERT.version)


def _read_metadata(path: Path) -> dict[str, str]:
    try:
        with zipfile.ZipFile(path) as archive, archive.open(METADATA) as file:
            content = file.read(MAX_METADATA)
    except OSError as error:
        raise unreadable(path, error) from None
    except (zipfile.BadZipFile, KeyError, RuntimeError, NotImplementedError):
        raise InputError(f"{path}: is not a file that detect export wrote, or is damaged") from None
    return parse_metadata(content, path)
