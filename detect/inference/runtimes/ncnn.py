"""An exported file in ncnn. PyTorch is not used."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from detect.errors import InputError
from detect.inference.runtimes.exported import ExportedNetwork
from detect.inference.runtimes.formats import NCNN, check_cpu, check_digests, read_metadata_file
from detect.runtime.threads import num_threads

METADATA = ".json"
"""Suffix of the file with the metadata, which ncnn's own files have no place for."""
INPUT_HW = "input_hw"
"""Key of the metadata: JSON of height and width of the only image that the file takes; null where it takes any."""
FLOAT16 = ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage")
"""Options of ncnn that are faster on Arm, and a hundred times less exact; off here."""


class NcnnSession:
    """A file in ncnn on the CPU; see ``detect.inference.runtimes.exported.Session``.

    Args:
        path: the ``.param`` file; beside it are the weights, ``.bin``, and the metadata, ``.json``.

    Raises:
        InputError: a file is missing or damaged, or ncnn is not installed.
    """

    device_name = "cpu"

    def __init__(self, path: Path) -> None:
        NCNN.require(NCNN.packages, str(path))
        import ncnn

        self._path, self._mat = path, ncnn.Mat
        self.metadata = read_metadata_file(path.with_suffix(METADATA), path)
        check_digests(path, (NCNN.suffix, ".bin"), self.metadata)
        try:
            output = json.loads(self.metadata["output"])
            self._outputs = [str(level["name"]) for level in output.get("levels", ())] or ["probabilities"]
            self._input_hw = json.loads(self.metadata[INPUT_HW])
        except (LookupError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{path}: its metadata are incomplete or damaged ({error}); export it again") from None
        self._net = ncnn.Net()
        self._net.opt.num_threads = num_threads()
        for option in FLOAT16:
            setattr(self._net.opt, option, False)
        if self._net.load_param(str(path)) or self._net.load_model(str(path.with_suffix(".bin"))):
            raise InputError(f"{path}: is not a file for this version of ncnn, or is damaged")

    @property
    def input_hw(self) -> tuple[int, ...] | None:
        return None if self._input_hw is None else tuple(self._input_hw)

    @property
    def num_outputs(self) -> int:
        return len(self._outputs)

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        found = [self._run_one(np.ascontiguousarray(image)) for image in pixels]
        return [np.stack(parts) for parts in zip(*found, strict=True)]

    def _run_one(self, image: np.ndarray) -> list[np.ndarray]:
        extractor, outputs = self._net.create_extractor(), []
        failed = extractor.input("images", self._mat(image).clone())
        for name in self._outputs:
            code, values = (failed, None) if failed else extractor.extract(name)
            if code:
                raise InputError(f"{self._path}: ncnn cannot compute {name[:100]} for an image of {image.shape[1:]}")
            outputs.append(np.array(values))
        return outputs


def open_network(path: Path, device: str) -> ExportedNetwork:
    """Open a file that ``detect export --format ncnn`` wrote."""
    check_cpu(path, device, NCNN.title)
    return ExportedNetwork(path, NcnnSession(path), NCNN.version)
