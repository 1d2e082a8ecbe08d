"""Compare trainings that differ in a few settings, each with several seeds, in one table.

detect ablate starts-bccd --data-root BCCD_Dataset/BCCD --jobs 2
detect ablate my-comparison.yaml --out runs/my-comparison

The same command goes on after an interruption, and trains what has been added to the file. A training that fails does
not stop the others; the exit code is 1 then, 2 if none was finished, and the same command trains it again.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
import sys
from pathlib import Path

from detect.cli.output import print_lines
from detect.cli.parser import positive_int
from detect.runtime.startup import heavy_imports

SOME_FAILED = 1
"""Exit code where some trainings failed and others did not."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``detect ablate``."""
    add = parser.add_argument
    add("file", metavar="NAME|FILE", help="comparison: a file, or the name of one in configs/ablations")
    add("--out", metavar="DIR", help="folder of all trainings (default: runs/NAME)")
    add("--jobs", type=positive_int, default=1, metavar="N", help="trainings at a time (default: 1)")
    add("--device", default="auto", metavar="D", help="auto, cpu, cuda, cuda:N, mps (default: auto)")
    add("--data-root", metavar="DIR", help="where the data set is, instead of what its YAML says")


def run(args: argparse.Namespace) -> None:
    """Train what is missing, then print the table and the places of the outputs."""
    with heavy_imports():
        from detect.ablation.plan import plan_trainings
        from detect.ablation.report import RUNS_CSV, read_runs, write_outputs, write_runs
        from detect.ablation.running import Comparison
        from detect.config.ablation import load_ablation_config
        from detect.runtime.device import select_device
        from detect.runtime.logs import LOGGER
        from detect.runtime.trainings import Trainings
    select_device(args.device)  # report a mistake before the first training
    config = load_ablation_config(args.file)
    if args.data_root:
        root = os.path.abspath(args.data_root)
        config = dataclasses.replace(config, base={**config.base, "data_root": root})
    out = Path(args.out or f"runs/{config.name}")
    trainings = plan_trainings(config, out)
    out.mkdir(parents=True, exist_ok=True)

    def write_table() -> None:
        write_runs(out / RUNS_CSV, read_runs(trainings, config.metrics), config.metrics, {})

    try:
        failed = Comparison(trainings, args.device, Trainings(), write_table).run(args.jobs)
    except KeyboardInterrupt:
        LOGGER.warning("to go on: detect %s", shlex.join(sys.argv[1:]))
        raise
    print_lines(write_outputs(config, trainings, out))
    print_lines(f"{folder} failed: {problem}" for folder, problem in failed.items())
    if failed:
        sys.exit(SOME_FAILED)
