"""A complete example in a few minutes: train on scans of handwritten digits of 8 to 24 px, evaluate, draw, export.
``make demo`` runs it.

It prints each command before it runs, and writes everything to runs/demo.
"""

from __future__ import annotations

from detect.runtime.startup import start_tool

if __name__ == "__main__":
    start_tool()  # before the imports, which take seconds

import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from detect.cli.parser import ToolParser
from detect.runtime.cli import run_tool
from detect.runtime.files import locked_folder

ROOT = Path(__file__).resolve().parents[1]
OUT = "runs/demo"
TEST_IMAGES = "data/digits/images/test"


def commands(out: str) -> list[list[str]]:
    """Return the commands without ``python``, for the repository's root; ``out`` is the folder of the results."""
    weights = f"{out}/best.pt"
    drawn = [f"{TEST_IMAGES}/00000?.jpg", f"{TEST_IMAGES}/00001[0-2].jpg"]
    return [
        ["tools/train.py", "--run", "configs/runs/demo.yaml", "--out", out],
        [
            *("tools/evaluate.py", "--weights", weights, "--data", "digits", "--split", "test"),
            *("--metrics-json", f"{out}/metrics.json", "--out", f"{out}/test", "--report", out),
        ],
        ["tools/predict.py", "--weights", weights, "--source", *drawn, "--out", f"{out}/predictions"],
        ["tools/export.py", "--weights", weights, "--no-dynamic"],  # one size takes the exporter a third of the time
    ]


def run(command: list[str]) -> None:
    print(f"\n$ python {shlex.join(command)}", flush=True)
    code = subprocess.run([sys.executable, *command], cwd=ROOT, check=False).returncode
    if code:
        print(f"error: the demo ends here, because {command[0]} ended with exit code {code}", file=sys.stderr)
        sys.exit(code)


def summary(out: str, minutes: float) -> str:
    metrics = json.loads((ROOT / out / "metrics.json").read_text(encoding="utf-8"))
    scores = ", ".join(f"{name} {metrics[name]:.3f}" for name in ("AP", "AP50", "AP_S"))
    places = {
        "index.html": "a page to look at: scores by size and class, errors, the worst images",
        "best.pt": "the trained model",
        "metrics.json": "its metrics on the test images",
        "test": "predictions beside the truth, precision-recall curves, confusion matrix",
        "predictions": "test images with what was found in them",
        "model.onnx": "the model for ONNX Runtime",
        "results.csv": "losses and metrics of each epoch",
    }
    lines = [f"  {f'{out}/{name}':24}  {what}" for name, what in places.items()]
    return "\n".join([f"{minutes:.1f} minutes; on the test images: {scores}", *lines])


def main() -> None:
    ToolParser(__doc__).parse_args()
    start = time.monotonic()
    with locked_folder(ROOT / "runs/.demo"):  # a second demo would remove the results of this one
        if (ROOT / OUT).exists():
            print(f"removing the earlier demo in {OUT}", flush=True)
            shutil.rmtree(ROOT / OUT)
        for command in commands(OUT):
            run(command)
    print(f"\n{summary(OUT, (time.monotonic() - start) / 60)}")


if __name__ == "__main__":
    run_tool(main)
