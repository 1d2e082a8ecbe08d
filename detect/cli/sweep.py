"""Search a recipe's settings at random: train many times, each time with other values, and compare.

detect sweep --space resnet18-spd-search --data-root data/tiny-imagenet-200 --devices cuda:0 cuda:1
detect sweep --out runs/resnet18-spd-search --resume --devices cuda:0
"""

from __future__ import annotations

import argparse
import shlex

from detect.cli.output import print_lines
from detect.cli.parser import positive_int
from detect.runtime.startup import heavy_imports


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``detect sweep``."""
    add = parser.add_argument
    add("--space", metavar="NAME|FILE", help="search to run: a file, or the name of one in configs/sweeps")
    add("--out", metavar="DIR", help="folder of the sweep (default: runs/NAME)")
    add("--devices", nargs="+", default=["auto"], metavar="D", help="a trial at a time on each: cuda:0 cuda:1, cpu cpu")
    add("--trials", type=positive_int, metavar="N", help="how many trainings, instead of what the YAML says")
    add("--data-root", metavar="DIR", help="where the data set is, instead of what its YAML says")
    add("--resume", action="store_true", help="continue the sweep in the folder, or help with it on other devices")


def run(args: argparse.Namespace) -> None:
    """Search, then print the best trial and the places of the outputs."""
    with heavy_imports():
        from detect.runtime.device import select_device
        from detect.runtime.logs import LOGGER
        from detect.runtime.trainings import TRAIN
        from detect.sweep.ledger import Ledger
        from detect.sweep.plan import make_plan
        from detect.sweep.report import conclude, write_csv
        from detect.sweep.trials import Search
    for device in args.devices:
        select_device(device)  # report a mistake before the first trial
    plan = make_plan(args.space, args.out, args.trials, args.data_root, args.resume)
    ledger = Ledger(plan.folder, plan.space, plan.config.seed, plan.config.sampler)
    metric, table = plan.config.metric, plan.folder / "trials.csv"
    search = Search(plan, ledger, TRAIN, lambda: write_csv(table, ledger.trials(), plan.space, metric))
    try:
        search.run(args.devices)
    except KeyboardInterrupt:
        again = ["--out", str(plan.folder), "--resume", "--devices", *args.devices]
        LOGGER.warning("to go on: detect sweep %s", shlex.join(again))
        raise
    print_lines(conclude(plan, ledger))
