"""An exported file in ONNX Runtime, and the checks that a stranger's file must pass. PyTorch, whose import takes longer
than all else here, is not used.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from detect.errors import InputError
from detect.inference.runtimes.exported import ExportedNetwork
from detect.inference.runtimes.formats import ONNX
from detect.runtime.device_names import full_device_name
from detect.runtime.distributed import local_rank
from detect.runtime.threads import num_threads
from detect.safety.onnx_files import read_onnx, with_weights

SESSION_OPTIONS = {"session.intra_op.allow_spinning": "0", "session.dynamic_block_base": "4"}
"""Threads sleep while they wait, and work is split into small blocks: as fast on an idle machine, and a fifth to a
third faster beside another program on one of two cores (``benchmarks/threads.py``)."""
_DEVICE = re.compile(r"cpu|mps|cuda(:\d+)?")


class OnnxSession:
    """A file in ONNX Runtime; see ``detect.inference.runtimes.exported.Session``."""

    def __init__(self, path: Path, device: str) -> None:
        self._path = path
        self._session, self.metadata, self.device_name = open_session(path, device)

    @property
    def input_hw(self) -> tuple[int, ...] | None:
        sides = self._session.get_inputs()[0].shape[2:]
        return tuple(sides) if isinstance(sides[0], int) else None

    @property
    def num_outputs(self) -> int:
        return len(self._session.get_outputs())

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        errors: tuple[type[Exception], ...] = (ValueError, TypeError, *runtime_errors())
        try:
            outputs: list[np.ndarray] = self._session.run(None, {"images": pixels})
        except errors as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{self._path}: ONNX Runtime cannot run it: {reason}") from None
        return outputs


class OnnxNetwork(ExportedNetwork):
    """An exported network in ONNX Runtime; see ``detect.inference.network.InferenceNetwork``.

    Args:
        path: a file that ``detect export`` wrote.
        device: ``cpu``, ``cuda``, ``cuda:1`` or ``1``; ``auto`` is a GPU if this ONNX Runtime can use one.

    Raises:
        InputError: the file is missing, damaged or not of this toolkit, ONNX Runtime is missing or does not run on the
            device.
    """

    def __init__(self, path: Path, device: str) -> None:
        super().__init__(path, OnnxSession(path, device), ONNX.version)


def open_session(path: Path, device: str) -> tuple[Any, dict[str, str], str]:
    """The session, the metadata, and the name of the device."""
    try:
        import onnxruntime
    except ImportError:
        raise InputError(f"{path}: needs ONNX Runtime, which is not installed: pip install onnxruntime") from None
    names = _devices(device, path, has_gpus="CUDAExecutionProvider" in onnxruntime.get_available_providers())
    file = read_onnx(path)
    content = with_weights(file, path)
    errors: tuple[type[Exception], ...] = (ValueError, TypeError, *runtime_errors())  # its wrapper raises Python's own
    for name in names[:-1]:
        with suppress(*errors):  # ONNX Runtime for GPUs, on a machine without one
            return _session(content, name), file.metadata, name
    try:
        return _session(content, names[-1]), file.metadata, names[-1]
    except errors as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: ONNX Runtime cannot load it: {reason}") from None


def _devices(device: str, path: Path, *, has_gpus: bool) -> list[str]:
    """Names of the devices to try, in order; ``has_gpus`` for an ONNX Runtime for CUDA."""
    if device == "auto":
        return [full_device_name("cuda", local_rank()), "cpu"] if has_gpus else ["cpu"]
    name = full_device_name(device, local_rank())
    if not _DEVICE.fullmatch(name):
        raise InputError(f"--device {name}: is not a device; allowed: auto, cpu, cuda, cuda:N, mps")
    if name != "cpu" and not (name.startswith("cuda") and has_gpus):
        raise InputError(f"{path}: this ONNX Runtime does not run on {name}; use cpu, or pip install onnxruntime-gpu")
    return [name]


def _session(content: bytes, device_name: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    options.intra_op_num_threads = num_threads()
    for key, value in SESSION_OPTIONS.items():
        options.add_session_config_entry(key, value)
    providers: list[Any] = ["CPUExecutionProvider"]
    if device_name != "cpu":
        _, _, index = device_name.partition(":")
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": int(index or 0)}))
    return onnxruntime.InferenceSession(content, options, providers=providers, enable_fallback=0)


def runtime_errors() -> tuple[type[Exception], ...]:
    """Exceptions of ONNX Runtime, which have no base class of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = "EPFail Fail InvalidArgument InvalidGraph InvalidProtobuf NotImplemented RuntimeException"
    return tuple(getattr(state, name) for name in names.split())
