"""Outputs of the comparison of instances (SDPoint): table, JSON, picture and records in the checkpoint.

matplotlib is imported on use, without ``pyplot``, which holds figures in global state and chooses a window system.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from detect.data.annotations import AnnotationTable
from detect.data.classification.table import ClassTable
from detect.drawing.text import chart_text, shorten
from detect.evaluation.coco import ABSENT, Engine
from detect.evaluation.loop import Conditions
from detect.evaluation.outputs import EvaluationOutputs
from detect.evaluation.report import number
from detect.models.catalog import find_weights, shipped_weights
from detect.models.checkpoint import Checkpoint, load_checkpoint, rewrite_checkpoint
from detect.papers.sdpoint.comparison import (
    Baseline,
    ClassificationSplit,
    Comparison,
    DetectionSplit,
    SizeRecord,
    compare_instances,
)
from detect.papers.sdpoint.difficulty import draw_least_costs
from detect.papers.sdpoint.instances import InstanceRecord, Instances, instances_of, with_instances
from detect.papers.sdpoint.transform import PLAIN
from detect.runtime.files import atomic_path, write_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INSTANCE, FRONT, BASELINES = "#9ecae1", "#1f4e79", ("#e45756", "#f2a541")
MAX_NAME = 40
"""Characters of a baseline's model and run."""
LABEL_SHARE = 0.1
"""Least distance of two labelled instances of the Pareto front, a share of the full cost; a label is as wide."""
FileStamp = tuple[int, int, int]
"""Modification time in ns, size and inode of a file."""


def comparison_table(comparison: Comparison) -> str:
    """Format all instances, cheapest first, with the baselines at equal multiply-adds; then the baselines."""
    own, *others = comparison.baselines
    labels = [("own", f"{comparison.metric} of this plain network at the image size that has as many multiply-adds")]
    labels += [("other", f"the same of {baseline.source}") for baseline in others]
    lines = _head(comparison)
    at_equal_cost = [f"{label:>8}" for label, _ in labels]
    lines += ["", f"  {'instance':14}{_column_names(comparison)}{''.join(at_equal_cost)}"]
    front, front_ms = comparison.front, comparison.front_ms
    for record in sorted(comparison.records, key=lambda record: record.macs):
        marks = ("*" if record in front else " ") + ("+" if record in front_ms else " ")
        line = f"{marks}{record.instance.name:14}{_numbers(comparison, record)}"
        for baseline in comparison.baselines if record in front else ():
            line += _cell(baseline.at(record.macs, comparison.metric))
        lines.append(line)
    lines += [
        "",
        f"*: on the Pareto front; no other instance of this cost or less reaches this {comparison.metric}",
        "+: the same by milliseconds",
    ]
    lines += [f"{label}: {meaning}" for label, meaning in labels]
    lines += _baseline_lines(comparison, own, "this plain network")
    for baseline in others:
        lines += _baseline_lines(comparison, baseline, baseline.source)
    if any(record.metrics[name] == ABSENT for record in comparison.records for name in comparison.shown):
        lines += ["", "-1: there is no such object in the ground truth"]
    return "\n".join(lines)


def comparison_record(comparison: Comparison) -> dict[str, Any]:
    """Content of ``--metrics-json``.

    Returns:
        ``metric``, ``own_norms``, ``instances`` (name, point, ratio, scale, share of the full cost, macs, ms, pareto,
        pareto_ms, metrics, and ``baselines``: for each its metric at equal multiply-adds, or None), ``baselines``
        (source and sizes), and the entries of ``Comparison.measured``. No NaN.
    """
    metric, front = comparison.metric, comparison.front
    return {
        "metric": metric,
        "own_norms": comparison.has_own_norms,
        "instances": [
            {
                "name": record.instance.name,
                "point": record.instance.point,
                "ratio": record.instance.ratio,
                "scale": record.instance.scale,
                **_plain(comparison, record),
                "pareto": record in front,
                "pareto_ms": record in comparison.front_ms,
                "baselines": [baseline.at(record.macs, metric) for baseline in comparison.baselines],
            }
            for record in comparison.records
        ],
        "baselines": [
            {
                "source": baseline.source,
                "sizes": [{"image_size": size.image_size, **_plain(comparison, size)} for size in baseline.sizes],
            }
            for baseline in comparison.baselines
        ],
        **comparison.measured,
    }


def _head(comparison: Comparison) -> list[str]:
    measured = comparison.measured
    norms = "each with norms of its own" if comparison.has_own_norms else "all with the norms of the training (uniform)"
    return [
        f"{len(comparison.records)} instances, {norms}; {measured['data']} {measured['split']} at "
        f"{measured['image_size']} px in {measured['precision']} on {measured['device']}",
        "share: of the plain network's multiply-adds; GMACs: billions of them for one square image; "
        "ms: of the network alone for it, median, all in turn",
    ]


def _column_names(comparison: Comparison) -> str:
    return f"{'share':>6}{'GMACs':>10}{'ms':>9}" + "".join(f"{name:>8}" for name in comparison.shown)


def _numbers(comparison: Comparison, record: InstanceRecord | SizeRecord) -> str:
    metrics = "".join(_cell(record.metrics[name]) for name in comparison.shown)
    return f"{record.macs / comparison.full_macs:6.3f}{record.macs / 1e9:>#10.4g}{record.ms:9.2f}{metrics}"


def _cell(value: float | None) -> str:
    return f"{'-':>8}" if value is None else f"  {number(value)}"


def _baseline_lines(comparison: Comparison, baseline: Baseline, name: str) -> Sequence[str]:
    rows = [f"  {f'{size.image_size} px':14}{_numbers(comparison, size)}" for size in baseline.sizes]
    return ["", f"Baseline: {name} at lower image sizes", f"  {'size':14}{_column_names(comparison)}", *rows]


def _plain(comparison: Comparison, record: InstanceRecord | SizeRecord) -> dict[str, Any]:
    return {
        "share": record.macs / comparison.full_macs,
        "macs": record.macs,
        "ms": round(record.ms, 3),
        "metrics": dict(record.metrics),
    }


class InstanceReport:
    """Measurement of all instances of a checkpoint, and of its plain network at lower image sizes.

    Args:
        weights: the checkpoint's file, or a shipped name.
        checkpoint: its content.
        baseline: file of a checkpoint trained without SDPoint, to compare with.

    Raises:
        InputError: the checkpoint has no instances, or the baseline cannot be read.
    """

    def __init__(self, weights: Path, checkpoint: Checkpoint, baseline: Path | None) -> None:
        self._weights, self._checkpoint = weights, checkpoint
        self._count = len(instances_of(checkpoint, str(weights)).members)
        self._path = find_weights(weights)
        self._stamp = file_stamp(self._path)
        self._baseline = None if baseline is None else (str(baseline), load_checkpoint(baseline))

    def run(
        self,
        table: AnnotationTable | ClassTable,
        conditions: Conditions,
        outputs: EvaluationOutputs,
        about: dict[str, Any],
        *,
        title: str,
        engine: Engine = "pycocotools",
    ) -> Generator[str, None, dict[str, Any]]:
        """Measure on a labelled split, keep the records in the checkpoint, and write the requested files.

        ``outputs`` are the metrics file and the folder for ``instances.png``; ``about`` is weights, data and split, for
        the record; ``title`` is data set, split and image size, for the picture; ``engine`` computes AP.

        Yields:
            The table, and a line for each file.

        Returns:
            The content of the metrics file, ``comparison_record``.
        """
        checkpoint = self._checkpoint
        split: ClassificationSplit | DetectionSplit
        if isinstance(table, ClassTable):
            split = ClassificationSplit(table, checkpoint.center_crop)
            about = {**about, "center_crop": split.center_crop}
        else:
            split = DetectionSplit(table, engine)
        weights = (str(self._weights), checkpoint)
        comparison = compare_instances(weights, split, conditions, self._baseline, about)
        yield comparison_table(comparison)
        yield store_records(self._path, checkpoint, comparison, self._stamp)
        picture_title = f"{checkpoint.model.definition.name}, {self._count} instances: {title}"
        yield from write_comparison(outputs, comparison, picture_title)
        if isinstance(split, ClassificationSplit) and outputs.pictures is not None:
            sheet = outputs.pictures / "least_costs.jpg"
            draw_least_costs(sheet, comparison, split.table, split.center_crop)
            yield f"images by the least cost that gets them right: {sheet}"
        return comparison_record(comparison)


def write_comparison(wanted: EvaluationOutputs, comparison: Comparison, title: str) -> list[str]:
    """Write metrics and picture to their requested places; returns a line for each file."""
    lines = []
    if wanted.metrics_json is not None:
        write_json(wanted.metrics_json, comparison_record(comparison))
        lines.append(f"metrics: {wanted.metrics_json}")
    if wanted.pictures is not None:
        draw_comparison(wanted.pictures / "instances.png", comparison, title)
        lines.append(f"picture: {wanted.pictures / 'instances.png'}")
    return lines


def file_stamp(path: Path) -> FileStamp:
    status = path.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino


def store_records(path: Path, checkpoint: Checkpoint, comparison: Comparison, stamp: FileStamp) -> str:
    """Store the records of the instances in their checkpoint, which prediction reads.

    Only the plain network and instances on a Pareto front, by multiply-adds or by milliseconds, stay in the file.

    Args:
        path: the checkpoint's file.
        checkpoint: its content, with the plain network active.
        comparison: the records.
        stamp: of the file as it was read.

    Returns:
        A line with the place, or with the reason why nothing was stored.
    """
    path = path.resolve()
    if checkpoint.training is not None:
        return f"not stored: {path} is what a training resumes from; best.pt keeps records"
    if path in [shipped.resolve() for shipped in shipped_weights().values()]:
        return f"not stored: {path} is shipped, with the records of its card; a copy of it keeps others"
    if not path.exists() or file_stamp(path) != stamp:
        return f"not stored: {path} has changed since it was read"
    if not path.stat().st_mode & 0o222 or not os.access(path, os.W_OK):
        return f"not stored: {path} is write-protected"
    instances = _front_only(instances_of(checkpoint, str(path)), comparison)
    try:
        rewrite_checkpoint(path, with_instances(checkpoint, instances))
    except OSError as error:
        return f"not stored: {path}: {error.strerror or error}"
    kept = f"{len(instances.members)} of {len(comparison.records)} instances, those on a front, stay in the file"
    return f"stored in {path}: detect predict --cost, --gflops and --target-ms choose by them; {kept}"


def _front_only(instances: Instances, comparison: Comparison) -> Instances:
    """The plain network and the instances on a front, with their statistics and records."""
    kept = {PLAIN, *(record.instance for record in (*comparison.front, *comparison.front_ms))}
    return replace(
        instances,
        members=tuple(member for member in instances.members if member in kept),
        statistics={member: norms for member, norms in instances.statistics.items() if member in kept},
        records=tuple(record for record in comparison.records if record.instance in kept),
        measured=comparison.measured,
    )


def draw_comparison(path: Path, comparison: Comparison, title: str) -> None:
    """Draw the metric over the multiply-adds, as a PNG: all instances, their Pareto front, and the baselines."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _draw_instances(axes, comparison)
    own, *others = comparison.baselines
    _draw_baseline(axes, own, comparison.metric, BASELINES[0], "the same plain network at lower image sizes")
    for baseline in others:
        name = f"{shorten(baseline.title, MAX_NAME)} at lower image sizes"
        _draw_baseline(axes, baseline, comparison.metric, BASELINES[1], name)
    axes.set_xlabel("billions of multiply-adds of an image")
    axes.set_ylabel(comparison.metric)
    axes.set_title(chart_text(title), fontsize=10, parse_math=False)
    axes.margins(0.07)
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    axes.legend(loc="lower right", fontsize=8)
    full = comparison.full_macs / 1e9
    axes.secondary_xaxis(
        "top", functions=(lambda gmacs: np.divide(gmacs, full), lambda share: np.multiply(share, full))
    ).set_xlabel("share of the full cost")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)


def _draw_instances(axes: Axes, comparison: Comparison) -> None:
    metric, front = comparison.metric, comparison.front
    others = [record for record in comparison.records if record not in front]
    axes.plot(
        [record.macs / 1e9 for record in others],
        [record.metrics[metric] for record in others],
        linestyle="",
        marker="o",
        markersize=5,
        color=INSTANCE,
        label="instances",
    )
    axes.plot(
        [record.macs / 1e9 for record in front],
        [record.metrics[metric] for record in front],
        marker="o",
        markersize=6,
        linewidth=1.8,
        color=FRONT,
        label="instances on the Pareto front",
        zorder=4,
    )
    labelled = np.inf
    for record in reversed(front):
        if labelled - record.macs >= LABEL_SHARE * comparison.full_macs:
            labelled = record.macs
            place = (record.macs / 1e9, record.metrics[metric])
            style: dict[str, Any] = {"xytext": (-5, 5), "textcoords": "offset points", "ha": "right", "fontsize": 8}
            axes.annotate(record.instance.name, place, color=FRONT, zorder=5, **style)


def _draw_baseline(axes: Axes, baseline: Baseline, metric: str, color: str, name: str) -> None:
    """Draw a baseline, sizes to the right of the points of the first one, to the left of the other's."""
    right = color == BASELINES[0]
    places = [(size.macs / 1e9, size.metrics[metric]) for size in baseline.sizes]
    xs, ys = zip(*places, strict=True)
    line, *_ = axes.plot(xs, ys, linestyle="--", marker="s", markersize=4, color=color, label="_", zorder=3)
    line.set_label(chart_text(name).replace("$", r"\$"))
    for size, place in zip(baseline.sizes, places, strict=True):
        style: dict[str, Any] = {"xytext": (4, -11) if right else (-4, 5), "ha": "left" if right else "right"}
        axes.annotate(
            f"{size.image_size} px", place, fontsize=7, color=color, zorder=3, textcoords="offset points", **style
        )
