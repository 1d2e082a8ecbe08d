"""The files that the comparison of a network's instances (SDPoint) leaves, and its place in the checkpoint."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from detect.evaluation.outputs import EvaluationOutputs
from detect.models.checkpoint import Checkpoint, rewrite_checkpoint
from detect.papers.sdpoint.comparison import Comparison, instances_of
from detect.papers.sdpoint.instances import with_instances
from detect.papers.sdpoint.picture import draw_comparison
from detect.papers.sdpoint.report import comparison_record
from detect.runtime.files import write_json

FileStamp = tuple[int, int, int]
"""Of a file: when it was changed, its size and its identity."""


def write_comparison(wanted: EvaluationOutputs, comparison: Comparison, title: str) -> list[str]:
    """Write the wanted files.

    Args:
        wanted: the metrics, as of ``comparison_record``; a folder for ``instances.png``.
        comparison: what was measured.
        title: of the picture.

    Returns:
        One line for each file.
    """
    lines = []
    if wanted.metrics_json is not None:
        write_json(wanted.metrics_json, comparison_record(comparison))
        lines.append(f"metrics: {wanted.metrics_json}")
    if wanted.pictures is not None:
        draw_comparison(wanted.pictures / "instances.png", comparison, title)
        lines.append(f"picture: {wanted.pictures / 'instances.png'}")
    return lines


def file_stamp(path: Path) -> FileStamp:
    """By which it can be seen that a file is still the same."""
    status = path.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino


def store_records(path: Path, checkpoint: Checkpoint, comparison: Comparison, stamp: FileStamp) -> str:
    """Keep the records of the instances in their checkpoint, where prediction looks for them.

    Args:
        path: the checkpoint's file.
        checkpoint: its content; the plain network must be running.
        comparison: what was measured.
        stamp: of the file as it was read.

    Returns:
        One line: where they are, or why they could not be stored. A training that goes on writes its files again.
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
    return f"stored in {path}: tools/predict.py --cost, --gflops and --target-ms choose by them"
