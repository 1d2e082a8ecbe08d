"""Print a model's graph and its cost: parameters, multiply-adds, memory, memory traffic, bytes, bottleneck.

detect describe --model yolov5n-spd
detect describe --model peleenet csppeleenet --num-classes 1000 --image-size 224 --layers
detect describe --model cspdarknet53+fpn+spd --picture costs.png
detect describe --list
"""

from __future__ import annotations

import argparse
from pathlib import Path

from detect.cli.output import print_json
from detect.cli.parser import positive_int
from detect.runtime.startup import heavy_imports


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--model", nargs="+", metavar="NAME|FILE", help="shipped models, backbones, combined parts, or YAML files"
    )
    what.add_argument("--list", action="store_true", help="print the shipped models, backbones, necks and heads")
    add = parser.add_argument
    add("--image-size", type=positive_int, default=640, metavar="S", help="side of the square input, pixels")
    add("--num-classes", type=positive_int, default=80, metavar="K")
    add("--layers", action="store_true", help="print every convolution, linear layer and pool")
    add("--json", action="store_true", help="print JSON; a list where there are several models")
    add("--picture", type=Path, metavar="FILE.png", help="draw the BFLOPs of each layer")


def run(args: argparse.Namespace) -> None:
    if args.list:
        from detect.cli import models

        models.run(args)
        return
    with heavy_imports():
        from detect.analysis.profile import profile_with_file
        from detect.analysis.report import draw_costs, profiles_text
    profiles = [profile_with_file(name, args.image_size, args.num_classes) for name in args.model]
    if args.picture:
        draw_costs(args.picture, profiles)
    if args.json:
        plain = [profile.to_plain() for profile in profiles]
        print_json(plain if len(plain) > 1 else plain[0])
    else:
        print(profiles_text(profiles, args.layers))
