"""Report on a network's instances (SDPoint): table, files, and the records in the checkpoint."""

from __future__ import annotations

import os
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

from detect.data.annotations import AnnotationTable
from detect.data.classification.table import ClassTable
from detect.evaluation.coco import Engine
from detect.evaluation.loop import Conditions
from detect.evaluation.outputs import EvaluationOutputs
from detect.models.checkpoint import Checkpoint, load_checkpoint, rewrite_checkpoint
from detect.papers.sdpoint.comparison import Comparison, compare_instances, instances_of
from detect.papers.sdpoint.instances import with_instances
from detect.papers.sdpoint.metrics import ClassificationSplit, DetectionSplit
from detect.papers.sdpoint.picture import draw_comparison
from detect.papers.sdpoint.report import comparison_record, comparison_table
from detect.runtime.files import write_json

FileStamp = tuple[int, int, int]
"""Time of the last change, size and inode of a file."""


class InstanceReport:
    """Measurement of all instances of a checkpoint, and of its plain network at lower image sizes.

    Args:
        weights: the checkpoint's file.
        checkpoint: its content.
        baseline: file of a checkpoint trained without SDPoint, to compare with.

    Raises:
        InputError: the checkpoint has no instances, or the baseline cannot be read.
    """

    def __init__(self, weights: Path, checkpoint: Checkpoint, baseline: Path | None) -> None:
        self._weights, self._checkpoint = weights, checkpoint
        self._count = len(instances_of(checkpoint, str(weights)).members)
        self._stamp = file_stamp(weights)
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
        """Measure, keep the records in the checkpoint, and write the requested files.

        Args:
            table: a labelled split.
            conditions: image size, batch size, device, ...
            outputs: the metrics file and the folder for ``instances.png``.
            about: weights, data, split, for the record.
            title: data set, split and image size, for the picture.
            engine: computes AP.

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
        yield store_records(self._weights, checkpoint, comparison, self._stamp)
        picture_title = f"{checkpoint.model.definition.name}, {self._count} instances: {title}"
        yield from write_comparison(outputs, comparison, picture_title)
        return comparison_record(comparison)


def write_comparison(wanted: EvaluationOutputs, comparison: Comparison, title: str) -> list[str]:
    """Write the metrics file and ``instances.png``, as far as requested; returns a line for each."""
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
    """Write the records of the instances into their checkpoint, from which ``Detector.choose`` reads them.

    Args:
        path: the checkpoint's file.
        checkpoint: its content; the plain network must be in use.
        comparison: the records.
        stamp: of the file when it was read.

    Returns:
        A line with the file, or with the reason why it is left: a training that is not over rewrites its files.
    """
    path = path.resolve()
    if checkpoint.training is not None:
        return f"not stored: {path} is what a training resumes from; best.pt keeps records"
    if not path.exists() or file_stamp(path) != stamp:
        return f"not stored: {path} has changed since it was read"
    if not path.stat().st_mode & 0o222 or not os.access(path, os.W_OK):
        return f"not stored: {path} is write-protected"
    instances = replace(instances_of(checkpoint, str(path)), records=comparison.records, measured=comparison.measured)
    try:
        rewrite_checkpoint(path, with_instances(checkpoint, instances))
    except OSError as error:
        return f"not stored: {path}: {error.strerror or error}"
    return f"stored in {path}: detect predict --cost, --gflops and --target-ms choose by them"
