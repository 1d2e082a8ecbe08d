"""Time of drawing a scene for pretraining, against decoding a JPEG file of the same size.

python benchmarks/scenes.py [--sizes 224 320 640] [--scenes 50] [--rounds 6] [--images FOLDER]

The JPEG files are the scenes themselves, or photographs of a folder, resized to the scenes' size; quality 95. Each
process draws its sprites once; scenes are timed after the first 3,000.
"""

from __future__ import annotations

import argparse
import itertools
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from timing import alternate

from detect.cli.parser import positive_int
from detect.data.images import IMAGE_SUFFIXES
from detect.data.scenes.scene import draw_scene
from detect.runtime.cli import run_tool

WARM_UP = 3000
"""Scenes that are not timed."""


def draw(side: int, indices: itertools.count[int], count: int) -> None:
    """Draw the next scenes of the stream."""
    for _ in range(count):
        draw_scene(side, 0, next(indices))


def decode(files: list[np.ndarray]) -> None:
    for file in files:
        cv2.imdecode(file, cv2.IMREAD_COLOR)


def encoded(images: list[np.ndarray], side: int) -> list[np.ndarray]:
    resized = [cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA) for image in images]
    return [cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1] for image in resized]


def photographs(folder: Path, count: int) -> list[np.ndarray]:
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    images = [cv2.imread(str(path)) for path in paths[:count]]
    return [image for image in images if image is not None]


def main() -> None:
    parser = argparse.ArgumentParser(description="drawing a scene against decoding a JPEG file")
    parser.add_argument("--sizes", type=positive_int, nargs="+", default=[224, 320, 640])
    parser.add_argument("--scenes", type=positive_int, default=50, help="of each measurement")
    parser.add_argument("--rounds", type=positive_int, default=6)
    parser.add_argument("--images", type=Path, metavar="DIR", help="photographs, to be decoded instead of the scenes")
    arguments = parser.parse_args()
    cv2.setNumThreads(0)
    print(f"{'size':>6}{'scene':>10}{'decode':>10}{'ratio':>8}   CPU ms, median of {arguments.rounds} rounds")
    for side in arguments.sizes:
        scenes = [draw_scene(side, 1, index).image_rgb for index in range(arguments.scenes)]
        images = photographs(arguments.images, arguments.scenes) if arguments.images else scenes
        files = encoded(images, side)
        indices = itertools.count()
        draw(side, indices, WARM_UP)
        drawing = partial(draw, side, indices, arguments.scenes)
        seconds = alternate({"draw": drawing, "decode": partial(decode, files)}, arguments.rounds)
        per_scene, per_file = 1000 * seconds["draw"] / arguments.scenes, 1000 * seconds["decode"] / len(files)
        print(f"{side:>6}{per_scene:>10.2f}{per_file:>10.2f}{per_scene / per_file:>8.2f}")


if __name__ == "__main__":
    run_tool(main)
