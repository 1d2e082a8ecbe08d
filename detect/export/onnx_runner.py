"""Run a model that `detect` exported, with numpy, onnxruntime and opencv alone: an example to use and to change.

    python onnx_runner.py model.onnx photo.jpg --out drawn

What is done to an image, and what the outputs mean, is in the file's metadata; the constants are read from there.
Boxes are left, top, right, bottom in pixels of the image that was given.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

Array = np.ndarray


class OnnxModel:
    """An exported detector or classifier; images are (H, W, 3) uint8 in BGR order, as cv2.imread gives them."""

    def __init__(self, path: str | bytes, providers: tuple[str, ...] = ("CPUExecutionProvider",)) -> None:
        self.session = onnxruntime.InferenceSession(path, providers=list(providers))
        if (says := self.session.get_modelmeta().custom_metadata_map).get("format") != "detect-onnx-1":
            raise ValueError("the file is not of format detect-onnx-1")
        self.is_classifier = says["task"] == "classification"
        self.names = json.loads(says["names"])
        self.image_size, self.stride = int(says["image_size"]), int(says["stride"])
        self.preprocessing, self.output = json.loads(says["preprocessing"]), json.loads(says["output"])
        sides = self.session.get_inputs()[0].shape
        self.fixed_hw = tuple(sides[2:]) if isinstance(sides[2], int) else None

    def detect(self, image: Array, conf: float = 0.25, iou: float = 0.6, max_det: int = 300) -> Array:
        """(N, 6): box, score, class index, best first. A file with suppression inside has the last two built in."""
        scaled, scale_xy = self.scaled(image)
        outputs = self.session.run(None, {"images": (tensor := self.network_input([scaled]))})
        if self.output["non_maximum_suppression"] == "applied":
            found = outputs[0][0, : outputs[1][0]]
            found = found[found[:, 4] > conf]
        else:
            found = suppress(self.decoded(outputs, tensor.shape[2:])[0], conf, iou)[:max_det]
        return self.in_image(found, image.shape[:2], scale_xy)

    def classify(self, image: Array) -> Array:
        """(K,) the probability of each class."""
        return self.session.run(None, {"images": self.network_input([self.middle(image)])})[0][0]

    def scaled(self, image: Array) -> tuple[Array, tuple[float, float]]:
        """The image with its long side brought to image_size, and the factors for x and y."""
        factor = self.image_size / max(image.shape[:2])
        new_hw = tuple(max(1, round(edge * factor)) for edge in image.shape[:2])
        return self.resized(image, new_hw), (new_hw[1] / image.shape[1], new_hw[0] / image.shape[0])

    def middle(self, image: Array) -> Array:
        """The square in the middle that a classifier looks at."""
        side, short = self.preprocessing["resize_short_side"], min(image.shape[:2])
        image = cut(image, self.preprocessing["max_aspect"] * short)
        image = self.resized(image, tuple(round(edge * side / short) for edge in image.shape[:2]))
        return cut(image, self.image_size)

    def resized(self, image: Array, new_hw: tuple[int, ...]) -> Array:
        """Averaging over areas when it shrinks, linear when it grows."""
        shrinks = new_hw[0] * new_hw[1] < image.shape[0] * image.shape[1]
        how = self.preprocessing["interpolation_smaller" if shrinks else "interpolation_larger"]
        return cv2.resize(image, new_hw[::-1], interpolation=getattr(cv2, how))

    def network_input(self, images: list[Array]) -> Array:
        """(B, 3, H, W) float32 in [0, 1], RGB: each image in the top left corner, grey right of it and below."""
        longest = np.max([image.shape[:2] for image in images], axis=0)
        hw = self.fixed_hw or tuple(-(-longest // self.stride) * self.stride)
        batch = np.full((len(images), *hw, 3), self.preprocessing.get("pad_value", 0), np.uint8)
        for place, image in zip(batch, images, strict=True):
            place[: image.shape[0], : image.shape[1]] = image
        return np.ascontiguousarray(batch[..., ::-1].transpose(0, 3, 1, 2), np.float32) / np.float32(255)

    def decoded(self, outputs: list[Array], input_hw: tuple[int, ...]) -> Array:
        """(B, P, 5 + K): box centre and size in input pixels, objectness, classes; of a raw file they are made here."""
        if "levels" not in self.output:
            return outputs[0]
        levels = zip(outputs, self.output["levels"], strict=True)
        return np.concatenate([decode(*both, input_hw, self.output["max_log_ratio"]) for both in levels], axis=1)

    def in_image(self, found: Array, image_hw: tuple[int, ...], scale_xy: tuple[float, float]) -> Array:
        """Rows (N, 6) whose boxes are in pixels of the network input, brought back to the image and clipped to it."""
        boxes = np.clip(found[:, :4] / np.tile(scale_xy, 2), 0, np.tile(image_hw[::-1], 2))
        return np.concatenate([boxes, found[:, 4:]], axis=1)[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]


def cut(image: Array, most: int) -> Array:
    """The middle of an image, at most so many pixels high and wide."""
    top, left = (max(0, edge - most) // 2 for edge in image.shape[:2])
    return image[top : top + most, left : left + most]


def decode(raw: Array, level: dict, input_hw: tuple[int, ...], most: float) -> Array:
    """A level (B, A * (5 + K), h, w) of a raw file to (B, A * h * w, 5 + K)."""
    anchors, (height, width) = np.array(level["anchors_px"], np.float32)[:, None, None], raw.shape[2:]
    raw = raw.reshape(len(raw), len(anchors), -1, height, width).transpose(0, 1, 3, 4, 2)
    rows = (1 + np.tanh(raw / 2)) / 2  # sigmoid
    cells = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=2)  # (h, w, 2): column, row
    cell_px = input_hw[1] / width, input_hw[0] / height
    rows[..., :2] = (level["xy_scale"] * (rows[..., :2] - 0.5) + 0.5 + cells) * cell_px
    ratios = (2 * rows[..., 2:4]) ** 2 if level["sizes"] == "square" else np.exp(np.clip(raw[..., 2:4], None, most))
    rows[..., 2:4] = ratios * anchors
    return rows.reshape(len(rows), -1, rows.shape[4])


def suppress(predictions: Array, conf: float, iou: float) -> Array:
    """(P, 5 + K) to (N, 6): of two boxes of a class that overlap by more than iou, the better one stays."""
    predictions = predictions[predictions[:, 4] > conf]
    scores = predictions[:, 5:] * predictions[:, 4:5]
    labels, scores = scores.argmax(axis=1), scores.max(axis=1)
    sizes, corners = predictions[:, 2:4], predictions[:, :2] - predictions[:, 2:4] / 2
    apart = labels[:, None] * (2 * np.abs(predictions[:, :4]).sum(axis=1).max(initial=0))  # classes side by side
    kept = cv2.dnn.NMSBoxes(np.column_stack([corners + apart, sizes]).tolist(), scores.tolist(), conf, iou)
    return np.column_stack([corners, corners + sizes, scores, labels])[np.array(kept, int)].astype(np.float32)


def main() -> None:
    """Print what is in each image."""
    parser = argparse.ArgumentParser(description="Run an exported model on images.")
    parser.add_argument("model")
    parser.add_argument("images", nargs="+")
    parser.add_argument("--conf", type=float, default=0.25, help="least score (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="folder for images with the boxes drawn into them")
    args = parser.parse_args()
    model = OnnxModel(args.model)
    names = [name if name.isprintable() else ascii(name)[1:-1] for name in model.names]  # none steers the terminal
    for path in args.images:
        image = cv2.imread(path)
        if image is None:
            print(f"{path}: cannot be read", file=sys.stderr)
        elif model.is_classifier:
            chances = model.classify(image)
            print(path, *(f"{names[index]} {chances[index]:.3f}" for index in np.argsort(-chances)[:5]))
        else:
            for *box, score, label in model.detect(image, args.conf):
                print(path, names[int(label)], f"{score:.3f}", *(f"{value:.1f}" for value in box))
                cv2.rectangle(image, [round(v) for v in box[:2]], [round(v) for v in box[2:]], (0, 0, 255), 2)
            if args.out:
                args.out.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(args.out / Path(path).name), image)


if __name__ == "__main__":
    main()
