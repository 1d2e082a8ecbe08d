"""Run a model that `detect` exported, with numpy, onnxruntime and opencv alone: an example to use and to change.

    python onnx_runner.py model.onnx photo.jpg --out drawn

Preprocessing, decoding and their constants are read from the file's metadata.
Boxes are left, top, right, bottom in pixels of the given image.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import cv2
import numpy as np
from numpy import ndarray as Array
from onnxruntime import InferenceSession as Session


class OnnxModel:
    """An exported detector or classifier; images are as cv2.imread gives them: BGR or grey, of 8 bits or more."""

    def __init__(self, path: str | bytes | Session, providers: tuple[str, ...] = ("CPUExecutionProvider",)) -> None:
        self.session = Session(path, providers=list(providers)) if isinstance(path, (str, bytes)) else path
        if (meta := self.session.get_modelmeta().custom_metadata_map).get("format") != "detect-onnx-1":
            raise ValueError("the file is not of format detect-onnx-1")
        self.is_classifier, self.names = meta["task"] == "classification", json.loads(meta["names"])
        self.image_size, self.stride = int(meta["image_size"]), int(meta["stride"])
        self.preprocessing, self.output = json.loads(meta["preprocessing"]), json.loads(meta["output"])
        sides = self.session.get_inputs()[0].shape
        self.fixed_hw = tuple(sides[2:]) if isinstance(sides[2], int) else None

    def detect(self, image: Array, conf: float = 0.25, iou: float = 0.6, max_det: int = 300) -> Array:
        """(N, 6): box, score, class index, best first. A file with suppression inside has its own iou and max_det."""
        scaled, scale_xy = self.scaled(image := self.as_bytes(image))
        outputs = self.session.run(None, {"images": (tensor := self.network_input([scaled]))})
        if self.output["non_maximum_suppression"] == "applied":
            found = (rows := outputs[0][0, : outputs[1][0]])[rows[:, 4] > conf]
        else:
            found = suppress(self.decoded(outputs, tensor.shape[2:])[0], conf, iou)[:max_det]
        return self.in_image(found, image.shape[:2], scale_xy)

    def classify(self, image: Array) -> Array:
        """(K,): the probability of each class."""
        return self.session.run(None, {"images": self.network_input([self.center_crop(self.as_bytes(image))])})[0][0]

    def as_bytes(self, image: Array) -> Array:
        """(H, W, 3) uint8; values of more than 8 bits are scaled by the value range of the training."""
        if image.dtype != np.uint8:
            low, high = self.preprocessing.get("value_range", (0, 65536))
            image = np.nan_to_num((image.astype(float) - low) * (256 / (high - low))).clip(0, 255).astype(np.uint8)
        return image if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)

    def scaled(self, image: Array) -> tuple[Array, tuple[float, float]]:
        """The image resized to a long side of image_size, and the factors for x and y."""
        factor = self.image_size / max(image.shape[:2])
        new_hw = tuple(max(1, round(edge * factor)) for edge in image.shape[:2])
        return self.resized(image, new_hw), (new_hw[1] / image.shape[1], new_hw[0] / image.shape[0])

    def center_crop(self, image: Array) -> Array:
        """The square in the middle of the image, (image_size, image_size, 3)."""
        side, short = self.preprocessing["resize_short_side"], min(image.shape[:2])
        image = crop(image, self.preprocessing["max_aspect"] * short)
        return crop(self.resized(image, tuple(round(edge * side / short) for edge in image.shape[:2])), self.image_size)

    def resized(self, image: Array, new_hw: tuple[int, ...]) -> Array:
        how = "interpolation_" + ("smaller" if np.prod(new_hw) < np.prod(image.shape[:2]) else "larger")
        return cv2.resize(image, new_hw[::-1], interpolation=getattr(cv2, self.preprocessing[how]))

    def network_input(self, images: list[Array]) -> Array:
        """(B, 3, H, W) float32 in [0, 1], RGB: each image in the top left corner, grey right of it and below."""
        hw = self.fixed_hw or tuple(-(-np.max([x.shape[:2] for x in images], axis=0) // self.stride) * self.stride)
        batch = np.full((len(images), *hw, 3), self.preprocessing.get("pad_value", 0), np.uint8)
        for place, image in zip(batch, images, strict=True):
            place[: image.shape[0], : image.shape[1]] = image
        return np.ascontiguousarray(batch[..., ::-1].transpose(0, 3, 1, 2), np.float32) / np.float32(255)

    def decoded(self, outputs: list[Array], input_hw: tuple[int, ...]) -> Array:
        """(B, P, 5 + K): box centre and size in input pixels, objectness, classes; a raw file is decoded here."""
        if "levels" not in self.output:
            return outputs[0]
        levels = zip(outputs, self.output["levels"], strict=True)
        return np.concatenate([decode(*both, input_hw, self.output["max_log_ratio"]) for both in levels], axis=1)

    def in_image(self, found: Array, image_hw: tuple[int, ...], scale_xy: tuple[float, float]) -> Array:
        """Rows (N, 6) with boxes in network-input pixels, scaled to the image and clipped to it."""
        boxes = np.clip(found[:, :4] / np.tile(scale_xy, 2), 0, np.tile(image_hw[::-1], 2))
        return np.concatenate([boxes, found[:, 4:]], axis=1)[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]


def crop(image: Array, side: int) -> Array:
    """The middle of an image, at most side pixels high and wide."""
    top, left = (max(0, edge - side) // 2 for edge in image.shape[:2])
    return image[top : top + side, left : left + side]


def decode(raw: Array, level: dict, input_hw: tuple[int, ...], max_log_ratio: float) -> Array:
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


def suppress(predictions: Array, conf: float, iou: float) -> Array:
    """Reduce (P, 5 + K) to (N, 6): of two boxes of a class that overlap by more than iou, the better one stays."""
    predictions = predictions[predictions[:, 4] > conf]
    scores = predictions[:, 5:] * predictions[:, 4:5]
    labels, scores = scores.argmax(axis=1), scores.max(axis=1)
    sizes, corners = predictions[:, 2:4], predictions[:, :2] - predictions[:, 2:4] / 2
    offsets = labels[:, None] * (2 * np.abs(predictions[:, :4]).sum(axis=1).max(initial=0))  # classes side by side
    kept = cv2.dnn.NMSBoxes(np.column_stack([corners + offsets, sizes]).tolist(), scores.tolist(), conf, iou)
    return np.column_stack([corners, corners + sizes, scores, labels])[np.array(kept, int)].astype(np.float32)


def show(*values: object) -> None:
    """Print a line; after the pipe is closed (`| head -1`) the program goes on without printing."""
    try:
        print(*values, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> None:
    parser = argparse.ArgumentParser(description="Run an exported model on images.")
    parser.add_argument("model")
    parser.add_argument("images", nargs="+")
    parser.add_argument("--conf", type=float, default=0.25, help="minimum score (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="folder for images with the boxes drawn into them")
    model = OnnxModel((args := parser.parse_args()).model)
    for path in args.images:
        if (image := cv2.imread(path, cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR)) is None:
            print(f"{path}: cannot be read", file=sys.stderr)
        elif model.is_classifier:
            scores = model.classify(image)
            show(path, *(f"{model.names[index]} {scores[index]:.3f}" for index in np.argsort(-scores)[:5]))
        else:
            for *box, score, label in model.detect(image := model.as_bytes(image), args.conf):
                show(path, model.names[int(label)], f"{score:.3f}", *(f"{value:.1f}" for value in box))
                corners = np.rint(box).astype(int).tolist()
                cv2.rectangle(image, corners[:2], corners[2:], (0, 0, 255), 2)
            if args.out:
                args.out.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(args.out / Path(path).name), image)


if __name__ == "__main__":
    main()
