"""Detectors of other toolkits in ONNX Runtime: files whose output is that of a YOLO before suppression.

The kind is recognised by the shape of the output for a square image of S pixels, with cells of 8, 16 and 32 px:

* (1, cells, 5 + K): YOLOX; BGR in [0, 255], centres and sizes relative to the cells unless the file decodes them;
* (1, 3 * cells, 5 + K): three anchors a cell, decoded; RGB in [0, 1];
* (1, 4 + K, cells): without objectness, decoded; RGB in [0, 1].

Letters: B images, S pixels, P predictions of an image, K classes.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np

from detect.class_names import match_names
from detect.data.letterbox import PAD_VALUE, pad_batch
from detect.errors import InputError
from detect.inference.runtimes.exported import network_input
from detect.inference.runtimes.onnx_runtime import open_session, runtime_errors
from detect.runtime.logs import LOGGER

STRIDES = (8, 16, 32)
DEFAULT_SIDE = 640
"""S of files that take any size."""
_MAX_NAMES = 1_000_000
"""Characters of class names in the metadata."""
_TYPES: dict[str, type[np.floating[Any]]] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}

Kind = Literal["yolox", "anchors", "no objectness"]


class ForeignNetwork:
    """A detector of another toolkit, for measurements; see ``detect.bench.pipeline.BenchNetwork``.

    Args:
        path: the ONNX file.
        data_names: classes of the data; the file's classes are these, in this order, if it does not name its own.

    Raises:
        InputError: the file is not usable, its output is of no known kind, or its classes are unknown.
    """

    value_range: tuple[float, float] | None = None

    def __init__(self, path: Path, data_names: tuple[str, ...]) -> None:
        self._path, self.name = path, path.name
        self._session, _, self.device_name = open_session(path, "cpu")
        self._input, self.image_size, self._type = self._read_input()
        self.multiple = STRIDES[-1]
        self._cells = sum((self.image_size // stride) ** 2 for stride in STRIDES)
        probe = self._run(np.full((1, self.image_size, self.image_size, 3), PAD_VALUE, np.uint8), as_yolox=True)
        self._kind, num_classes = self._kind_of(probe.shape)
        # Centres of a decoded output cover the image; offsets to the cells do not.
        self._is_decoded = self._kind != "yolox" or float(probe[..., :2].max()) > self.image_size / 2
        self.names = self._class_names(num_classes, data_names)

    def padded_hw(self, image_hw: tuple[int, int]) -> tuple[int, int]:
        """As of ``OnnxNetwork``."""
        return self.image_size, self.image_size

    def predictions(self, images: np.ndarray) -> np.ndarray:
        """(B, H, W, 3) uint8 RGB to (B, P, 5 + K) float32."""
        shape = (self.image_size, self.image_size)
        padded = [pad_batch([image], shape_hw=shape) for image in images]
        return np.concatenate([self._decoded(self._run(image, self._kind == "yolox")) for image in padded])

    def _read_input(self) -> tuple[str, int, type[np.floating[Any]]]:
        """Name, side and type of the input."""
        inputs = self._session.get_inputs()
        shape = inputs[0].shape
        if len(inputs) != 1 or len(shape) != 4 or shape[1] not in (3, None) or inputs[0].type not in _TYPES:
            raise InputError(
                f"{self._path}: must have one input (1, 3, S, S) of floats, found {shape} {inputs[0].type}"
            )
        height, width = (side if isinstance(side, int) else DEFAULT_SIDE for side in shape[2:])
        if height != width or height % STRIDES[-1]:
            raise InputError(f"{self._path}: must take squares with a side that 32 divides, found {height} x {width}")
        return inputs[0].name, height, _TYPES[inputs[0].type]

    def _run(self, image: np.ndarray, as_yolox: bool) -> np.ndarray:
        """First output, float32, for (1, S, S, 3) uint8 RGB."""
        pixels = network_input(image)
        if as_yolox:
            pixels = pixels[:, ::-1] * np.float32(255)
        errors: tuple[type[Exception], ...] = (ValueError, TypeError, *runtime_errors())
        try:
            found = self._session.run(None, {self._input: np.ascontiguousarray(pixels, self._type)})[0]
        except errors as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{self._path}: ONNX Runtime cannot run it: {reason}") from None
        return np.asarray(found, np.float32)

    def _kind_of(self, shape: tuple[int, ...]) -> tuple[Kind, int]:
        """Kind, and number of classes."""
        if len(shape) == 3 and shape[0] == 1:
            if shape[1] == self._cells and shape[2] > 5:
                return "yolox", shape[2] - 5
            if shape[1] == 3 * self._cells and shape[2] > 5:
                return "anchors", shape[2] - 5
            if shape[2] == self._cells and shape[1] > 4:
                return "no objectness", shape[1] - 4
        raise InputError(
            f"{self._path}: its output {shape} is of no known kind; known for {self.image_size} px, K classes: "
            f"(1, {self._cells}, 5 + K), (1, {3 * self._cells}, 5 + K), (1, 4 + K, {self._cells})"
        )

    def _class_names(self, num_classes: int, data_names: tuple[str, ...]) -> tuple[str, ...]:
        names = _parse_names(self._session.get_modelmeta().custom_metadata_map.get("names", ""))
        if len(names) == num_classes and match_names(names, data_names).shared:
            return names
        if num_classes == len(data_names):
            LOGGER.warning("%s: does not name its classes; taken are the data's, in their order", self._path)
            return data_names
        raise InputError(
            f"{self._path}: its {num_classes} classes are unknown: it does not name them as the data does, which has "
            f"{len(data_names)}"
        )

    def _decoded(self, output: np.ndarray) -> np.ndarray:
        """(1, P, 5 + K) float32 in network-input pixels."""
        if self._kind == "no objectness":
            rows = output.transpose(0, 2, 1)  # (1, P, 4 + K)
            return np.concatenate([rows[..., :4], np.ones_like(rows[..., :1]), rows[..., 4:]], axis=2)
        if not self._is_decoded:
            cells_xy, cell_px = cell_grid(self.image_size)
            output = output.copy()
            output[..., :2] = (output[..., :2] + cells_xy) * cell_px
            output[..., 2:4] = np.exp(np.minimum(output[..., 2:4], 20)) * cell_px
        return output


def cell_grid(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows (P, 2), and cell sizes (P, 1) in pixels, of all cells of a square image, finest first."""
    corners, sizes = [], []
    for stride in STRIDES:
        rows, columns = np.mgrid[: side // stride, : side // stride]
        corners.append(np.stack([columns.ravel(), rows.ravel()], axis=1))
        sizes.append(np.full((rows.size, 1), stride))
    return np.concatenate(corners).astype(np.float32), np.concatenate(sizes).astype(np.float32)


def _parse_names(text: str) -> tuple[str, ...]:
    """Class names of the metadata: a list, or a dictionary from index to name, in JSON or as Python writes it."""
    if not text or len(text) > _MAX_NAMES:
        return ()
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        try:
            found = ast.literal_eval(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return ()
    if isinstance(found, dict):
        found = [found.get(index, found.get(str(index))) for index in range(len(found))]
    is_list = isinstance(found, list) and all(isinstance(name, str) for name in found)
    return tuple(found) if is_list else ()
