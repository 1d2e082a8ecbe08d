"""What a run writes to continue later, and how it continues."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch

from detect.errors import InputError
from detect.models.checkpoint import Checkpoint
from detect.runtime.distributed import all_gather, rank
from detect.runtime.reproducibility import collect_provenance
from detect.training.epoch import Progress, Trainee


def training_state(trainee: Trainee, progress: Progress) -> dict[str, Any]:
    """Everything that the rest of the run depends on, less what is a function of (seed, epoch, batch): samples, rates
    and the draws of the strategies.

    Args:
        trainee: between two updates.
        progress: how far it has come.
    """
    return {
        **dataclasses.asdict(progress),
        "model": trainee.model.state_dict(),
        "ema_updates": int(trainee.ema.n_averaged) if trainee.ema else 0,
        "optimizer": trainee.optimizer.state_dict(),
        "scaler": trainee.scaler.state_dict(),
        "meter": trainee.meter.state,
        "strategies": [strategy.state for strategy in trainee.strategies],
        "rng": [[torch.from_numpy(part) for part in all_gather(own)] for own in _random_states(trainee.device)],
    }


def restore_state(checkpoint: Checkpoint, trainee: Trainee) -> Progress:
    """Put a run back to where it was.

    Args:
        checkpoint: ``last.pt``.
        trainee: was built from its model.

    Returns:
        How far it had come.

    Raises:
        InputError: the checkpoint holds no training state, or one of another run.
    """
    state = checkpoint.training
    if state is None:
        raise InputError("the checkpoint holds weights only; resuming needs last.pt of an unfinished run")
    try:
        # The average is a copy of the checkpoint's model, whose weights are averaged: it only lacks its counter.
        trainee.model.load_state_dict(state["model"])
        if trainee.ema is not None:
            trainee.ema.n_averaged.fill_(state["ema_updates"])
        trainee.optimizer.load_state_dict(state["optimizer"])
        trainee.scaler.load_state_dict(state["scaler"])
        trainee.meter.restore(state["meter"])
        for strategy, counted in zip(trainee.strategies, state["strategies"], strict=True):
            strategy.restore(counted)
        _restore_random_states(state["rng"])
        return Progress(**{field.name: state[field.name] for field in dataclasses.fields(Progress)})
    except (KeyError, ValueError, RuntimeError, TypeError) as error:
        raise InputError(
            f"the checkpoint's training state does not fit this run: {str(error).splitlines()[0]}"
        ) from None


def _random_states(device: torch.device) -> list[np.ndarray]:
    """PyTorch's generators: of the CPU and, if it computes, of the GPU. Nothing draws from Python's and NumPy's."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return [state.numpy() for state in states]


def _restore_random_states(states: list[list[torch.Tensor]]) -> None:
    """Each process gets its own again; one that was not there keeps what its seed gave it."""
    for of_processes, put_back in zip(states, (torch.set_rng_state, torch.cuda.set_rng_state), strict=False):
        if rank() < len(of_processes) and (put_back is torch.set_rng_state or torch.cuda.is_available()):
            put_back(of_processes[rank()])


def provenance(settings: dict[str, Any], counts: dict[str, int]) -> dict[str, Any]:
    """How weights came about, as plain values.

    Args:
        settings: the resolved configuration.
        counts: how much there was to train on.
    """
    return {**collect_provenance(), "settings": settings, **counts}
