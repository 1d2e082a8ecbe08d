"""The export of a trained model as a function: a file, a folder of instances, or a page for browsers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from detect.api.evaluation_request import choose_instance
from detect.data.annotations import AnnotationTable
from detect.data.classification.datasets import open_class_split
from detect.data.classification.table import ClassTable
from detect.data.datasets import open_split
from detect.data.recognition import open_data
from detect.data.value_range import as_trained
from detect.errors import InputError
from detect.evaluation.loop import log_class_differences
from detect.evaluation.postprocess import PredictSettings
from detect.exporting.calibration import DEFAULT_IMAGES, DEFAULT_METHOD, Method, read_calibration, warn_of_grey
from detect.exporting.converters import CONVERTERS, export_converted
from detect.exporting.instances import WEIGHTS, export_instances
from detect.exporting.int8 import Int8Result, export_int8
from detect.exporting.onnx import checked_options, export_onnx
from detect.exporting.options import DEFAULT_OPSET, ExportOptions, Masks, masks_note
from detect.exporting.parity import Parity
from detect.exporting.web.folder import MODEL_FILE, write_page
from detect.exporting.web.runtime import PACKAGE, read_runtime
from detect.inference.runtimes.formats import FORMATS, ONNX, Format, num_bytes
from detect.models.checkpoint import Checkpoint, load_checkpoint
from detect.runtime.files import atomic_folder, write_text
from detect.runtime.logs import LOGGER
from detect.runtime.threads import use_threads

RUNNER = Path(__file__).parents[1] / "exporting" / "onnx_runner.py"
"""Program that runs an exported file with numpy, onnxruntime and opencv alone."""
CALIBRATION_SPLIT = "train"
"""Split that gives the ranges of an INT8 file: never the one that measures it."""


@dataclass(frozen=True)
class ExportRequest:
    """The flags of ``detect export``, by their names; its help describes them."""

    weights: Path
    out: Path | None = None
    image_size: int | None = None
    dynamic: bool | None = None
    half: bool = False
    opset: int = DEFAULT_OPSET
    masks: Masks = "folded"
    cost: float | None = None
    instances: Sequence[str] | None = None
    data: str | None = None
    data_root: str | None = None
    split: str = "val"
    nms: bool = False
    raw: bool = False
    conf: float | None = None
    iou: float | None = None
    max_det: int | None = None
    threads: int = 0
    int8: bool = False
    calibration: int | None = None
    calibration_method: Method | None = None
    weights_only: bool = False
    report: bool = False
    format: str = ONNX.name

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise InputError(f"format: must be one of {', '.join(FORMATS)}, found {self.format!r:.80}")
        if self.instances is not None and self.format != ONNX.name:
            raise InputError(f"--instances: not with --format {self.format}; --cost exports one instance")
        chosen = {"calibration": self.calibration, "calibration_method": self.calibration_method}
        chosen |= {"weights_only": self.weights_only or None, "report": self.report or None}
        given = [f"--{name.replace('_', '-')}" for name, value in chosen.items() if value is not None]
        if given and not self.int8:
            raise InputError(f"{', '.join(given)}: belongs to --int8")
        if self.int8 and self.data is None:
            raise InputError("--int8: needs --data: training images for the ranges, validation images for the accuracy")
        if self.weights_only and self.calibration_method is not None:
            raise InputError("--calibration-method: not together with --weights-only, which has nothing to calibrate")


@dataclass(frozen=True)
class Exported:
    """An exported file, or a folder of them.

    Args:
        path: of it.
        lines: its description, for people.
        record: its description, for programs.
    """

    path: Path
    lines: tuple[str, ...]
    record: dict[str, Any]


def export(
    weights: str | PathLike[str],
    out: str | PathLike[str] | None = None,
    *,
    image_size: int | None = None,
    dynamic: bool = True,
    half: bool = False,
    nms: bool = False,
    int8: str | PathLike[str] | None = None,
    format: str = ONNX.name,  # noqa: A002  # the word of the command
) -> Path:
    """Write a trained model as ONNX and check it in ONNX Runtime, as ``detect export`` does.

    ``onnx_runner.py``, which runs the file without PyTorch, is written beside it.

    Args:
        weights: a checkpoint, or a shipped name.
        out: the file to write; default, ``model.onnx`` beside the weights, or ``model`` with another format's suffix.
        image_size: side of the network input in pixels; default, as trained.
        dynamic: any batch size, height and width; otherwise one square image.
        half: the network computes in half precision.
        nms: non-maximum suppression inside the file, which then gives detections.
        int8: a data set: the network computes in 8 bits, calibrated on its training split, and the file is written only
            if its AP on the validation split, of a classifier top-1, holds.
        format: ``onnx``, or another one of ``detect.inference.runtimes.formats``, which is checked in its own runtime.

    Returns:
        The path of the file.

    Raises:
        InputError: an argument or the checkpoint is wrong.
        ExportError: the file does not compute what the model does (``detect.exporting.parity``).
    """
    path = None if out is None else Path(out)
    request = ExportRequest(
        Path(weights),
        path,
        image_size=image_size,
        dynamic=dynamic,
        half=half,
        nms=nms,
        int8=int8 is not None,
        data=None if int8 is None else fspath(int8),
        format=format,
    )
    return run_export(request).path


def run_export(request: ExportRequest) -> Exported:
    """Export a model and compare the file with it; errors as ``export``."""
    use_threads(request.threads)
    if request.instances is not None:
        if request.cost is not None:
            raise InputError("--instances: not together with --cost, which is for a single file")
        if request.int8:
            raise InputError("--instances: not together with --int8; --cost exports one instance as an INT8 file")
        return _export_folder(request, request.instances)
    return _export_file(request, FORMATS[request.format], load_checkpoint(request.weights))


def _export_file(request: ExportRequest, chosen: Format, checkpoint: Checkpoint) -> Exported:
    """Export a model as one file, with those that belong to it."""
    out = request.out or request.weights.with_name(chosen.file_name)
    if out.resolve() == request.weights.resolve():
        raise InputError(f"--out {out}: is the checkpoint itself")
    suppression = _suppression(request)
    lines = []
    if request.cost is not None:
        checkpoint, line = choose_instance(checkpoint, request.cost, request.image_size)
        lines.append(line)
    wanted = request.image_size if request.cost is None else None  # the checkpoint has the instance's
    dynamic = _is_dynamic(request, checkpoint)
    options = ExportOptions(
        wanted,
        request.opset,
        request.masks,
        suppression,
        dynamic,
        request.half,
        request.raw,
        request.int8,
        request.weights_only,
        chosen,
    )
    parity, int8 = _write(request, checkpoint, out, options)
    size = wanted or checkpoint.image_size
    lines.append(_description(out, options, size))
    if note := masks_note(checkpoint.model, request.masks):
        lines.append(note)
    lines.append(parity.line())
    if int8 is not None:
        lines += [int8.line(), *int8.cost_lines()]
    lines.append(copy_runner(out) if chosen is ONNX else f"files: {', '.join(map(str, chosen.files(out)))}")
    record = {
        "out": str(out),
        "format": request.format,
        "bytes": num_bytes(out),
        **({"opset": request.opset} if chosen is ONNX else {}),
        "dynamic": dynamic,
        "image_size": size,
        "parity": asdict(parity),
        **({} if int8 is None else {"int8": int8.record()}),
    }
    return Exported(out, tuple(lines), record)


def _description(out: Path, options: ExportOptions, size: int) -> str:
    """One line: size, kind and inputs of a file."""
    inputs = "any batch size, height and width" if options.dynamic else f"one image of {size} x {size} pixels"
    kind = f"opset {options.opset}" if options.format is ONNX else f"{options.format.title}, {options.precision}"
    return f"{out}: {num_bytes(out) / 2**20:.1f} MiB, {kind}, {inputs}"


def run_web_export(request: ExportRequest, runtime: Path | None) -> Exported:
    """Export a detector into a new folder, with a page that runs it; ``runtime`` is the npm package onnxruntime-web.

    Raises:
        InputError: an option, the checkpoint or the package is wrong.
        ExportError: the file does not compute what the model does; there is no folder then.
    """
    if request.instances is not None:
        raise InputError("--instances: not together with --format web, whose page has one network; --cost exports one")
    use_threads(request.threads)
    out = request.out or request.weights.with_name("web")
    found = read_runtime(runtime)
    checkpoint = load_checkpoint(request.weights)
    if checkpoint.model.definition.is_classifier:
        raise InputError(f"{request.weights}: is a classifier; --format web is for detectors")
    with atomic_folder(out) as building:
        model = building / MODEL_FILE
        exported = _export_file(replace(request, out=model), FORMATS[request.format], checkpoint)
        (building / RUNNER.name).unlink()  # a web server would give it to everybody
        write_page(building, request.weights, checkpoint, found)
    lines = [line.replace(str(model), str(out / MODEL_FILE)) for line in exported.lines[:-1]]  # without the runner's
    lines += rounding_note(request)
    total = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    lines.append(f"{out}: {total / 2**20:.1f} MiB with {PACKAGE} {found.version}; python -m http.server -d {out}")
    record = {**exported.record, "out": str(out), "folder_bytes": total, "runtime": f"{PACKAGE} {found.version}"}
    return Exported(out, tuple(lines), record)


def rounding_note(request: ExportRequest) -> list[str]:
    """Line about a file whose activations have 8 bits: the browser rounds some of them to the other neighbour."""
    if not request.int8 or request.weights_only:
        return []
    return [
        "INT8: in a browser boxes are pixels from those of the same file in Python: the runtimes round differently; "
        "those of --int8 --weights-only are not"
    ]


def _export_folder(request: ExportRequest, names: Sequence[str]) -> Exported:
    """Export several instances of a model into a folder."""
    out = request.out or request.weights.with_name("instances")
    suppression, checkpoint = _suppression(request), load_checkpoint(request.weights)
    options = ExportOptions(
        request.image_size,
        request.opset,
        request.masks,
        suppression,
        dynamic=bool(request.dynamic),
        half=request.half,
        raw=request.raw,
    )
    found = export_instances(checkpoint, out, names, options, _table(request, checkpoint))
    sizes = {path.name: path.stat().st_size for path in sorted(out.iterdir())}
    lines = [
        f"{out / one.file}: {sizes[one.file] / 2**20:.2f} MiB, cost {one.entry.cost:.3f}, {one.entry.ms:.3g} ms; "
        f"{one.parity.line()}"
        for one in found
    ]
    shared, total = sizes[WEIGHTS] / 2**20, sum(sizes.values()) / 2**20
    lines.append(f"{out}: {total:.1f} MiB, of which {shared:.1f} MiB are the weights that {len(found)} files share")
    lines.append(copy_runner(out / found[0].file))
    record = {
        "out": str(out),
        "bytes": sum(sizes.values()),
        "weights_bytes": sizes[WEIGHTS],
        "opset": request.opset,
        "instances": [{**vars(one.entry), "file": one.file, "parity": asdict(one.parity)} for one in found],
    }
    return Exported(out, tuple(lines), record)


def _write(
    request: ExportRequest, checkpoint: Checkpoint, out: Path, options: ExportOptions
) -> tuple[Parity, Int8Result | None]:
    if options.format is not ONNX:
        return export_converted(checkpoint, out, options, _table(request, checkpoint)), None
    if not request.int8:
        return export_onnx(checkpoint, out, options, _table(request, checkpoint)), None
    options = checked_options(checkpoint, out, options)  # before reading images
    assert request.data is not None, "the request was checked"
    assert options.image_size is not None, "it is resolved"
    data = as_trained(open_data(request.data, request.data_root), checkpoint.value_range)
    opened = open_class_split if checkpoint.model.definition.is_classifier else open_split
    train, table = opened(data, CALIBRATION_SPLIT), opened(data, request.split)
    if request.split == CALIBRATION_SPLIT and not request.weights_only:
        LOGGER.warning(
            "--split %s: the accuracy is measured on the split that gives the ranges; another one says what to expect "
            "of new images",
            request.split,
        )
    for split in (train, table):
        log_class_differences(checkpoint.names, split.names)
    _require_labels(request, table)
    count, method = request.calibration or DEFAULT_IMAGES, request.calibration_method or DEFAULT_METHOD
    calibration = read_calibration(train, checkpoint, options.image_size, count, method)
    warn_of_grey(calibration, table)
    return export_int8(checkpoint, out, options, calibration, table, request.report)


def _is_dynamic(request: ExportRequest, checkpoint: Checkpoint) -> bool:
    """Any size, unless the request, the model or the format does not have it."""
    if request.dynamic is not None:
        return request.dynamic
    converter = CONVERTERS.get(request.format)
    return not checkpoint.model.graph.transform.fixed_sizes and (converter is None or converter.dynamic)


def copy_runner(exported: Path) -> str:
    """Copy ``onnx_runner.py`` beside an exported file; an existing one stays, since a user may have changed it.

    Returns:
        Its use, in one line.
    """
    target, program = exported.with_name(RUNNER.name), RUNNER.read_text(encoding="utf-8")
    if not target.exists():
        write_text(target, program)
    elif target.read_text(encoding="utf-8", errors="replace") != program:
        return f"{target}: is there and differs from the one of this version, so it was left alone"
    return f"without PyTorch: python {target} {exported} IMAGE"


def _table(request: ExportRequest, checkpoint: Checkpoint) -> AnnotationTable | None:
    if request.data is None:
        return None
    checkpoint.detector  # noqa: B018  # raises for a classifier, before its data are read as boxes
    data = as_trained(open_data(request.data, request.data_root), checkpoint.value_range)
    table = open_split(data, request.split)
    log_class_differences(checkpoint.names, table.names)
    _require_labels(request, table)
    return table


def _require_labels(request: ExportRequest, table: AnnotationTable | ClassTable) -> None:
    if isinstance(table, AnnotationTable) and not table.is_labelled:
        raise InputError(f"--split {request.split}: has no annotations, so that there is no AP to compare")


def _suppression(request: ExportRequest) -> PredictSettings | None:
    names = {"conf": "score_threshold", "iou": "iou_threshold", "max_det": "max_detections"}
    given = {name: getattr(request, name) for name in names if getattr(request, name) is not None}
    if given and not request.nms:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise InputError(f"{options}: belongs to --nms; without it the file gives all predictions")
    return PredictSettings(**{names[name]: value for name, value in given.items()}) if request.nms else None
