"""The export of a trained model as a function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from detect.api.evaluation import choose_instance
from detect.data.annotations import AnnotationTable
from detect.data.datasets import open_split
from detect.data.recognition import open_data
from detect.data.value_range import as_trained
from detect.errors import InputError
from detect.evaluation.loop import log_class_differences
from detect.evaluation.postprocess import PredictSettings
from detect.exporting.instances import WEIGHTS, export_instances
from detect.exporting.onnx import export_onnx
from detect.exporting.options import DEFAULT_OPSET, ExportOptions, Masks, masks_note
from detect.models.checkpoint import Checkpoint, load_checkpoint
from detect.runtime.files import write_text
from detect.runtime.threads import use_threads

RUNNER = Path(__file__).parents[1] / "exporting" / "onnx_runner.py"
"""Program that runs an exported file with numpy, onnxruntime and opencv alone."""


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
) -> Path:
    """Write a trained model as ONNX and check it in ONNX Runtime, as ``detect export`` does.

    ``onnx_runner.py``, which runs the file without PyTorch, is written beside it.

    Args:
        weights: a checkpoint, or a shipped name.
        out: the file to write; default, ``model.onnx`` beside the weights.
        image_size: side of the network input in pixels; default, as trained.
        dynamic: any batch size, height and width; otherwise one square image.
        half: the network computes in half precision.
        nms: non-maximum suppression inside the file, which then gives detections.

    Returns:
        The path of the file.

    Raises:
        InputError: an argument or the checkpoint is wrong.
        ExportError: the file does not compute what the model does (``detect.exporting.parity``).
    """
    path = None if out is None else Path(out)
    request = ExportRequest(Path(weights), path, image_size=image_size, dynamic=dynamic, half=half, nms=nms)
    return run_export(request).path


def run_export(request: ExportRequest) -> Exported:
    """Export a model and compare the file with it; errors as ``export``."""
    use_threads(request.threads)
    if request.instances is not None:
        if request.cost is not None:
            raise InputError("--instances: not together with --cost, which is for a single file")
        return _export_folder(request, request.instances)
    out = request.out or request.weights.with_name("model.onnx")
    if out.resolve() == request.weights.resolve():
        raise InputError(f"--out {out}: is the checkpoint itself")
    suppression = _suppression(request)
    checkpoint = load_checkpoint(request.weights)
    lines = []
    if request.cost is not None:
        checkpoint, line = choose_instance(checkpoint, request.cost)
        lines.append(line)
    dynamic = not checkpoint.model.graph.transform.fixed_sizes if request.dynamic is None else request.dynamic
    size = request.image_size or checkpoint.image_size
    options = ExportOptions(
        request.image_size, request.opset, request.masks, suppression, dynamic, request.half, request.raw
    )
    parity = export_onnx(checkpoint, out, options, _table(request, checkpoint))
    inputs = "any batch size, height and width" if dynamic else f"one image of {size} x {size} pixels"
    lines.append(f"{out}: {out.stat().st_size / 2**20:.1f} MiB, opset {request.opset}, {inputs}")
    if note := masks_note(checkpoint.model, request.masks):
        lines.append(note)
    lines += [parity.line(), copy_runner(out)]
    record = {
        "out": str(out),
        "bytes": out.stat().st_size,
        "opset": request.opset,
        "dynamic": dynamic,
        "image_size": size,
        "parity": asdict(parity),
    }
    return Exported(out, tuple(lines), record)


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
    if not table.is_labelled:
        raise InputError(f"--split {request.split}: has no annotations, so that there is no AP to compare")
    return table


def _suppression(request: ExportRequest) -> PredictSettings | None:
    names = {"conf": "score_threshold", "iou": "iou_threshold", "max_det": "max_detections"}
    given = {name: getattr(request, name) for name in names if getattr(request, name) is not None}
    if given and not request.nms:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise InputError(f"{options}: belongs to --nms; without it the file gives all predictions")
    return PredictSettings(**{names[name]: value for name, value in given.items()}) if request.nms else None
