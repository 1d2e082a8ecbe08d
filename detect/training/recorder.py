"""The records of a run: ``results.csv``, TensorBoard events and the resolved ``config.yaml``."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from detect.config.base import dump_yaml
from detect.errors import InputError
from detect.runtime.distributed import is_main_process
from detect.runtime.files import write_text


class Recorder:
    """Writes what a run measures, epoch by epoch; of several processes the first does.

    Args:
        folder: the run's folder; TensorBoard reads it too (``tensorboard --logdir FOLDER``).
        resumed_after: the epoch that a resumed run goes on after; later rows of an interrupted epoch are dropped.

    Raises:
        InputError: the ``results.csv`` of a resumed run is damaged.
    """

    def __init__(self, folder: Path, resumed_after: int | None = None) -> None:
        self.path = folder / "results.csv"
        self.rows: list[dict[str, Any]] = []
        if resumed_after is not None and self.path.is_file():
            self.rows = _read_rows(self.path, resumed_after)
        purge = None if resumed_after is None else resumed_after + 1
        self.writer = SummaryWriter(str(folder), purge_step=purge) if is_main_process() else None

    def epoch(self, number: int, values: dict[str, float]) -> None:
        """Record an epoch.

        Args:
            number: counted from 1.
            values: by TensorBoard tag, such as ``loss/box`` or ``val/AP_S``.
        """
        self.rows.append({"epoch": number, **{tag: f"{value:.6g}" for tag, value in values.items()}})
        if self.writer is None:
            return
        columns = list(dict.fromkeys(tag for row in self.rows for tag in row))
        text = io.StringIO()
        table = csv.DictWriter(text, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(self.rows)
        write_text(self.path, text.getvalue())
        for tag, value in values.items():
            self.writer.add_scalar(tag, value, number)
        self.writer.flush()

    def picture(self, tag: str, image_rgb: np.ndarray, epoch: int) -> None:
        """Show an (H, W, 3) uint8 picture in TensorBoard."""
        if self.writer is not None:
            self.writer.add_image(tag, image_rgb, epoch, dataformats="HWC")

    def close(self) -> None:
        """Finish the event file."""
        if self.writer is not None:
            self.writer.close()


def _read_rows(path: Path, last_epoch: int) -> list[dict[str, Any]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [row for row in csv.DictReader(file, strict=True) if int(row["epoch"]) <= last_epoch]
    except (KeyError, TypeError, ValueError, csv.Error):
        raise InputError(f"{path}: is damaged; move it away to resume with a new one") from None


def write_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Keep the resolved settings of a run as ``config.yaml``, which resuming reads."""
    if is_main_process():
        write_text(folder / "config.yaml", dump_yaml(settings))
