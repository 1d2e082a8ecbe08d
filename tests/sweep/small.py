"""A search that needs no data, and a training that takes no time."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

from detect.config.sweep import SweepConfig, load_sweep_config
from detect.sweep.ledger import Ledger
from detect.sweep.plan import Parameter, Plan, open_space

SWEEP = """\
name: small
model: yolov5n-spd
data: shapes
metric: AP
trials: 4
seed: 3
space:
  optimizer.lr: {low: 0.001, high: 0.1, log: true}
  optimizer.momentum: {low: 0.8, high: 0.99}
  batch_size: {choices: [2, 4]}
  epochs: {low: 1, high: 3}
set: {threads: 1}
"""

TRAINER = '''\
"""Takes the words of tools/train.py and leaves what it leaves; scores are twice the learning rate."""

import argparse
import signal
import sys
import time
from pathlib import Path

signal.signal(signal.SIGTERM, signal.default_int_handler)
parser = argparse.ArgumentParser()
for flag in ("--model", "--data", "--recipe", "--run", "--data-root", "--out", "--device"):
    parser.add_argument(flag)
parser.add_argument("--set", nargs="+", default=[])
parser.add_argument("--resume", action="store_true")
args = parser.parse_args()
out = Path(args.out)
root = out.parents[1]
with (out / "starts").open("a") as starts:
    starts.write(f"{args.device} {'resumed' if args.resume else ' '.join(args.set)}\\n")
rate = (out / "last.pt").read_text() if args.resume else dict(word.split("=") for word in args.set)["optimizer.lr"]
print("epoch 1/2\\repoch 2/2")
if (root / "fail").exists():
    sys.exit("error: the loss is not finite\\n")
if (root / "wait").exists() and not args.resume:
    (out / "last.pt").write_text(rate)
    try:
        (out / "ready").touch()
        time.sleep(60)
    except KeyboardInterrupt:
        sys.exit(130)
if not (root / "silent").exists():
    rows = f"1,0.3,{float(rate)}\\n2,0.2,{2 * float(rate)}\\n3,0.1,\\n"
    (out / "results.csv").write_text(f"epoch,loss/box,val/AP\\n{rows}")
'''


@functools.cache
def opened(text: str) -> tuple[SweepConfig, tuple[Parameter, ...]]:
    """A search and its space."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(text)
        file.flush()
        config = load_sweep_config(file.name)
    return config, open_space(config)


def make_plan_in(folder: Path, text: str = SWEEP) -> Plan:
    """A plan as ``make_plan`` makes it, without asking for the data."""
    return Plan(*opened(text), folder / "out")


def open_ledger(plan: Plan) -> Ledger:
    """The trials of a plan."""
    return Ledger(plan.folder, plan.space, plan.config.seed, plan.config.sampler)
