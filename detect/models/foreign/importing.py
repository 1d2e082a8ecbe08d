"""From a file that others trained to a checkpoint of this toolkit."""

from __future__ import annotations

import hashlib
import sys
import tempfile
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

import detect
from detect.errors import InputError
from detect.models.build import build_model
from detect.models.checkpoint import save_checkpoint
from detect.models.detector import DetectionModel
from detect.models.foreign.coco_names import COCO_IDS, COCO_NAMES
from detect.models.foreign.darknet import DarknetFile, load_darknet
from detect.models.foreign.tensor_files import read_tensors
from detect.models.foreign.yolov5 import load_yolov5

TENSOR_SUFFIXES = (".pt", ".pth", ".safetensors")
"""Files with named tensors; all others are taken for Darknet's."""
DARKNET_SIZE, YOLOV5_SIZE = 416, 640
"""Sides in pixels for which the published weights are meant, where nothing else is said."""
_START_SEED = 0
"""For the layers that a partial file leaves as they start."""


@dataclass(frozen=True)
class Import:
    """What to import.

    Args:
        weights: the file.
        out: the checkpoint to be written.
        model: name of the model; None for the YOLOv5 family is the member that fits.
        names: ``coco``, a file with a class name on each line, or how many classes there are; None takes the file's.
        image_size: side of the network input in pixels; None takes the usual one.
        partial: see ``detect.models.foreign.darknet.load_darknet``.
    """

    weights: Path
    out: Path
    model: str | None = None
    names: str | None = None
    image_size: int | None = None
    partial: bool = False


def import_weights(wanted: Import) -> list[str]:
    """Read the file, write the checkpoint.

    Args:
        wanted: what to import.

    Returns:
        Lines that say what was read and written.

    Raises:
        InputError: the file cannot be used, or a setting does not fit it; nothing is written.
    """
    _check_out(wanted.out, wanted.weights)
    named = wanted.weights.suffix in TENSOR_SUFFIXES
    model, names, origin, line = (_import_yolov5 if named else _import_darknet)(wanted)
    size = wanted.image_size or (YOLOV5_SIZE if named else DARKNET_SIZE)
    if size % model.max_reduction:
        raise InputError(f"image size: must be a multiple of {model.max_reduction}, found {size}")
    save_checkpoint(
        wanted.out,
        model,
        names=names,
        category_ids=COCO_IDS if names == COCO_NAMES else tuple(range(len(names))),
        image_size=size,
        metrics={},
        provenance=_provenance(wanted.weights, origin),
    )
    parameters = sum(parameter.numel() for parameter in model.parameters())
    about = f"{model.definition.name}, {len(names)} classes, {size} px, {parameters:,} parameters"
    return [f"{wanted.weights}: {line}", f"{wanted.out}: {about}"]


def _check_out(out: Path, weights: Path) -> None:
    """Refuse what cannot be written, before the work.

    Raises:
        InputError: ``out`` is the file that is read, is a folder, or lies where no file can be made.
    """
    if out.resolve() == weights.resolve():
        raise InputError(f"--out {out}: is the file that is read")
    if out.is_dir():
        raise InputError(f"--out {out}: is a folder; name a file in it")
    folder = next(parent for parent in out.absolute().parents if parent.exists())  # those below it will be made
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written in {folder}: {error.strerror or error}") from None


Imported = tuple[DetectionModel, tuple[str, ...], dict[str, Any], str]
"""The model, its class names, where it comes from, and a line about what was read."""


def _import_darknet(wanted: Import) -> Imported:
    if wanted.model is None:
        raise InputError("--model: is needed, because Darknet's files do not say which model they are for")
    if wanted.names is None:
        raise InputError("--names: is needed, because Darknet's files have none: coco, a file, or how many classes")
    names = _class_names(wanted.names)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_START_SEED)
        model = build_model(wanted.model, len(names))
    file = load_darknet(model.graph, wanted.weights, wanted.partial)
    return model, names, {"format": "darknet", **asdict(file)}, _darknet_line(file)


def _darknet_line(file: DarknetFile) -> str:
    line = f"Darknet {file.version}, {file.images_seen:,} images seen, {file.num_layers} of {file.total_layers} layers"
    if file.num_layers < file.total_layers:
        line += f", up to {file.last_layer}; the others start as in training"
    if file.skipped_classes:
        line += f"; a classifier's last layer of {file.skipped_classes:,} classes was left out"
    return line


def _import_yolov5(wanted: Import) -> Imported:
    if wanted.partial:
        raise InputError("--partial: is for Darknet's files; others must fit as a whole")
    file = read_tensors(wanted.weights)
    model = load_yolov5(file, wanted.weights, wanted.model)
    names = file.names if wanted.names is None else _class_names(wanted.names)
    if names is None:
        raise InputError(f"--names: is needed, because {wanted.weights} has none: coco, a file, or how many classes")
    if len(names) != model.num_classes:
        raise InputError(f"{wanted.weights}: has {model.num_classes} classes, but {len(names)} names are given")
    line = f"{len(file.tensors)} tensors of the YOLOv5 family, {model.definition.name}"
    return model, names, {"format": "yolov5", "tensors": len(file.tensors)}, line


def _class_names(text: str) -> tuple[str, ...]:
    """``coco``, a number of classes, or a file with a name on each line."""
    if text == "coco":
        return COCO_NAMES
    if text.isdecimal() and 0 < int(text) <= 10_000:
        return tuple(str(i) for i in range(int(text)))
    path = Path(text)
    try:
        lines = path.read_text(encoding="utf-8").rstrip().splitlines()
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"--names {text}: cannot be read: {reason}; coco, a file or a number is allowed") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not UTF-8 text with a class name on each line") from None
    names = tuple(line.strip() for line in lines)
    if not names or "" in names:
        raise InputError(f"{path}: must have a class name on each line")
    if repeated := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{path}: the class {repeated[0]!r} stands twice")
    return names


def _provenance(path: Path, origin: dict[str, Any]) -> dict[str, Any]:
    """How the weights came about, as plain values."""
    return {
        "detect": detect.__version__,
        "torch": str(torch.__version__),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join(sys.argv),
        "imported_from": {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), **origin},
    }
