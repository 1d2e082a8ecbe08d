"""From a file that others trained to a checkpoint of this toolkit."""

from __future__ import annotations

import hashlib
import re
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from detect.errors import InputError, is_writable
from detect.models.build import build_model
from detect.models.checkpoint import save_checkpoint
from detect.models.detector import DetectionModel
from detect.models.foreign.coco_names import COCO_IDS, COCO_NAMES
from detect.models.foreign.darknet import DarknetFile, load_darknet
from detect.models.foreign.tensor_files import TensorFile, read_tensors
from detect.models.foreign.torchvision_models import load_torchvision, torchvision_family
from detect.models.foreign.yolov5 import load_yolov5
from detect.models.model import Model
from detect.runtime.provenance import made_with

TENSOR_SUFFIXES = (".pt", ".pth", ".safetensors")
"""Files with named tensors; all others are taken for Darknet's."""
DARKNET_SIZE, YOLOV5_SIZE, TORCHVISION_SIZE = 416, 640, 224
"""Sides in pixels for which the published weights are meant, where nothing else is said."""
TORCHVISION_CROP = 224 / 256
"""torchvision's tests of ``IMAGENET1K_V1``: the short side becomes 256 pixels, and the middle 224 are looked at."""
IMAGENET_CLASSES = 1000
_START_SEED = 0
"""For the layers that a partial file leaves as they start."""
_NUMBERED = re.compile(r"(?:model\.)*\d+\.")
"""How the names of the YOLOv5 family start."""


@dataclass(frozen=True)
class Import:
    """What to import.

    Args:
        weights: the file.
        out: the checkpoint to be written.
        model: name of the model; None for the YOLOv5 family and torchvision is the member that fits.
        names: ``coco`` for a detector, a file with a class name on each line, or how many classes there are; None takes
            the file's, and for 1000 classes of torchvision their numbers.
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
    read = (_import_tensors if named else _import_darknet)(wanted)
    model, names, size = read.model, read.names, wanted.image_size or read.image_size
    if size % model.max_reduction:
        raise InputError(f"image size: must be a multiple of {model.max_reduction}, found {size}")
    detects = isinstance(model, DetectionModel)
    save_checkpoint(
        wanted.out,
        model,
        names=names,
        category_ids=COCO_IDS if detects and names == COCO_NAMES else tuple(range(len(names))),
        image_size=size,
        metrics={},
        provenance={**made_with(), "imported_from": {**_file(wanted.weights), **read.origin}},
        center_crop=read.center_crop,
    )
    parameters = sum(parameter.numel() for parameter in model.parameters())
    about = f"{model.definition.name}, {len(names)} classes, {size} px, {parameters:,} parameters"
    return [f"{wanted.weights}: {read.line}", f"{wanted.out}: {about}"]


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


@dataclass(frozen=True)
class Imported:
    """What a file gave.

    Args:
        model: with its weights.
        names: K class names.
        origin: where the weights come from, as plain values.
        line: what was read, for the user.
        image_size: side of the network input in pixels for which such weights are meant.
        center_crop: as in ``Checkpoint``.
    """

    model: Model
    names: tuple[str, ...]
    origin: dict[str, Any]
    line: str
    image_size: int
    center_crop: float = 1.0


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
    return Imported(model, names, {"format": "darknet", **asdict(file)}, _darknet_line(file), DARKNET_SIZE)


def _darknet_line(file: DarknetFile) -> str:
    line = f"Darknet {file.version}, {file.images_seen:,} images seen, {file.num_layers} of {file.total_layers} layers"
    if file.num_layers < file.total_layers:
        line += f", up to {file.last_layer}; the others start as in training"
    if file.skipped_classes:
        line += f"; a classifier's last layer of {file.skipped_classes:,} classes was left out"
    return line


def _import_tensors(wanted: Import) -> Imported:
    if wanted.partial:
        raise InputError("--partial: is for Darknet's files; others must fit as a whole")
    file = read_tensors(wanted.weights)
    if torchvision_family(file.tensors) is not None:
        return _import_torchvision(wanted, file)
    if any(_NUMBERED.match(name) for name in file.tensors):
        return _import_yolov5(wanted, file)
    raise InputError(
        f"{wanted.weights}: {next(iter(file.tensors))[:80]!r} and the others are of no known family: YOLOv5 has names "
        "such as 'model.0.conv.weight', torchvision's ResNet and ResNeXt 'layer1.0.conv1.weight', its DenseNet "
        "'features.denseblock1.denselayer1.conv1.weight'"
    )


def _import_yolov5(wanted: Import, file: TensorFile) -> Imported:
    model = load_yolov5(file, wanted.weights, wanted.model)
    names = file.names if wanted.names is None else _class_names(wanted.names)
    if names is None:
        raise InputError(f"--names: is needed, because {wanted.weights} has none: coco, a file, or how many classes")
    _check_count(names, model, wanted.weights)
    line = f"{len(file.tensors)} tensors of the YOLOv5 family, {model.definition.name}"
    return Imported(model, names, {"format": "yolov5", "tensors": len(file.tensors)}, line, YOLOV5_SIZE)


def _import_torchvision(wanted: Import, file: TensorFile) -> Imported:
    if wanted.names == "coco":
        raise InputError("--names coco: is for detectors; a classifier takes a file, or how many classes there are")
    model = load_torchvision(file, wanted.weights, wanted.model)
    line = f"{len(file.tensors)} tensors of torchvision, {model.definition.name}"
    if wanted.names is not None:
        names = _class_names(wanted.names)
    elif model.num_classes == IMAGENET_CLASSES:
        names = tuple(str(i) for i in range(IMAGENET_CLASSES))
        line += "; its classes are called 0 to 999, --names FILE calls them otherwise"
    else:
        raise InputError(f"--names: is needed, because {wanted.weights} has none: a file, or how many classes")
    _check_count(names, model, wanted.weights)
    origin = {"format": "torchvision", "tensors": len(file.tensors)}
    return Imported(model, names, origin, line, TORCHVISION_SIZE, TORCHVISION_CROP)


def _check_count(names: tuple[str, ...], model: Model, weights: Path) -> None:
    if not all(map(is_writable, names)):
        raise InputError(f"{weights}: has a class name with half a character (a lone surrogate); give --names")
    if len(names) != model.num_classes:
        raise InputError(f"{weights}: has {model.num_classes} classes, but {len(names)} names are given")


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


def _file(path: Path) -> dict[str, str]:
    """Which file it was."""
    return {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
