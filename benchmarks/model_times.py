"""Milliseconds of every shipped model and backbone, for the site's page of models.

python benchmarks/model_times.py [--rounds 3]

One image at the size and with the classes of that page; fp32, channels last, norms fused, one thread; median of the
rounds in processor time. It writes docs/results/model-times.csv.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import torch
from timing import alternate

from detect.analysis.listing import listed
from detect.analysis.profile import conditions_of
from detect.cli.parser import positive_int
from detect.models.build import build_classifier, build_model
from detect.models.catalog import find_definition
from detect.models.model import fuse_conv_bn
from detect.runtime.cli import run_tool
from detect.runtime.files import atomic_path

OUT = Path(__file__).parents[1] / "docs" / "results" / "model-times.csv"


def seconds_of(name: str, rounds: int) -> float:
    """Return the processor seconds of a forward pass with random weights, which cost as much as trained ones."""
    side, num_classes = conditions_of(name)
    build = build_classifier if find_definition(name).is_classifier else build_model
    network = fuse_conv_bn(build(name, num_classes).eval()).to(memory_format=torch.channels_last)
    image = torch.rand(1, 3, side, side).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        return alternate({name: lambda: network(image)}, rounds)[name]


def main() -> None:
    parser = argparse.ArgumentParser(description="milliseconds of every shipped model and backbone")
    parser.add_argument("--rounds", type=positive_int, default=3)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    rows = []
    groups = listed()
    for name in (*groups["models"], *groups["backbones"]):
        rows.append((name, f"{float(f'{1000 * seconds_of(name, rounds):.3g}'):g}"))
        print(*rows[-1], flush=True)
    with atomic_path(OUT) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([("model", "ms"), *rows])


if __name__ == "__main__":
    run_tool(main)
