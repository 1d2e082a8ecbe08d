"""Throughput of training images of 32 x 32 pixels, against torchvision's transforms on images in memory.

python benchmarks/class_loader.py [--images FOLDER] [--count 6400] [--batch-size 128] [--rounds 5]

One process, one thread, no workers, in turn; CPU times of this process. Both sides end with a float batch
(B, 3, 32, 32) in [0, 1] on the CPU, ours channels-last, as training takes it. torchvision's side is what its CIFAR-10
class does: a Pillow image from an array, transforms, ``ToTensor``, PyTorch's ``DataLoader``. Its transforms are the
nearest to ours, not the same pixels.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from timing import alternate
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from detect.config.augment import ClassAugmentConfig
from detect.config.recipe import ClassificationRecipe
from detect.data.annotations import encode_paths
from detect.data.classification.geometry import center_crop
from detect.data.classification.loading import ClassTrainingLoader
from detect.data.classification.table import ClassTable
from detect.data.images import IMAGE_SUFFIXES, read_image
from detect.errors import InputError
from detect.runtime.cli import run_tool

S = 32
NUM_CLASSES = 10
GOAL = 5
"""Required speed-up."""

FLIP = transforms.RandomHorizontalFlip()
SETTINGS: dict[str, tuple[ClassAugmentConfig, list[Callable]]] = {
    "pad 4, flip": (ClassAugmentConfig(crop="pad"), [transforms.RandomCrop(S, padding=4), FLIP]),
    "resize 32 to 40, flip": (
        ClassAugmentConfig(crop="resize", resize_px=(32, 40)),
        [transforms.RandomChoice([transforms.Resize(side) for side in range(32, 41)]), transforms.RandomCrop(S), FLIP],
    ),
    "area, flip": (ClassAugmentConfig(crop="area"), [transforms.RandomResizedCrop(S), FLIP]),
    "pad 4, flip, colour": (
        ClassAugmentConfig(crop="pad", brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1),
        [transforms.RandomCrop(S, padding=4), FLIP, transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)],
    ),
}


class ArrayImages(Dataset[tuple[torch.Tensor, int]]):
    """Images in memory, with transforms, as torchvision's CIFAR-10 has them.

    Args:
        pixels: (N, S, S, 3) uint8.
        labels: (N,) class index.
        transform: from a Pillow image to a tensor.
    """

    def __init__(self, pixels: np.ndarray, labels: np.ndarray, transform: Callable) -> None:
        self.pixels = pixels
        self.labels = labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.pixels[row])), self.labels[row]


def pixels_of(folder: Path | None, count: int) -> np.ndarray:
    """(count, S, S, 3) uint8: the images of a folder, repeated, or random pixels."""
    if folder is None:
        return np.random.default_rng(0).integers(256, size=(count, S, S, 3), dtype=np.uint8)
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)[:count]
    if not paths:
        raise InputError(f"{folder}: has no images")
    images = np.stack([center_crop(read_image(path), S, 1.0) for path in paths])
    return images[np.arange(count) % len(images)]


def ours(table: ClassTable, augment: ClassAugmentConfig, batch_size: int) -> Callable[[], None]:
    """One epoch of our loader."""
    recipe = ClassificationRecipe(batch_size=batch_size, image_size=S, workers=0, cache="ram", augment=augment)
    loader = ClassTrainingLoader(table, recipe)

    def run() -> None:
        for batch in loader.epoch(0):
            images = batch.images.permute(0, 3, 1, 2).float().div_(255)
        assert images.shape == (batch_size, 3, S, S)

    return run


def torchvisions(table: ClassTable, steps: list[Callable], batch_size: int) -> Callable[[], None]:
    """One epoch of PyTorch's loader with torchvision's transforms."""
    assert table.pixels is not None
    dataset = ArrayImages(table.pixels, table.labels, transforms.Compose([*steps, transforms.ToTensor()]))
    loader = DataLoader(dataset, batch_size=batch_size, shuffle=True, drop_last=True, num_workers=0)

    def run() -> None:
        for images, _ in loader:
            assert images.shape == (batch_size, 3, S, S)

    return run


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="speed of the classification loader against torchvision")
    parser.add_argument("--images", type=Path, help="folder that is searched for images; default, random pixels")
    parser.add_argument("--count", type=int, default=6400, help="images per round")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    pixels = pixels_of(arguments.images, max(arguments.count, arguments.batch_size))
    labels = np.random.default_rng(1).integers(NUM_CLASSES, size=len(pixels))
    paths = encode_paths([Path(f"images#{row}") for row in range(len(pixels))])
    table = ClassTable(paths, labels, tuple(str(k) for k in range(NUM_CLASSES)), pixels)
    num_images = len(pixels) // arguments.batch_size * arguments.batch_size
    print(f"{num_images} images of {S} x {S}, batches of {arguments.batch_size}, 1 thread; images per second")
    print(f"  {'':<22} {'ours':>9} {'torchvision':>12} {'ratio':>6}")
    for name, (augment, steps) in SETTINGS.items():
        runs = {
            "ours": ours(table, augment, arguments.batch_size),
            "torchvision": torchvisions(table, steps, arguments.batch_size),
        }
        rates = {side: num_images / seconds for side, seconds in alternate(runs, arguments.rounds).items()}
        ratio = rates["ours"] / rates["torchvision"]
        verdict = "reached" if ratio >= GOAL else "not reached"
        print(f"  {name:<22} {rates['ours']:9.0f} {rates['torchvision']:12.0f} {ratio:6.1f}  goal of {GOAL} {verdict}")


if __name__ == "__main__":
    run_tool(main)
