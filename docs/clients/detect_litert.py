"""Run a model of `detect export --format litert`, with numpy, opencv and ai-edge-litert alone: to use and to change.

    python detect_litert.py model.tflite photo.jpg --conf 0.25

A line for each box: class, score, left, top, right, bottom in pixels of the image, best first.
"""

from __future__ import annotations

import argparse
import json
import sys
import zipfile
from typing import Any

import cv2
import numpy as np
from ai_edge_litert.interpreter import Interpreter


class Network:
    """The file in its runtime, and its metadata, which are an archive at its end."""

    def __init__(self, path: str) -> None:
        with zipfile.ZipFile(path) as archive:
            self.metadata = json.loads(archive.read("metadata.json"))
        self.interpreter = Interpreter(path)
        self.runner = self.interpreter.get_signature_runner()
        self.input = next(iter(self.runner.get_input_details()))
        self.outputs = sorted(self.runner.get_output_details())

    def entry(self, key: str) -> Any:
        return self.metadata[key]

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        """The outputs for (1, 3, H, W) float32 RGB in [0, 1]; the file takes (1, H, W, 3)."""
        found = self.runner(**{self.input: np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))})
        return [found[name] for name in self.outputs]


class Model:
    """An exported detector or classifier; images are as cv2.imread gives them: BGR, 8 bits."""

    def __init__(self, path: str) -> None:
        self.network = Network(path)
        self.is_classifier = self.network.metadata["task"] == "classification"
        self.names, self.output = self.network.entry("names"), self.network.entry("output")
        self.size, self.stride = int(self.network.metadata["image_size"]), int(self.network.metadata["stride"])
        self.preprocessing = self.network.entry("preprocessing")

    def detect(self, image: np.ndarray, conf: float = 0.25, iou: float = 0.6) -> np.ndarray:
        """(N, 6): left, top, right, bottom, score, class index, best first."""
        hw, factor = image.shape[:2], self.size / max(image.shape[:2])
        new_hw = tuple(max(1, round(edge * factor)) for edge in hw)
        pixels = self.padded(self.resized(image, new_hw))
        rows = suppress(self.decoded(self.network.run(pixels), pixels.shape[2:])[0], conf, iou)[:300]
        scale_xy = np.array([new_hw[1] / hw[1], new_hw[0] / hw[0]] * 2)
        rows[:, :4] = np.clip(rows[:, :4] / scale_xy, 0, [hw[1], hw[0]] * 2)
        return rows[(rows[:, 2:4] > rows[:, :2]).all(axis=1)]

    def classify(self, image: np.ndarray) -> np.ndarray:
        """(K,): the probability of each class."""
        side, short = self.preprocessing["resize_short_side"], min(image.shape[:2])
        image = crop(image, self.preprocessing["max_aspect"] * short)
        image = self.resized(image, tuple(round(edge * side / short) for edge in image.shape[:2]))
        return self.network.run(as_input(crop(image, self.size)))[0].ravel()

    def resized(self, image: np.ndarray, new_hw: tuple[int, ...]) -> np.ndarray:
        how = "interpolation_" + ("smaller" if np.prod(new_hw) < np.prod(image.shape[:2]) else "larger")
        return cv2.resize(image, new_hw[::-1], interpolation=getattr(cv2, self.preprocessing[how]))

    def padded(self, image: np.ndarray) -> np.ndarray:
        """The network input: the image in the top left corner, grey right of it and below."""
        side = self.preprocessing.get("pad_to_square_of")
        hw = (side, side) if side else tuple(-(-edge // self.stride) * self.stride for edge in image.shape[:2])
        canvas = np.full((*hw, 3), self.preprocessing["pad_value"], np.uint8)
        canvas[: image.shape[0], : image.shape[1]] = image
        return as_input(canvas)

    def decoded(self, outputs: list[np.ndarray], input_hw: tuple[int, ...]) -> np.ndarray:
        """(1, P, 5 + K): box centre and size in input pixels, objectness, classes."""
        levels = zip(outputs, self.output["levels"], strict=True)
        return np.concatenate([decode(*both, input_hw, self.output["max_log_ratio"]) for both in levels], axis=1)


def decode(raw: np.ndarray, level: dict, input_hw: tuple[int, ...], max_log_ratio: float) -> np.ndarray:
    """Decode a level (B, A * (5 + K), h, w) of a raw file to (B, A * h * w, 5 + K)."""
    anchors, (height, width) = np.array(level["anchors_px"], np.float32)[:, None, None], raw.shape[2:]
    raw = raw.reshape(len(raw), len(anchors), -1, height, width).transpose(0, 1, 3, 4, 2)
    rows, cells = (1 + np.tanh(raw / 2)) / 2, np.dstack(np.meshgrid(range(width), range(height)))  # sigmoid; (h, w, 2)
    cell_px, exp = (input_hw[1] / width, input_hw[0] / height), np.exp(np.minimum(raw[..., :4], max_log_ratio))
    if level["sizes"] == "distances":  # of the left, top, right and bottom side from the cell's centre
        low, high = exp[..., :2] - 1, exp[..., 2:] - 1
        rows[..., :2] = (cells + 0.5) * cell_px + (high - low) / 2 * anchors
        rows[..., 2:4] = anchors * np.maximum(low + high, 0.1 * np.exp(np.minimum((low + high) / 0.1, 1) - 1))
        return rows.reshape(len(rows), -1, rows.shape[4])
    offsets = raw[..., :2] if level.get("offsets") == "linear" else level["xy_scale"] * (rows[..., :2] - 0.5) + 0.5
    rows[..., :2] = (offsets + cells) * cell_px
    rows[..., 2:4] = anchors * ((2 * rows[..., 2:4]) ** 2 if level["sizes"] == "square" else exp[..., 2:])
    return rows.reshape(len(rows), -1, rows.shape[4])


def as_input(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 BGR to (1, 3, H, W) float32 RGB in [0, 1]."""
    return np.ascontiguousarray(image[None, ..., ::-1].transpose(0, 3, 1, 2), np.float32) / np.float32(255)


def crop(image: np.ndarray, side: int) -> np.ndarray:
    """The middle of an image, at most side pixels high and wide."""
    top, left = (max(0, edge - side) // 2 for edge in image.shape[:2])
    return image[top : top + side, left : left + side]


def suppress(predictions: np.ndarray, conf: float, iou: float) -> np.ndarray:
    """Reduce (P, 5 + K) to (N, 6): of two boxes of a class that overlap by more than iou, the better one stays."""
    predictions = predictions[predictions[:, 4] > conf]
    scores = predictions[:, 5:] * predictions[:, 4:5]
    labels, scores = scores.argmax(axis=1), scores.max(axis=1)
    sizes, corners = predictions[:, 2:4], predictions[:, :2] - predictions[:, 2:4] / 2
    offsets = labels[:, None] * (2 * np.abs(predictions[:, :4]).sum(axis=1).max(initial=0))  # classes side by side
    kept = cv2.dnn.NMSBoxes(np.column_stack([corners + offsets, sizes]).tolist(), scores.tolist(), conf, iou)
    return np.column_stack([corners, corners + sizes, scores, labels])[np.array(kept, int)]


def main() -> None:
    parser = argparse.ArgumentParser(description="Run an exported model on images.")
    parser.add_argument("model")
    parser.add_argument("images", nargs="+")
    parser.add_argument("--conf", type=float, default=0.25, help="minimum score (default: %(default)s)")
    arguments = parser.parse_args()
    model = Model(arguments.model)
    for path in arguments.images:
        image = cv2.imread(path)
        if image is None:
            print(f"{path}: cannot be read", file=sys.stderr)
        elif model.is_classifier:
            scores = model.classify(image)
            print(path, *(f"{model.names[index]} {scores[index]:.3f}" for index in np.argsort(-scores)[:5]))
        else:
            for *box, score, label in model.detect(image, arguments.conf):
                print(path, model.names[int(label)], f"{score:.3f}", *(f"{value:.1f}" for value in box))


if __name__ == "__main__":
    main()
