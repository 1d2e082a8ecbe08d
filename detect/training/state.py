"""What a run writes to continue later, and how it continues."""

from __future__ import annotations

import platform
import sys
from datetime import datetime, timezone
from typing import Any

import cv2
import numpy as np
import torch

import detect
from detect.errors import InputError
from detect.models.checkpoint import Checkpoint
from detect.models.detector import DetectionModel
from detect.training.ema import WeightAverage


def training_state(
    model: DetectionModel,
    ema: WeightAverage | None,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    epoch: int,
    best: dict[str, dict[str, float]],
) -> dict[str, Any]:
    """Everything that the next epoch depends on, less what is a function of (seed, epoch): samples and rates.

    Args:
        model: the learning model.
        ema: its average, if there is one.
        optimizer: with its momenta.
        scaler: of fp16 gradients.
        epoch: the last finished epoch.
        best: for each watched metric its best ``value`` and ``epoch``.
    """
    return {
        "epoch": epoch,
        "best": best,
        "model": model.state_dict(),
        "ema_updates": int(ema.n_averaged) if ema else 0,
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "torch_rng": torch.get_rng_state(),
    }


def restore_state(
    checkpoint: Checkpoint,
    model: DetectionModel,
    ema: WeightAverage | None,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> tuple[int, dict[str, dict[str, float]]]:
    """Put a run back to where it was.

    Args:
        checkpoint: ``last.pt``; the other arguments were built from its model.
        model: the learning model.
        ema: its average, if there is one.
        optimizer: receives its momenta.
        scaler: receives its scale.

    Returns:
        The last finished epoch and the best metrics so far.

    Raises:
        InputError: the checkpoint holds no training state, or one of another run.
    """
    state = checkpoint.training
    if state is None:
        raise InputError("the checkpoint holds weights only; resuming needs last.pt of an unfinished run")
    try:
        # The average is a copy of the checkpoint's model, whose weights are averaged: it only lacks its counter.
        model.load_state_dict(state["model"])
        if ema is not None:
            ema.n_averaged.fill_(state["ema_updates"])
        optimizer.load_state_dict(state["optimizer"])
        scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["torch_rng"])
        return int(state["epoch"]), state["best"]
    except (KeyError, ValueError, RuntimeError) as error:
        raise InputError(
            f"the checkpoint's training state does not fit this run: {str(error).splitlines()[0]}"
        ) from None


def provenance(settings: dict[str, Any], train_images: int, train_boxes: int) -> dict[str, Any]:
    """How weights came about, as plain values.

    Args:
        settings: the resolved configuration.
        train_images: images trained on.
        train_boxes: boxes trained on.
    """
    return {
        "detect": detect.__version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join(sys.argv),
        "settings": settings,
        "train_images": train_images,
        "train_boxes": train_boxes,
    }
