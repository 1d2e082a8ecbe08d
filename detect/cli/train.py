"""Train a detector or a classifier: the model's head decides.

detect train --data my-folder --image-size 320
detect train --run bccd-detect-n --data-root data/bccd
detect train model=yolov5n-spd data=my-folder epochs=50 optimizer.lr=0.01
detect train --model resnet18-spd --data cifar10 --image-size 32
torchrun --nproc-per-node 4 -m detect train --model yolov5s-spd --data coco --data-root FOLDER --batch-size 64

Any key of the recipe is KEY=VALUE; detect config explains the keys.
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING

from detect.cli.output import print_json, print_lines
from detect.cli.parser import THREADS_HELP, add_json, non_negative_int, positive_int
from detect.errors import InputError
from detect.runtime.logs import LOGGER
from detect.runtime.startup import heavy_imports

if TYPE_CHECKING:
    from detect.training.settings import RunRequest

AP_OF_ZERO = (
    "an AP of 0 is nearly always too few updates (more --epochs), boxes beside their objects (detect data view), or "
    "objects of a few pixels (detect data stats; a larger --image-size, or tiles)"
)
"""Hint after a training of a detector that finds nothing."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``detect train``."""
    add = parser.add_argument
    add("--run", metavar="FILE", help="experiment: a file, or the name of one in configs/runs")
    add(
        "--model",
        metavar="NAME|FILE",
        help="a model, a YAML, or parts: cspdarknet53+efm+spd (detect models lists them; default: that of --weights, "
        "or detect-n)",
    )
    add("--data", metavar="NAME|FILE", help="data set's name or YAML, or its folder")
    add(
        "--recipe",
        metavar="NAME|FILE",
        help="recipe's name or YAML (default: fine-tune from weights, default from scratch; for classifiers: classify)",
    )
    add(
        "--weights",
        metavar="FILE|NAME",
        help="checkpoint to start from; what fits is copied, classes by name, strides as space-to-depth; none: "
        "from scratch (default: the shipped start-MODEL, if there is one)",
    )
    add("--epochs", type=positive_int, metavar="N", help="length of the training, in passes over its images")
    add("--minutes", type=float, metavar="M", help="choose the epochs so that the training takes M minutes here")
    add("--batch-size", type=positive_int, metavar="B", help="images, over all processes")
    add("--image-size", type=positive_int, metavar="S", help="side of the square input in pixels")
    add("--device", default="auto", metavar="D", help="auto, cpu, cuda, cuda:N, mps (default: auto)")
    add("--workers", type=non_negative_int, metavar="N", help="processes that load data, for each one that trains")
    add("--threads", type=non_negative_int, metavar="N", help=THREADS_HELP)
    add("--seed", type=non_negative_int, metavar="N", help="of everything random (default: the recipe's)")
    add("--data-root", metavar="DIR", help="where the data set is, instead of what its YAML says")
    add("--out", metavar="DIR", help="folder of the run (default: a new one in runs/)")
    add(
        "--resume",
        nargs="?",
        const=True,
        default=False,
        choices=("anyway",),
        help="continue the run in --out; anyway: although its images or boxes have changed",
    )
    add(
        "--logger",
        nargs="+",
        choices=("tensorboard", "mlflow", "wandb", "none"),
        metavar="NAME",
        help="tensorboard, mlflow, wandb: one or several, or none (default: tensorboard)",
    )
    add("--strict", action="store_true", help="refuse damaged images and boxes instead of skipping them")
    add("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="recipe keys, dotted")
    add_json(parser, "the folder and the metrics of best.pt")


def run(args: argparse.Namespace) -> None:
    """Train, print metrics and folder."""
    with heavy_imports():
        from detect.api.training import run_training
        from detect.runtime.distributed import init_distributed, is_main_process
    with init_distributed():
        result = run_training(request_from_args(args))
        if not is_main_process():
            return
    scores = ", ".join(f"{name} {value:.3f}" for name, value in list(result.metrics.items())[:6])
    lines = (
        f"best.pt on the validation split: {scores}",
        f"{result.out}: best.pt, last.pt, results.csv, config.yaml, pictures",
    )
    print_lines(lines, is_json=args.json)
    if result.metrics.get("AP") == 0:
        LOGGER.warning(AP_OF_ZERO)
    if args.json:
        print_json({"out": str(result.out), "metrics": result.metrics})


def request_from_args(args: argparse.Namespace) -> RunRequest:
    """Convert the parsed command line; a recipe key that is given twice raises ``InputError``."""
    from detect.config.yaml_files import parse_overrides
    from detect.training.settings import RECIPE_FLAGS, RunRequest

    keys = {key: getattr(args, key) for key in RECIPE_FLAGS if getattr(args, key) is not None}
    names = [one.name for one in dataclasses.fields(RunRequest) if one.name not in ("keys", "overrides")]
    given, overrides = {name: getattr(args, name) for name in names}, parse_overrides(args.set)
    if twice := next((key for key in keys if key in overrides), None):
        flag = f"--{twice.replace('_', '-')}"
        raise InputError(f"--set {twice}={overrides[twice]}: {flag} is there as well; give one of the two")
    return RunRequest(**given, keys=keys, overrides=overrides)
