"""From a file that others trained to a checkpoint of this toolkit."""

from __future__ import annotations

import hashlib
import re
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from detect.class_names import match_names
from detect.errors import InputError, is_writable
from detect.models.build import build_model
from detect.models.catalog import find_definition
from detect.models.checkpoint import save_checkpoint
from detect.models.definition import ModelDefinition
from detect.models.foreign.cifar_resnets import is_cifar_resnet, load_cifar_resnet
from detect.models.foreign.coco_names import COCO_IDS, COCO_NAMES
from detect.models.foreign.darknet import DarknetFile, load_darknet
from detect.models.foreign.darknet_cfg import DarknetCfg, read_cfg
from detect.models.foreign.darknet_structure import anchors_text, check_structure, with_anchors_of
from detect.models.foreign.kinds import ARCHIVE, DARKNET, LEGACY, SAFETENSORS, kind_of
from detect.models.foreign.tensor_files import TensorFile, read_tensors
from detect.models.foreign.torchvision_models import load_torchvision, torchvision_family
from detect.models.foreign.yolov5 import load_yolov5
from detect.models.model import DetectionModel, Model
from detect.runtime.reproducibility import collect_provenance

TENSOR_SUFFIXES = (".pt", ".pth", ".safetensors")
"""Of files with named tensors, where their content does not say what they are; all others are taken for Darknet's."""
DARKNET_SIZE, YOLOV5_SIZE, TORCHVISION_SIZE, CIFAR_SIZE = 416, 640, 224, 32
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
        cfg: of a Darknet file: its configuration.
    """

    weights: Path
    out: Path
    model: str | None = None
    names: str | None = None
    image_size: int | None = None
    partial: bool = False
    cfg: Path | None = None


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
    read = (_import_tensors if _has_named_tensors(wanted.weights) else _import_darknet)(wanted)
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
        provenance={**collect_provenance(), "imported_from": {**_file(wanted.weights), **read.origin}},
        center_crop=read.center_crop,
    )
    parameters = sum(parameter.numel() for parameter in model.parameters())
    about = f"{model.definition.name}, {len(names)} classes, {size} px, {parameters:,} parameters"
    return [f"{wanted.weights}: {read.line}", f"{wanted.out}: {about}"]


def _has_named_tensors(path: Path) -> bool:
    """Whether a file is one with named tensors, by its content; where that says nothing, by its suffix."""
    try:
        kind = kind_of(path)
    except OSError:
        kind = None
    if kind in (ARCHIVE, LEGACY, SAFETENSORS):
        return True
    return kind != DARKNET and path.suffix in TENSOR_SUFFIXES


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
    if wanted.cfg is not None and wanted.partial:
        raise InputError("--cfg: describes a whole file; --partial takes a part of one")
    names = _class_names(wanted.names)
    cfg = None if wanted.cfg is None else read_cfg(wanted.cfg)
    definition = find_definition(wanted.model)
    if cfg is not None:
        definition = _as_configured(definition, cfg, len(names))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_START_SEED)
        model = build_model(definition, len(names))
    if cfg is not None:
        check_structure(model.graph, cfg)
    file = load_darknet(model.graph, wanted.weights, wanted.partial)
    origin = {"format": "darknet", **asdict(file), **({} if cfg is None else {"cfg": _file(cfg.path)})}
    line, size = _darknet_line(file), DARKNET_SIZE
    if cfg is not None:
        line += f"; {anchors_text(model.graph)}: {_cfg_line(cfg, definition.name)}"
        size = max(cfg.input_wh)
    elif file.num_layers == file.total_layers:
        assumed = f"assumed, those of {definition.name}, for the file does not say them; --cfg FILE reads them"
        line += f"; {anchors_text(model.graph)}: {assumed}"
    return Imported(model, names, origin, line, size)


def _cfg_line(cfg: DarknetCfg, name: str) -> str:
    width, height = cfg.input_wh
    line = f"of {cfg.path}, whose {len(cfg.layers)} layers with weights are those of {name}"
    return line + (f"; its input of {width} x {height} px becomes {max(width, height)} px" if width != height else "")


def _as_configured(definition: ModelDefinition, cfg: DarknetCfg, num_classes: int) -> ModelDefinition:
    """The model with the anchors of a configuration, which must have as many classes.

    Raises:
        InputError: it is for another number of classes, or has other levels.
    """
    for level in cfg.levels:
        if level.num_classes != num_classes:
            raise InputError(f"{level.place}: has {level.num_classes} classes, but {num_classes} names are given")
    with torch.device("meta"):
        graph = DetectionModel(definition, num_classes).graph
    return with_anchors_of(definition, graph, cfg)


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
    if wanted.cfg is not None:
        raise InputError(f"--cfg: is for Darknet's files; {wanted.weights} is another one")
    file = read_tensors(wanted.weights)
    if is_cifar_resnet(file.tensors):
        return _import_cifar_resnet(wanted, file)
    if torchvision_family(file.tensors) is not None:
        return _import_torchvision(wanted, file)
    if any(_NUMBERED.match(name) for name in file.tensors):
        return _import_yolov5(wanted, file)
    raise InputError(
        f"{wanted.weights}: {next(iter(file.tensors))[:80]!r} and the others are of no known family: YOLOv5 has names "
        "such as 'model.0.conv.weight', torchvision's ResNet and ResNeXt 'layer1.0.conv1.weight' (as other ResNets of "
        "CIFAR), its DenseNet 'features.denseblock1.denselayer1.conv1.weight'"
    )


def _import_yolov5(wanted: Import, file: TensorFile) -> Imported:
    model = load_yolov5(file, wanted.weights, wanted.model)
    names = file.names if wanted.names is None else _class_names(wanted.names)
    if names is None:
        raise InputError(f"--names: is needed, because {wanted.weights} has none: coco, a file, or how many classes")
    _check_count(names, model, wanted.weights)
    line = f"{len(file.tensors)} tensors of the YOLOv5 family, {model.definition.name}"
    if not any(name.endswith(".anchors") for name in file.tensors):
        line += f"; {anchors_text(model.graph)}: assumed, those of {model.definition.name}, for the file has none"
    line += _renamed(file.names, names, wanted.weights)
    return Imported(model, names, {"format": "yolov5", "tensors": len(file.tensors)}, line, YOLOV5_SIZE)


def _renamed(of_file: tuple[str, ...] | None, given: tuple[str, ...], weights: Path) -> str:
    """What ``--names`` changes in the names of a file.

    Raises:
        InputError: nothing but their order, so that the weights would get the names of others.
    """
    if of_file is None or of_file == given or len(of_file) != len(given):
        return ""
    match = match_names(of_file, given)
    if not match.only_source:
        raise InputError(
            f"--names: are the class names of {weights} in another order; the file's weights have their own: leave it "
            "out"
        )
    pairs = [f"{old!r} is now {new!r}" for old, new in zip(of_file, given, strict=True) if old != new]
    return f"; --names renames {len(pairs)} of the file's {len(of_file)} classes: {'; '.join(pairs[:3])}"


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
    line += f"; ImageNet's mean and deviation{f' and {TORCHVISION_SIZE} px' * (wanted.image_size is None)} are assumed"
    origin = {"format": "torchvision", "tensors": len(file.tensors)}
    return Imported(model, names, origin, line, TORCHVISION_SIZE, TORCHVISION_CROP)


def _import_cifar_resnet(wanted: Import, file: TensorFile) -> Imported:
    if wanted.names is None:
        raise InputError(f"--names: is needed, because {wanted.weights} has none: a file, or how many classes")
    if wanted.names == "coco":
        raise InputError("--names coco: is for detectors; a classifier takes a file, or how many classes there are")
    model, note = load_cifar_resnet(file, wanted.weights, wanted.model)
    names = _class_names(wanted.names)
    _check_count(names, model, wanted.weights)
    line = f"{len(file.tensors)} tensors of a ResNet for CIFAR, {model.definition.name}; {note}"
    return Imported(model, names, {"format": "cifar-resnet", "tensors": len(file.tensors)}, line, CIFAR_SIZE)


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
