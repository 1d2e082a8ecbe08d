"""Golden results: what a change of the structure must not change.

python tests/golden.py write FILE     before the change
python tests/golden.py compare FILE   after it, on the same machine: exit code 1 if anything differs

Everything goes through the command line, which stays when modules move. With the published data at ``DETECT_REAL_DATA``
it takes minutes on one thread: the losses of 20 updates of five models, detections of the shipped weights on ten images
each, the same of exported files, the description of every shipped model, a report of ``data check`` for each format.
Numbers are compared to the last digit.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("DETECT_REAL_DATA", ROOT.parent / "shared" / "data"))
UPDATES = 20
TRAININGS = {
    "yolov5n-spd": ["--model", "yolov5n-spd", "--weights", "none"],
    "csppeleenet-efm": ["--model", "csppeleenet-efm+width=0.5"],
    "resnet18-spd": ["--model", "resnet18-spd+width=0.25"],
    "sdpoint": ["--model", "yolov5n-spd", "--weights", "none", "--set", "sdpoint.ratios=[0.5, 0.75]"],
    "bdsc-trd": ["--model", "yolov5n-spd+bdsc", "--set", "trd.resolution=64", "trd.probability=0.5"],
}
WEIGHTS = {"yolov5n-spd-bccd": "bccd/JPEGImages", "yolov5n-spd-deeppcb": "deeppcb/images", "yolov5n-spd-shapes": ""}
IMAGES = 10


def golden(folder: Path) -> dict[str, Any]:
    """All results, by name."""
    boxes, classes = _few_boxes(folder / "boxes"), _few_classes(folder / "classes")
    found: dict[str, Any] = {}
    for name, words in TRAININGS.items():
        data = classes if name == "resnet18-spd" else boxes
        found[f"losses {name}"] = _losses(words, data, folder / name)
    for weights, images in WEIGHTS.items():
        source = DATA / (images or "deeppcb/images")
        paths = sorted(path for path in source.rglob("*") if path.suffix.lower() in (".jpg", ".png"))[:IMAGES]
        found |= _predictions(weights, [str(path) for path in paths], folder / weights)
    listing = _run("describe.py", "--list").partition("\nnecks:")[0]
    models = dict.fromkeys(line.split()[0] for line in listing.splitlines() if re.match(r"  \S", line))
    for model in json.loads(_run("describe.py", "--model", *models, "--image-size", "64", "--json")):
        found[f"describe {model['name']}"] = hashlib.sha256(json.dumps(model).encode()).hexdigest()
    for name, data in _formats(folder).items():
        report = folder / f"check-{name}.json"
        _run("data.py", "check", "--data", str(data), "--json", str(report), codes=(0, 1, 2))
        found[f"check {name}"] = json.loads(
            report.read_text(encoding="utf-8").replace(str(folder), "").replace(str(DATA), "")
        )
    return found


def _run(tool: str, *words: str, codes: tuple[int, ...] = (0,)) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "tools" / tool), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
    if done.returncode not in codes:
        raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}: {done.stderr}")
    return done.stdout


def _few_boxes(folder: Path) -> Path:
    """Eight images with their boxes: each update sees them all."""
    source = json.loads((DATA / "deeppcb" / "instances_val.json").read_text(encoding="utf-8"))
    kept = source["images"][:8]
    ids = {image["id"] for image in kept}
    content = {**source, "images": kept, "annotations": [a for a in source["annotations"] if a["image_id"] in ids]}
    folder.mkdir()
    (folder / "eight.json").write_text(json.dumps(content), encoding="utf-8")
    section = "{images: images, annotations: eight.json}"
    (folder / "images").symlink_to(DATA / "deeppcb" / "images")
    config = folder / "eight.yaml"
    config.write_text(f"name: eight\nroot: .\nsplits:\n  train: {section}\n  val: {section}\n", encoding="utf-8")
    return config


def _few_classes(folder: Path) -> Path:
    """Sixteen images of two classes."""
    source = DATA / "cifar10_subset" / "train"
    for split in ("train", "val"):
        for name in ("cat", "ship"):
            (folder / split / name).mkdir(parents=True)
            for path in sorted((source / name).iterdir())[:8]:
                (folder / split / name / path.name).symlink_to(path)
    config = folder / "two.yaml"
    config.write_text(
        "name: two\nroot: .\nformat: folders\nsplits:\n  train: {images: train}\n  val: {images: val}\n",
        encoding="utf-8",
    )
    return config


def _losses(words: list[str], data: Path, out: Path) -> list[dict[str, str]]:
    """The rows of ``results.csv``, without times."""
    size, batch = ("32", "16") if data.stem == "two" else ("128", "8")
    given = [*words] if "--set" in words else [*words, "--set"]
    options = ["precision=fp32", "threads=1", f"evaluation.every={UPDATES}"]
    numbers = ["--epochs", str(UPDATES), "--image-size", size, "--batch-size", batch, "--workers", "0", "--seed", "0"]
    _run("train.py", *given, *options, "--data", str(data), *numbers, "--out", str(out))
    with (out / "results.csv").open(encoding="utf-8", newline="") as file:
        return [{key: value for key, value in row.items() if "time" not in key} for row in csv.DictReader(file)]


def _predictions(weights: str, images: list[str], out: Path) -> Iterator[tuple[str, Any]]:
    """Detections of the checkpoint and of its exported file."""
    file = out / "model.onnx"
    _run("export.py", "--weights", weights, "--out", str(file))
    for kind, model in (("predict", weights), ("onnx", str(file))):
        _run("predict.py", "--weights", model, "--source", *images, "--save-json", "--out", str(out / kind))
        content = (out / kind / "predictions.json").read_text(encoding="utf-8")
        yield f"{kind} {weights}", json.loads(content)


def _formats(folder: Path) -> dict[str, Path]:
    """A data set in each format."""
    found = {"coco": DATA / "tiny_coco", "voc": DATA / "bccd"}
    for kind in ("yolo", "shards"):
        _run(
            "data.py",
            "convert",
            "--data",
            str(folder / "boxes" / "eight.yaml"),
            "--to",
            kind,
            "--out",
            str(folder / kind),
        )
        found[kind] = folder / kind
    return found


def main() -> int:
    """Write the results, or compare them with those that were written."""
    parser = argparse.ArgumentParser(description="golden results of the toolkit")
    parser.add_argument("action", choices=("write", "compare"))
    parser.add_argument("file", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        found = golden(Path(name))
    if arguments.action == "write":
        arguments.file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(f"{arguments.file}: {len(found)} results")
        return 0
    before = json.loads(arguments.file.read_text(encoding="utf-8"))
    after = json.loads(json.dumps(found))
    different = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
    for name in different:
        print(f"different: {name}")
    print(f"{len(before) - len(different)} of {len(before)} results are equal")
    return int(bool(different))


if __name__ == "__main__":
    sys.exit(main())
