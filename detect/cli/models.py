"""List the shipped models, backbones, necks and heads, a line each.

detect models
"""

from __future__ import annotations

import argparse

from detect.cli.output import print_json
from detect.runtime.startup import heavy_imports


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON: a mapping of names for each kind")


def run(args: argparse.Namespace) -> None:
    with heavy_imports():
        from detect.analysis.listing import listed, listing
    if args.json:
        print_json(listed())
    else:
        print(listing())
