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

FORMAT = "detect-onnx-1"
Array = np.ndarray


class OnnxModel:
    """An exported detector or classifier; images are (H, W, 3) uint8 in BGR order, as cv2.imread gives them."""

    def __init__(self, path: str | bytes, providers: tuple[str, ...] = ("CPUExecutionProvider",)) -> None:
        self.session = onnxruntime.InferenceSession(path, providers=list(providers))
        says = self.session.get_modelmeta().custom_metadata_map
        if says.get("format") != FORMAT:
            raise ValueError(f"the file is not of format {FORMAT}")
        self.is_classifier = says["task"] == "classification"
        self.names = json.loads(says["names"])
        self.image_size, self.stride = int(says["image_size"]), int(says["stride"])
        self.preprocessing, self.output = json.loads(says["preprocessing"]), json.loads(says["output"])
        sides = self.session.get_inputs()[0].shape
        self.fixed_hw = tuple(sides[2:]) if isinstance(sides[2], int) else None

    def detect(self, image: Array, conf: float = 0.25, iou: float = 0.6, max_det: int = 300) -> Array:
        """(N, 6): box, score, class index, best first. A file with suppression inside has the last two built in."""
        scaled, scale_xy = self.scaled(image)
        outputs = self.session.run(None, {"images": self.network_input([scaled])})
        if self.output["non_maximum_suppression"] == "applied":
            found = outputs[0][0, : outputs[1][0]]
            found = found[found[:, 4] > conf]
        else:
            found = suppress(outputs[0][0], conf, iou)[:max_det]
        return self.in_image(found, image.shape[:2], scale_xy)

    def classify(self, image: Array) -> Array:
        """(K,) the probability of each class."""
        return self.session.run(None, {"images": self.network_input([self.middle(image)])})[0][0]

    def scaled(self, image: Array) -> tuple[Array, tuple[float, float]]:
        """The image with its long side brought to image_size, and the factors for x and y."""
        height, width = image.shape[:2]
        factor = self.image_size / max(height, width)
        new_hw = max(1, round(height * factor)), max(1, round(width * factor))
        return self.resized(image, new_hw), (new_hw[1] / width, new_hw[0] / height)

    def middle(self, image: Array) -> Array:
        """The square in the middle that a classifier looks at."""
        longest = self.preprocessing["max_aspect"] * min(image.shape[:2])
        image = cut(image, min(image.shape[0], longest), min(image.shape[1], longest))
        height, width = image.shape[:2]
        side, short = self.preprocessing["resize_short_side"], min(height, width)
        image = self.resized(image, (round(height * side / short), round(width * side / short)))
        return cut(image, self.image_size, self.image_size)

    def resized(self, image: Array, new_hw: tuple[int, int]) -> Array:
        """Averaging over areas when it shrinks, linear when it grows; the same image if it stays."""
        if new_hw == image.shape[:2]:
            return image
        shrinks = new_hw[0] * new_hw[1] < image.shape[0] * image.shape[1]
        how = self.preprocessing["interpolation_smaller" if shrinks else "interpolation_larger"]
        return cv2.resize(image, new_hw[::-1], interpolation=getattr(cv2, how))

    def network_input(self, images: list[Array]) -> Array:
        """(B, 3, H, W) float32 in [0, 1], RGB: each image in the top left corner, grey right of it and below."""
        longest = [max(image.shape[axis] for image in images) for axis in (0, 1)]
        hw = self.fixed_hw or [-(-side // self.stride) * self.stride for side in longest]
        batch = np.full((len(images), *hw, 3), self.preprocessing.get("pad_value", 0), np.uint8)
        for place, image in zip(batch, images, strict=True):
            place[: image.shape[0], : image.shape[1]] = image
        return np.ascontiguousarray(batch[..., ::-1].transpose(0, 3, 1, 2), np.float32) / np.float32(255)

    def in_image(self, found: Array, image_hw: tuple[int, ...], scale_xy: tuple[float, float]) -> Array:
        """Rows (N, 6) whose boxes are in pixels of the network input, brought back to the image and clipped to it."""
        boxes = np.clip(found[:, :4] / np.tile(scale_xy, 2), 0, np.tile(image_hw[::-1], 2))
        rows = np.concatenate([boxes, found[:, 4:]], axis=1)
        return rows[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]


def cut(image: Array, height: int, width: int) -> Array:
    """The middle of an image."""
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def suppress(predictions: Array, conf: float, iou: float) -> Array:
    """(P, 5 + K) to (N, 6): of two boxes of a class that overlap by more than iou, the better one stays."""
    predictions = predictions[predictions[:, 4] > conf]
    scores = predictions[:, 5:] * predictions[:, 4:5]
    labels, scores = scores.argmax(axis=1), scores.max(axis=1)
    halves = predictions[:, 2:4] / 2
    boxes = np.concatenate([predictions[:, :2] - halves, predictions[:, :2] + halves], axis=1)
    order, kept = np.argsort(-scores, kind="stable"), []
    order = order[scores[order] > conf]
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(best)
        left_top = np.maximum(boxes[best, :2], boxes[rest, :2])
        right_bottom = np.minimum(boxes[best, 2:], boxes[rest, 2:])
        shared = np.clip(right_bottom - left_top, 0, None).prod(axis=1)
        overlap = shared / (areas[best] + areas[rest] - shared)
        order = rest[(labels[rest] != labels[best]) | (overlap <= iou)]
    return np.concatenate([boxes, scores[:, None], labels[:, None].astype(boxes.dtype)], axis=1)[kept]


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
                left, top, right, bottom = (round(value) for value in box)
                cv2.rectangle(image, (left, top), (right, bottom), (0, 0, 255), 2)
            if args.out:
                args.out.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(args.out / Path(path).name), image)


if __name__ == "__main__":
    main()
