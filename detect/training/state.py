"""What a run writes to continue later, and how it continues."""

from __future__ import annotations

from typing import Any

import torch

from detect.errors import InputError
from detect.models.checkpoint import Checkpoint
from detect.models.model import Model
from detect.runtime.provenance import made_with
from detect.training.ema import WeightAverage


def training_state(
    model: Model,
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
    model: Model,
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


def provenance(settings: dict[str, Any], counts: dict[str, int]) -> dict[str, Any]:
    """How weights came about, as plain values.

    Args:
        settings: the resolved configuration.
        counts: how much there was to train on.
    """
    return {**made_with(), "settings": settings, **counts}
