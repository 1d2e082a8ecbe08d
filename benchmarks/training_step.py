"""Time of a training step, plain and as the training here runs it.

python benchmarks/training_step.py [--models yolov5n yolov5n-spd yolov5n-matched] [--image-size 320] [--batch-size 8]
                                   [--optimizers sgd adamw muon] [--rounds 5] [--threads 1]

Forward, loss, backward, clipping and update with the schema's default recipe, on random images with seven boxes each:
float32 with NCHW memory against bf16 with channels-last memory. *sliced* is the latter with every space-to-depth
between layers carried out instead of left to the next convolution. All ways of all models are timed in turn.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable

import torch
from timing import alternate
from torch import Tensor, nn

from detect.cli.parser import positive_int
from detect.config.base import build
from detect.config.recipe import DetectionRecipe
from detect.data.letterbox import STRIDE
from detect.errors import InputError
from detect.losses.detection import detection_loss
from detect.models.build import build_model
from detect.models.model import DetectionModel
from detect.runtime.cli import run_tool
from detect.runtime.device import Precision, autocast
from detect.structures import Targets
from detect.training.epoch import quiet_denormals
from detect.training.optimizer import build_optimizer

NUM_CLASSES = 80
BOXES_PER_IMAGE = 7
"""As many as COCO has on average."""

WAYS: dict[str, tuple[Precision, torch.memory_format, bool]] = {
    "fp32 NCHW": ("fp32", torch.contiguous_format, False),
    "bf16 channels-last": ("bf16", torch.channels_last, False),
    "the same, sliced": ("bf16", torch.channels_last, True),
}
"""Name to number format, layout of images and weights, and whether space-to-depth is carried out."""


def random_batch(batch_size: int, image_size: int) -> tuple[Tensor, Targets]:
    """(B, 3, S, S) images in [0, 1], and boxes of 8 px to half the image."""
    num_boxes = batch_size * BOXES_PER_IMAGE
    sizes = 8 * (image_size / 16) ** torch.rand(num_boxes, 2)
    corners = torch.rand(num_boxes, 2) * (image_size - sizes)
    targets = Targets(
        image_index=torch.arange(batch_size).repeat_interleave(BOXES_PER_IMAGE),
        labels=torch.randint(NUM_CLASSES, (num_boxes,)),
        boxes_xyxy_px=torch.cat([corners, corners + sizes], dim=1),
    )
    return torch.rand(batch_size, 3, image_size, image_size), targets


def build_step(
    model: DetectionModel, way: str, optimizer_name: str, images: Tensor, targets: Targets
) -> Callable[[], None]:
    """One training step of the model, as a function without arguments."""
    precision, memory_format, sliced = WAYS[way]
    settings = {"batch_size": len(images), "image_size": images.shape[2], "optimizer": {"name": optimizer_name}}
    recipe = build(DetectionRecipe, settings, "benchmark")
    model = model.to(memory_format=memory_format).train()
    images = images.to(memory_format=memory_format)
    if sliced:
        model.graph._as_pieces = frozenset()
    loss = detection_loss(recipe.loss, model.head, recipe.image_size)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    optimizer = build_optimizer(model, recipe.optimizer, recipe.batch_size, dtype)

    def step() -> None:
        with autocast(precision, images.device):
            raw = model(images)
        total = loss(raw, targets).total * len(images)
        if not total.isfinite():
            raise RuntimeError("the loss is not finite, so that the times mean nothing")
        total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), recipe.optimizer.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="cost of a training step, plain and as training here runs it")
    parser.add_argument("--models", nargs="+", default=["yolov5n", "yolov5n-spd", "yolov5n-matched"], metavar="NAME")
    parser.add_argument("--image-size", type=positive_int, default=320)
    parser.add_argument("--batch-size", type=positive_int, default=8)
    parser.add_argument("--optimizers", nargs="+", choices=["sgd", "adamw", "muon"], default=["sgd"])
    parser.add_argument("--rounds", type=positive_int, default=5)
    parser.add_argument("--threads", type=positive_int, default=1)
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    if arguments.image_size % STRIDE:
        raise InputError(f"--image-size: must be a multiple of {STRIDE}, found {arguments.image_size}")
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    images, targets = random_batch(arguments.batch_size, arguments.image_size)
    steps: dict[tuple[str, str, str], Callable[[], None]] = {}
    for name, way, optimizer in itertools.product(arguments.models, WAYS, arguments.optimizers):
        model = build_model(name, NUM_CLASSES)
        if way != "the same, sliced" or model.graph._as_pieces:
            steps[name, way, optimizer] = build_step(model, way, optimizer, images, targets)
    with quiet_denormals():
        seconds = alternate(steps, arguments.rounds)

    first = next(iter(seconds.values()))
    print(
        f"{arguments.image_size} px, batch {arguments.batch_size}, {arguments.threads} thread(s), "
        f"median of {arguments.rounds}"
    )
    print(f"{'model':<24}{'way':<20}{'optimizer':<10}{'CPU s':>7}{'to its fp32':>13}{'to the first row':>18}")
    for (name, way, optimizer), value in seconds.items():
        own = seconds[name, "fp32 NCHW", optimizer]
        print(f"{name:<24}{way:<20}{optimizer:<10}{value:>7.3f}{value / own:>13.2f}{value / first:>18.2f}")


if __name__ == "__main__":
    run_tool(main)
