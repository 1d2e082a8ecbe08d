"""An exported file in ONNX Runtime, in the place of a checkpoint, and the checks that a stranger's file must pass.

Letters: B images, H W network input pixels, P predictions of an image, D rows of its detections, K classes, A anchors
of a level, h w its cells.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from detect.boxes.coding import BoxCoding, Offsets, Sizes, decode_levels
from detect.boxes.convert import xyxy_to_cxcywh
from detect.data.letterbox import pad_batch, padded_hw
from detect.errors import InputError
from detect.inference.inputs import checked_size
from detect.models.model import network_input
from detect.safety.onnx_files import parse_onnx
from detect.safety.untrusted import MAX_SIDE, read_metadata

SESSION_OPTIONS = {"session.intra_op.allow_spinning": "0", "session.dynamic_block_base": "4"}
"""Threads sleep while they wait, and work is split into small blocks: as fast on an idle machine, and a fifth to a
third faster beside another program on one of two cores (``benchmarks/threads.py``)."""
FORMAT = "detect-onnx-1"
"""``format`` in the metadata: their version."""


class OnnxNetwork:
    """An exported network in ONNX Runtime; see ``detect.inference.network.InferenceNetwork``.

    Args:
        path: a file that ``detect export`` wrote.
        device: the CPU or a CUDA GPU.

    Raises:
        InputError: the file is missing, damaged or not of this toolkit, ONNX Runtime is missing or does not run on the
            device.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        self.device, self._path = device, path
        self._session = _open_session(path, device)
        try:
            self._read(self._session.get_modelmeta().custom_metadata_map)
        except (LookupError, ValueError, TypeError, AttributeError, RecursionError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path}: its metadata are incomplete or damaged ({error}); export it again") from None

    def _read(self, metadata: dict[str, str]) -> None:
        if metadata.get("format") != FORMAT:
            raise InputError(f"{self._path}: is not a file that detect export wrote (format {FORMAT})")
        self.name = metadata["model"]
        self.is_classifier = metadata["task"] == "classification"
        preprocessing = json.loads(metadata["preprocessing"])
        crop = preprocessing["center_crop"] if self.is_classifier else 1.0
        lists = {key: json.loads(metadata[key]) for key in ("names", "category_ids")}
        entries = {**lists, "image_size": int(metadata["image_size"]), "center_crop": float(crop), "metrics": {}}
        facts = read_metadata({**entries, "value_range": preprocessing.get("value_range")}, str(self._path))
        self.names, self.category_ids, self.image_size = facts.names, facts.category_ids, facts.image_size
        self.center_crop, self.value_range = facts.center_crop, facts.value_range
        self.multiple = int(metadata["stride"])
        if not 1 <= self.multiple <= MAX_SIDE:
            raise InputError(f"{self._path}: stride: must be from 1 to {MAX_SIDE}, found {self.multiple}")
        self.instance, self.cost = metadata["instance"], float(metadata["cost"])
        output = json.loads(metadata["output"])
        self._suppressed = output.get("non_maximum_suppression") == "applied"
        self.max_detections = int(output["max_detections"]) if self._suppressed else None
        self._levels = [_read_level(level) for level in output.get("levels", ())]  # of a raw file
        if self._levels and len(self._levels) != len(self._session.get_outputs()):
            raise ValueError(f"{len(self._levels)} levels for {len(self._session.get_outputs())} outputs")
        sides = self._session.get_inputs()[0].shape[2:]
        self._is_fixed = isinstance(sides[0], int)
        if self._is_fixed and sides != [self.image_size, self.image_size]:
            raise InputError(f"{self._path}: takes images of {sides}, but names {self.image_size}; export it again")

    def choose(self, budget: Any) -> NoReturn:
        raise InputError("the cost of an exported file is fixed; detect export --cost exports another one")

    def check_size(self, image_size: int | None) -> int:
        if image_size is None or image_size == self.image_size:
            return self.image_size
        if self._is_fixed:
            raise InputError(f"image size: {self._path} takes {self.image_size} only, found {image_size}")
        return checked_size(image_size, self.multiple)

    def padded_hw(self, image_hw: tuple[int, int]) -> tuple[int, int]:
        if self._is_fixed:
            return self.image_size, self.image_size
        return padded_hw(image_hw, self.multiple)

    def predictions(self, images: Tensor) -> Tensor:
        if self._levels:
            return self._decoded(self._run(images), self.padded_hw((images.shape[1], images.shape[2])))
        if not self._suppressed:
            predictions = self._run(images)[0]
            if predictions.ndim != 3 or predictions.shape[2] != 5 + len(self.names):
                raise self._unlike(f"predictions of {len(self.names)} classes", predictions)
            return predictions
        detections = self._run(images)[0]  # (B, D, 6)
        is_table = detections.ndim == 3 and detections.shape[2] == 6
        if not is_table or not ((detections[..., 5] >= 0) & (detections[..., 5] < len(self.names))).all():
            raise self._unlike("detections of the classes that it names", detections)
        # As predictions with class probability 1: suppression with the same settings leaves them as they are.
        boxes = xyxy_to_cxcywh(detections[..., :4])
        classes = F.one_hot(detections[..., 5].long(), len(self.names)).to(boxes.dtype)
        return torch.cat([boxes, detections[..., 4:5], classes], dim=-1)

    def _decoded(self, maps: list[Tensor], input_hw: tuple[int, int]) -> Tensor:
        """(B, P, 5 + K) of a raw file's (B, A * (5 + K), h, w)."""
        codings, anchors = zip(*self._levels, strict=True)
        for y, a in zip(maps, anchors, strict=True):
            if y.ndim != 4 or y.shape[1] != len(a) * (5 + len(self.names)):
                raise self._unlike(f"maps of {len(a)} anchors and {len(self.names)} classes", y)
        cells = [(input_hw[1] / level.shape[3], input_hw[0] / level.shape[2]) for level in maps]
        raw = [y.unflatten(1, (len(a), -1)).permute(0, 1, 3, 4, 2) for y, a in zip(maps, anchors, strict=True)]
        return decode_levels(raw, codings, anchors, cells)

    def probabilities(self, images: Tensor) -> Tensor:
        probabilities = self._run(images)[0]
        if probabilities.shape != (len(images), len(self.names)):
            raise self._unlike(f"probabilities of {len(self.names)} classes", probabilities)
        return probabilities

    def _unlike(self, promised: str, found: Tensor) -> InputError:
        return InputError(f"{self._path}: should give {promised}, found {tuple(found.shape)}; export it again")

    def _run(self, images: Tensor) -> list[Tensor]:
        """The outputs for (B, H, W, 3) uint8 RGB."""
        if not self._is_fixed:
            return self._run_once(images)
        side = (self.image_size, self.image_size)
        outputs = [self._run_once(torch.from_numpy(pad_batch([image], shape_hw=side))) for image in images.numpy()]
        return [torch.cat(parts) for parts in zip(*outputs, strict=True)]

    def _run_once(self, images: Tensor) -> list[Tensor]:
        pixels = network_input(images, torch.device("cpu")).contiguous().numpy()
        errors: tuple[type[Exception], ...] = (ValueError, TypeError, *runtime_errors())
        try:
            return [torch.from_numpy(output) for output in self._session.run(None, {"images": pixels})]
        except errors as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{self._path}: ONNX Runtime cannot run it: {reason}") from None


def _read_level(level: dict[str, Any]) -> tuple[BoxCoding, Tensor]:
    """Coding and anchors, (A, 2), of a level."""
    anchors_px = torch.tensor(level["anchors_px"], dtype=torch.float32)
    are_sizes = (
        anchors_px.ndim == 2 and anchors_px.shape[1] == 2 and bool(((anchors_px > 0) & anchors_px.isfinite()).all())
    )
    offsets = level.get("offsets", "sigmoid")  # older files do not say it
    if level["sizes"] not in get_args(Sizes) or offsets not in get_args(Offsets) or not are_sizes:
        raise ValueError(f"unknown decoding {level}")
    return BoxCoding(float(level["xy_scale"]), level["sizes"], offsets), anchors_px


def _open_session(path: Path, device: torch.device) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise InputError(f"{path}: needs ONNX Runtime, which is not installed: pip install onnxruntime") from None
    providers: list[Any] = ["CPUExecutionProvider"]
    if device.type == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.index or 0}))
    elif device.type != "cpu":
        raise InputError(f"{path}: this ONNX Runtime does not run on {device}; use cpu, or pip install onnxruntime-gpu")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    options.intra_op_num_threads = torch.get_num_threads()  # one setting for both, and OMP_NUM_THREADS counts
    for key, value in SESSION_OPTIONS.items():
        options.add_session_config_entry(key, value)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    parse_onnx(content, path)
    errors: tuple[type[Exception], ...] = (ValueError, TypeError, *runtime_errors())  # its wrapper raises Python's own
    try:
        return onnxruntime.InferenceSession(content, options, providers=providers, enable_fallback=0)
    except errors as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: ONNX Runtime cannot load it: {reason}") from None


def runtime_errors() -> tuple[type[Exception], ...]:
    """Exceptions of ONNX Runtime, which have no base class of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = "EPFail Fail InvalidArgument InvalidGraph InvalidProtobuf NotImplemented RuntimeException"
    return tuple(getattr(state, name) for name in names.split())
