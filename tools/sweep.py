"""Search a recipe's settings at random: train many times, each time with other values, and compare.

python tools/sweep.py --space resnet18-spd-search --data-root data/tiny-imagenet-200 --devices cuda:0 cuda:1
python tools/sweep.py --out runs/resnet18-spd-search --resume --devices cuda:0
"""

from __future__ import annotations

from detect.runtime.startup import start_tool

if __name__ == "__main__":
    start_tool()  # before the imports, which take seconds

import argparse
import shlex
from pathlib import Path

from detect.errors import InputError
from detect.runtime.cli import ToolParser, positive_int, run_tool
from detect.runtime.device import select_device
from detect.runtime.logs import LOGGER
from detect.sweep.ledger import LOG, Ledger, best_trial
from detect.sweep.picture import draw_parallel_coordinates
from detect.sweep.plan import Plan, make_plan
from detect.sweep.report import training_command, trials_text, write_csv, write_hparams
from detect.sweep.trials import Search

TRAIN = Path(__file__).resolve().with_name("train.py")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = ToolParser(__doc__)
    add = parser.add_argument
    add("--space", metavar="NAME|FILE", help="what to search: a file, or the name of one in configs/sweeps")
    add("--out", metavar="DIR", help="folder of the sweep (default: runs/NAME)")
    add("--devices", nargs="+", default=["auto"], metavar="D", help="a trial at a time on each: cuda:0 cuda:1, cpu cpu")
    add("--trials", type=positive_int, metavar="N", help="how many trainings, instead of what the YAML says")
    add("--data-root", metavar="DIR", help="where the data set is, instead of what its YAML says")
    add("--resume", action="store_true", help="continue the sweep in the folder, or help with it on other devices")
    return parser.parse_args()


def main() -> None:
    """Search, then say what was best and where everything is."""
    args = parse_arguments()
    for device in args.devices:
        select_device(device)  # a mistake is told before the first trial
    plan = make_plan(args.space, args.out, args.trials, args.data_root, args.resume)
    ledger = Ledger(plan.folder, plan.space, plan.config.seed)
    metric, table = plan.config.metric, plan.folder / "trials.csv"
    search = Search(plan, ledger, TRAIN, lambda: write_csv(table, ledger.trials(), plan.space, metric))
    try:
        search.run(args.devices)
    except KeyboardInterrupt:
        again = ["--out", str(plan.folder), "--resume", "--devices", *args.devices]
        LOGGER.warning("to go on: python tools/sweep.py %s", shlex.join(again))
        raise
    report(plan, ledger)


def report(plan: Plan, ledger: Ledger) -> None:
    """Write and print what the search has found."""
    trials, metric, folder = ledger.trials(), plan.config.metric, plan.folder
    write_csv(folder / "trials.csv", trials, plan.space, metric)
    print(trials_text(trials, plan.space, metric))
    unfinished = sum(trial.state == "unfinished" for trial in trials)
    if unfinished:
        LOGGER.warning("%d unfinished: another process trains them; when it has ended, --resume goes on", unfinished)
    best = best_trial(trials)
    if best is None and unfinished:
        return
    if best is None:
        raise InputError(f"{folder}: no trial was trained to its end; {ledger.trial_folder(0) / LOG} says why")
    draw_parallel_coordinates(folder / "parallel_coordinates.png", plan.space, trials, metric, plan.config.name)
    write_hparams(folder / "hparams", trials, metric)
    print(f"\nbest: trial {best.number}, {metric} {best.score:.4f}; to train it again:")
    print(training_command(plan.config, best))
    print(
        f"{folder}: trials.csv, parallel_coordinates.png, hparams (tensorboard --logdir {folder / 'hparams'}), trials"
    )


if __name__ == "__main__":
    run_tool(main)
