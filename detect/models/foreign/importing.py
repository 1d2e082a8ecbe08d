"""Import of weights that others trained: from their file to a checkpoint of this toolkit."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from detect.errors import InputError
from detect.models.build import build_model
from detect.models.catalog import find_definition
from detect.models.checkpoint import load_checkpoint, save_checkpoint
from detect.models.definition import ModelDefinition, with_args
from detect.models.foreign.class_names import (
    ANY_NAMES,
    CLASSIFIER_NAMES,
    COCO_IDS,
    COCO_NAMES,
    check_names,
    names_needed,
    read_names,
    refuse_coco,
    renaming_line,
)
from detect.models.foreign.classifiers import is_cifar_resnet, load_cifar_resnet, load_torchvision, torchvision_family
from detect.models.foreign.darknet import DarknetFile, load_darknet
from detect.models.foreign.darknet_cfg import DarknetCfg, anchors_text, check_structure, read_cfg, with_anchors_of
from detect.models.foreign.kinds import ARCHIVE, DARKNET, LEGACY, ONNX, SAFETENSORS, kind_of
from detect.models.foreign.onnx_weights import read_convolutions
from detect.models.foreign.tensor_files import TensorFile, read_tensors
from detect.models.foreign.yolov5 import load_yolov5
from detect.models.foreign.yolox import PREFIX, load_yolox, load_yolox_export
from detect.models.model import DetectionModel, Model
from detect.models.safetensors_file import EXTRAS
from detect.models.surgery import becomes_spd, spd_model
from detect.runtime.reproducibility import collect_provenance

TENSOR_SUFFIXES = (".pt", ".pth", ".safetensors")
"""Suffixes of files with named tensors, where the content is of no known kind; all others are read as Darknet's."""
DARKNET_SIZE, YOLOV5_SIZE, YOLOX_SIZE, TORCHVISION_SIZE, CIFAR_SIZE = 416, 640, 640, 224, 32
"""Default sides of the network input in pixels, those of the published weights."""
YOLOX_SMALL_SIZES = {"yolox-nano": 416, "yolox-tiny": 416}
"""Default sides of the two members of YOLOX that differ."""
TORCHVISION_CROP = 224 / 256
"""Center crop of torchvision's tests of ``IMAGENET1K_V1``: 224 of 256 pixels of the short side."""
IMAGENET_CLASSES = 1000

OWN_NAMES = ("graph.layers.", "mean", "std")
"""Starts of the names in a checkpoint of this toolkit."""

_START_SEED = 0
"""Seed of the layers that a partial file does not have."""
_YOLOV5_NAME = re.compile(r"(?:model\.)*\d+\.")
"""Start of the YOLOv5 family's names."""


@dataclass(frozen=True)
class ImportOptions:
    """Options of an import.

    Args:
        weights: the file to read.
        out: the checkpoint to write.
        model: name of the model; None takes the member of the YOLOv5 family, of YOLOX or of torchvision that fits.
        names: ``coco`` for a detector, a file with a class name on each line, or the number of classes; None takes
            the file's, for 80 classes of YOLOX COCO's, and for 1000 classes of torchvision their numbers.
        image_size: side of the network input in pixels; None takes that of the published weights.
        partial: see ``detect.models.foreign.darknet.load_darknet``.
        cfg: configuration of a Darknet file.
    """

    weights: Path
    out: Path
    model: str | None = None
    names: str | None = None
    image_size: int | None = None
    partial: bool = False
    cfg: Path | None = None


@dataclass(frozen=True)
class Imported:
    """Content of a file.

    Args:
        model: with its weights.
        names: K class names.
        origin: provenance of the weights, as plain values.
        line: description for the user.
        image_size: default side of the network input in pixels.
        center_crop: as in ``Checkpoint``.
        category_ids: K ids of the annotation file; None where only the names are known.
        value_range: as in ``Checkpoint``.
    """

    model: Model
    names: tuple[str, ...]
    origin: dict[str, Any]
    line: str
    image_size: int
    center_crop: float = 1.0
    category_ids: tuple[int, ...] | None = None
    value_range: tuple[float, float] | None = None


def import_weights(options: ImportOptions) -> list[str]:
    """Read the file and write the checkpoint.

    Returns:
        Lines that describe the file and the checkpoint.

    Raises:
        InputError: the file cannot be used, or an option does not fit it; nothing is written.
    """
    _check_out(options.out, options.weights)
    imported = _importer(options.weights)(options)
    model, names, size = imported.model, imported.names, options.image_size or imported.image_size
    if size % model.max_reduction:
        raise InputError(f"image size: must be a multiple of {model.max_reduction}, found {size}")
    is_coco = isinstance(model, DetectionModel) and names == COCO_NAMES
    save_checkpoint(
        options.out,
        model,
        names=names,
        category_ids=imported.category_ids or (COCO_IDS if is_coco else tuple(range(len(names)))),
        image_size=size,
        metrics={},
        provenance={**collect_provenance(), "imported_from": {**_identify(options.weights), **imported.origin}},
        center_crop=imported.center_crop,
        value_range=imported.value_range,
    )
    parameters = sum(parameter.numel() for parameter in model.parameters())
    about = f"{model.definition.name}, {len(names)} classes, {size} px, {parameters:,} parameters"
    return [f"{options.weights}: {imported.line}", f"{options.out}: {about}"]


def _check_out(out: Path, weights: Path) -> None:
    """Raise ``InputError``, before the work, where ``out`` cannot be written or is the input."""
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


def _importer(path: Path) -> Callable[[ImportOptions], Imported]:
    """Choose the reader of a file by its content, then by its suffix."""
    try:
        kind = kind_of(path)
    except OSError:
        kind = None
    if kind in (ARCHIVE, LEGACY, SAFETENSORS):
        return _import_tensors
    if kind == ONNX or (kind != DARKNET and path.suffix == ONNX.suffix):
        return _import_yolox_export
    return _import_tensors if kind != DARKNET and path.suffix in TENSOR_SUFFIXES else _import_darknet


def _identify(path: Path) -> dict[str, str]:
    return {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


# -------------------------------------------------------------------------------------------------------- Darknet


def _import_darknet(options: ImportOptions) -> Imported:
    if options.model is None:
        raise InputError("--model: is needed, because Darknet's files do not say which model they are for")
    if options.names is None:
        raise InputError(f"--names: is needed, because Darknet's files have none: {ANY_NAMES}")
    if options.cfg is not None and options.partial:
        raise InputError("--cfg: describes a whole file; --partial takes a part of one")
    names = read_names(options.names)
    cfg = None if options.cfg is None else read_cfg(options.cfg)
    definition = find_definition(options.model)
    if cfg is not None:
        definition = _with_cfg(definition, cfg, len(names))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_START_SEED)
        model = build_model(definition, len(names))
    if cfg is not None:
        check_structure(model.graph, cfg)
    file = load_darknet(model.graph, options.weights, options.partial)
    origin = {"format": "darknet", **asdict(file), **({} if cfg is None else {"cfg": _identify(cfg.path)})}
    line, size = _darknet_line(file), DARKNET_SIZE
    if cfg is not None:
        line += f"; {anchors_text(model.graph)}: {_cfg_line(cfg, definition.name)}"
        size = max(cfg.input_wh)
    elif file.num_layers == file.total_layers:
        assumed = f"assumed, those of {definition.name}, for the file does not say them; --cfg FILE reads them"
        line += f"; {anchors_text(model.graph)}: {assumed}"
    return Imported(model, names, origin, line, size)


def _with_cfg(definition: ModelDefinition, cfg: DarknetCfg, num_classes: int) -> ModelDefinition:
    """The model with the anchors of a configuration, which must have the same number of classes."""
    for level in cfg.levels:
        if level.num_classes != num_classes:
            raise InputError(f"{level.place}: has {level.num_classes} classes, but {num_classes} names are given")
    with torch.device("meta"):
        graph = DetectionModel(definition, num_classes).graph
    return with_anchors_of(definition, graph, cfg)


def _cfg_line(cfg: DarknetCfg, name: str) -> str:
    width, height = cfg.input_wh
    line = f"of {cfg.path}, whose {len(cfg.layers)} layers with weights are those of {name}"
    return line + (f"; its input of {width} x {height} px becomes {max(width, height)} px" if width != height else "")


def _darknet_line(file: DarknetFile) -> str:
    line = f"Darknet {file.version}, {file.images_seen:,} images seen, {file.num_layers} of {file.total_layers} layers"
    if file.num_layers < file.total_layers:
        line += f", up to {file.last_layer}; the others start as in training"
    if file.skipped_classes:
        line += f"; a classifier's last layer of {file.skipped_classes:,} classes was left out"
    return line


# -------------------------------------------------------------------------------------------------- named tensors


def _refuse_darknet_options(options: ImportOptions) -> None:
    if options.partial:
        raise InputError("--partial: is for Darknet's files; others must fit as a whole")
    if options.cfg is not None:
        raise InputError(f"--cfg: is for Darknet's files; {options.weights} is another one")


def _import_tensors(options: ImportOptions) -> Imported:
    _refuse_darknet_options(options)
    file = read_tensors(options.weights)
    if all(name.startswith((*OWN_NAMES, EXTRAS)) for name in file.tensors):
        return _import_own(options)
    if is_cifar_resnet(file.tensors):
        return _import_cifar_resnet(options, file)
    if torchvision_family(file.tensors) is not None:
        return _import_torchvision(options, file)
    if any(_YOLOV5_NAME.match(name) for name in file.tensors):
        return _import_yolov5(options, file)
    if any(name.startswith(PREFIX) for name in file.tensors):
        model = load_yolox(file.tensors, options.weights, options.model)
        return _yolox(options, model, f"{len(file.tensors)} tensors", {"tensors": len(file.tensors)})
    raise InputError(
        f"{options.weights}: {next(iter(file.tensors))[:80]!r} and the others are of no known family: YOLOv5 has names "
        f"such as 'model.0.conv.weight', YOLOX '{PREFIX}conv.conv.weight', torchvision's ResNet and ResNeXt "
        "'layer1.0.conv1.weight' (as other ResNets of CIFAR), its DenseNet "
        "'features.denseblock1.denselayer1.conv1.weight'"
    )


def _import_own(options: ImportOptions) -> Imported:
    """Read a checkpoint of a strided model as its space-to-depth counterpart."""
    path, source = options.weights, load_checkpoint(options.weights)
    if options.names is not None:
        raise InputError(f"--names: {path} is a checkpoint of this toolkit, which has its own")
    definition = find_definition(options.model) if options.model else source.model.definition
    if not becomes_spd(source.model.definition, definition):
        raise InputError(
            f"{path}: is a checkpoint of this toolkit; --model must name the space-to-depth form of its strided model, "
            f"{source.model.definition.name}, found {options.model or 'none'}"
        )
    if isinstance(source.model, DetectionModel) and definition.rows[-1].module == "AnchorDetect":
        definition = with_args(definition, "AnchorDetect", anchors_px=source.model.head.anchors_px.tolist())
    model, done = spd_model(source.model, definition)
    missing = len(model.state_dict().keys() - done.state.keys())
    if missing:
        raise InputError(
            f"{path}: {missing} of {len(model.state_dict())} tensors of {definition.name} have no counterpart in "
            f"{source.model.definition.name}; detect train --weights takes those that have one"
        )
    origin = {"format": "strided", "model": source.model.definition.name, "rearranged": list(done.rows)}
    ids, values = source.category_ids, source.value_range
    return Imported(model, source.names, origin, done.line, source.image_size, source.center_crop, ids, values)


def _import_yolov5(options: ImportOptions, file: TensorFile) -> Imported:
    model = load_yolov5(file, options.weights, options.model)
    names = file.names if options.names is None else read_names(options.names)
    if names is None:
        raise names_needed(options.weights, ANY_NAMES)
    check_names(names, model, options.weights)
    line = f"{len(file.tensors)} tensors of the YOLOv5 family, {model.definition.name}"
    if not any(name.endswith(".anchors") for name in file.tensors):
        line += f"; {anchors_text(model.graph)}: assumed, those of {model.definition.name}, for the file has none"
    line += renaming_line(file.names, names, options.weights)
    return Imported(model, names, {"format": "yolov5", "tensors": len(file.tensors)}, line, YOLOV5_SIZE)


def _import_yolox_export(options: ImportOptions) -> Imported:
    _refuse_darknet_options(options)
    convolutions = read_convolutions(options.weights)
    model = load_yolox_export(convolutions, options.weights, options.model)
    return _yolox(options, model, f"{len(convolutions)} convolutions", {"convolutions": len(convolutions)})


def _yolox(options: ImportOptions, model: DetectionModel, found: str, origin: dict[str, Any]) -> Imported:
    """The import of a YOLOX; files have no class names, and 80 classes are COCO's unless ``--names`` says otherwise."""
    name, line = model.definition.name, f"{found} of YOLOX, {model.definition.name}"
    if options.names is not None:
        names = read_names(options.names)
    elif model.num_classes == len(COCO_NAMES):
        names = COCO_NAMES
        line += "; its 80 classes are taken for COCO's, --names says others"
    else:
        raise names_needed(options.weights, ANY_NAMES)
    check_names(names, model, options.weights)
    return Imported(model, names, {"format": "yolox", **origin}, line, YOLOX_SMALL_SIZES.get(name, YOLOX_SIZE))


def _import_torchvision(options: ImportOptions, file: TensorFile) -> Imported:
    refuse_coco(options.names)
    model = load_torchvision(file, options.weights, options.model)
    line = f"{len(file.tensors)} tensors of torchvision, {model.definition.name}"
    if options.names is not None:
        names = read_names(options.names)
    elif model.num_classes == IMAGENET_CLASSES:
        names = tuple(str(i) for i in range(IMAGENET_CLASSES))
        line += "; its classes are called 0 to 999, --names FILE calls them otherwise"
    else:
        raise names_needed(options.weights, CLASSIFIER_NAMES)
    check_names(names, model, options.weights)
    line += f"; ImageNet's mean and deviation{f' and {TORCHVISION_SIZE} px' * (options.image_size is None)} are assumed"
    origin = {"format": "torchvision", "tensors": len(file.tensors)}
    return Imported(model, names, origin, line, TORCHVISION_SIZE, TORCHVISION_CROP)


def _import_cifar_resnet(options: ImportOptions, file: TensorFile) -> Imported:
    if options.names is None:
        raise names_needed(options.weights, CLASSIFIER_NAMES)
    refuse_coco(options.names)
    model, note = load_cifar_resnet(file, options.weights, options.model)
    names = read_names(options.names)
    check_names(names, model, options.weights)
    line = f"{len(file.tensors)} tensors of a ResNet for CIFAR, {model.definition.name}; {note}"
    return Imported(model, names, {"format": "cifar-resnet", "tensors": len(file.tensors)}, line, CIFAR_SIZE)
