"""Print a model's graph and its cost: parameters, multiply-adds, memory, memory traffic, bytes, bottleneck.

detect describe --model yolov5n-spd
detect describe --model peleenet csppeleenet --num-classes 1000 --image-size 224 --layers
detect describe --model cspdarknet53+fpn+spd --picture costs.png
detect describe --weights best.pt
detect describe --list
"""

from __future__ import annotations

import argparse
from pathlib import Path

from detect.cli.output import print_json
from detect.cli.parser import positive_int
from detect.errors import InputError
from detect.runtime.startup import heavy_imports

DEFAULT_SIZE, DEFAULT_CLASSES = 640, 80


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--model", nargs="+", metavar="NAME|FILE", help="shipped models, backbones, combined parts, or YAML files"
    )
    what.add_argument("--weights", type=Path, metavar="FILE|NAME", help="the network of a checkpoint")
    what.add_argument("--list", action="store_true", help="print the shipped models, backbones, necks and heads")
    add = parser.add_argument
    add(
        "--image-size",
        type=positive_int,
        metavar="S",
        help="side of the square input, pixels (default: 640, of a checkpoint as trained)",
    )
    add("--num-classes", type=positive_int, metavar="K", help="with --model (default: 80)")
    add("--layers", action="store_true", help="print every convolution, linear layer and pool")
    add("--json", action="store_true", help="print JSON; a list where there are several models")
    add("--picture", type=Path, metavar="FILE.png", help="draw the BFLOPs of each layer")


def run(args: argparse.Namespace) -> None:
    if args.list:
        from detect.cli import models

        models.run(args)
        return
    with heavy_imports():
        from detect.analysis.profile import profile_checkpoint, profile_with_file
        from detect.analysis.report import draw_costs, profiles_text
        from detect.models.catalog import shipped_weights
    if args.weights and args.num_classes is not None:
        raise InputError("--num-classes: belongs to --model; a checkpoint has its own classes")
    if args.weights:
        path = shipped_weights().get(str(args.weights), args.weights)
        profiles = [profile_checkpoint(path, args.image_size)]
    else:
        size, num_classes = args.image_size or DEFAULT_SIZE, args.num_classes or DEFAULT_CLASSES
        profiles = [profile_with_file(name, size, num_classes) for name in args.model]
    if args.picture:
        draw_costs(args.picture, profiles)
    if args.json:
        plain = [profile.to_plain() for profile in profiles]
        print_json(plain if len(plain) > 1 else plain[0])
    else:
        print(profiles_text(profiles, args.layers))
