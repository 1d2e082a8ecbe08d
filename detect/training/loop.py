"""A training run, from its settings to its best checkpoint."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from detect.config.loader import to_plain
from detect.config.schema import DataConfig, DetectionRecipe
from detect.data.loading import TrainingLoader
from detect.errors import InputError
from detect.evaluation.engine import Evaluation, evaluate
from detect.losses.detection import DetectionLoss
from detect.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from detect.models.detector import DetectionModel
from detect.models.graph import set_norms
from detect.runtime.logs import LOGGER
from detect.runtime.memory import keep_freed_memory
from detect.runtime.precision import choose_precision
from detect.runtime.seeding import seed_everything
from detect.training.ema import WeightAverage, build_ema
from detect.training.epoch import Trainee, quiet_denormals, train_epoch
from detect.training.optimizer import Schedule, build_optimizer
from detect.training.pictures import record_predictions, record_training_batch
from detect.training.preparation import (
    Material,
    freeze,
    open_material,
    prepare_model,
    report_small_objects,
    warn_of_ignored,
)
from detect.training.recorder import Recorder, write_settings
from detect.training.state import provenance, restore_state, training_state

CPU = torch.device("cpu")
BestMetrics = dict[str, dict[str, float]]


@dataclass(frozen=True)
class RunSettings:
    """A run.

    Args:
        model: model name or file; None takes the model of ``weights``.
        data: the data set.
        recipe: the recipe.
        out: folder of everything that the run writes.
        weights: checkpoint to start from.
        resume: go on after ``out/last.pt``.
        device: where.
        strict: refuse damaged images and boxes instead of skipping them.
    """

    model: str | None
    data: DataConfig
    recipe: DetectionRecipe
    out: Path
    weights: Path | None = None
    resume: bool = False
    device: torch.device = CPU
    strict: bool = False


def train(settings: RunSettings) -> dict[str, float]:
    """Train, validate, keep ``best.pt`` and ``last.pt``.

    Args:
        settings: the run.

    Returns:
        The validation metrics of ``best.pt``.

    Raises:
        InputError: something that the user gave is wrong; nothing is overwritten.
    """
    recipe, out = settings.recipe, settings.out
    keep_freed_memory()
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    material = open_material(settings.data, settings.strict)
    report_small_objects(material.train, recipe.image_size)
    seed_everything(recipe.seed)
    resumed = _load_resumed(out / "last.pt", material) if settings.resume else None
    model = resumed.model if resumed else prepare_model(settings.model, settings.weights, material, recipe)
    freeze(model, recipe.freeze)
    loader = TrainingLoader(
        material.train, recipe, cache_folder=out, multiple=model.max_reduction, strict=settings.strict
    )
    trainee = _prepare_trainee(model, recipe, len(loader), settings.device)
    warn_of_ignored(recipe, trainee.loss.assignment)
    first_epoch, best = _restore(resumed, trainee)
    plain = _plain(settings, trainee)
    write_settings(out, plain)
    origin = provenance(plain, len(material.train), len(material.train.labels))
    recorder = Recorder(out, resumed_after=first_epoch if resumed else None)
    LOGGER.info(
        "training %s in %s on %s, %d batches an epoch",
        model.definition.name,
        trainee.precision,
        settings.device,
        len(loader),
    )
    with closing(recorder), quiet_denormals():
        for epoch in range(first_epoch, recipe.epochs):
            if _stalled(recipe, best, epoch):
                watched, patience = recipe.evaluation.save_best[0], recipe.evaluation.patience
                LOGGER.info("stopped: no better %s for %d epochs", watched, patience)
                break
            start = time.monotonic()
            show = partial(record_training_batch, recorder, out, names=material.train.names, epoch=epoch)
            losses = train_epoch(trainee, loader, recipe, epoch, on_first_batch=show if epoch == first_epoch else None)
            values = {f"loss/{name}": value for name, value in losses.items()}
            values |= {f"rate/{group['name']}": group["lr"] for group in trainee.optimizer.param_groups}
            values["time/epoch_s"] = time.monotonic() - start
            found = _validate(trainee, material, settings, epoch)
            if found is not None:
                values |= {f"val/{name}": value for name, value in _metrics(found).items()}
                record_predictions(recorder, out, found, epoch)
            recorder.epoch(epoch + 1, values)
            _save(settings, trainee, material, origin, epoch + 1, found, best)
            _say(epoch + 1, recipe, values, time.monotonic() - start)
    return load_checkpoint(out / "best.pt").metrics


def _prepare_trainee(model: DetectionModel, recipe: DetectionRecipe, batches: int, device: torch.device) -> Trainee:
    precision = choose_precision(recipe.precision, device)
    model = model.to(device).to(memory_format=torch.channels_last)
    if recipe.norm_momentum:
        set_norms(model, {"momentum": recipe.norm_momentum})
    nominal = recipe.nominal_batch_size or recipe.batch_size
    accumulate = max(round(nominal / recipe.batch_size), 1)
    accumulate = min(accumulate, batches)
    return Trainee(
        model=model,
        ema=build_ema(model, recipe.ema) if recipe.ema.decay > 0 else None,
        loss=DetectionLoss(recipe.loss, model.head, recipe.image_size),
        optimizer=build_optimizer(model, recipe.optimizer, recipe.batch_size * accumulate),
        scaler=torch.amp.GradScaler(device.type, enabled=precision == "fp16"),
        schedule=Schedule(recipe.optimizer, -(-batches // accumulate), recipe.epochs),
        accumulate=accumulate,
        device=device,
        precision=precision,
    )


def _load_resumed(path: Path, material: Material) -> Checkpoint:
    """The checkpoint to go on from, if the data still has its classes."""
    checkpoint = load_checkpoint(path)
    if checkpoint.names != material.train.names:
        raise InputError(
            f"{path}: was trained on the classes {', '.join(checkpoint.names)}, but the data has "
            f"{', '.join(material.train.names)}; start a new run with --weights"
        )
    return checkpoint


def _restore(resumed: Checkpoint | None, trainee: Trainee) -> tuple[int, BestMetrics]:
    if resumed is None:
        return 0, {}
    epoch, best = restore_state(resumed, trainee.model, trainee.ema, trainee.optimizer, trainee.scaler)
    LOGGER.info("resuming after epoch %d of %d", epoch, trainee.schedule.epochs)
    return epoch, best


def _validate(trainee: Trainee, material: Material, settings: RunSettings, epoch: int) -> Evaluation | None:
    """Evaluate the averaged weights, if it is this epoch's turn."""
    recipe = settings.recipe
    last = epoch + 1 == recipe.epochs
    if not last and (epoch + 1) % recipe.evaluation.every:
        return None
    return evaluate(
        _evaluated(trainee.model, trainee.ema),
        material.val,
        image_size=recipe.image_size,
        batch_size=recipe.batch_size,
        workers=recipe.workers,
        device=trainee.device,
        precision=trainee.precision,
        strict=settings.strict,
    )


def _evaluated(model: DetectionModel, ema: WeightAverage | None) -> DetectionModel:
    """The weights that count: the average if there is one."""
    return model if ema is None else ema.module


def _save(
    settings: RunSettings,
    trainee: Trainee,
    material: Material,
    origin: dict[str, Any],
    epoch: int,
    found: Evaluation | None,
    best: BestMetrics,
) -> None:
    """Write ``last.pt``, and a best checkpoint for each watched metric that has improved."""
    metrics = _metrics(found) if found is not None else {}
    common: dict[str, Any] = {
        "names": material.train.names,
        "category_ids": tuple(int(i) for i in material.train.category_ids),
        "image_size": settings.recipe.image_size,
        "metrics": metrics,
        "provenance": {**origin, "epoch": epoch},
    }
    weights = _evaluated(trainee.model, trainee.ema)
    for rank, metric in enumerate(settings.recipe.evaluation.save_best):
        if metrics and metrics[metric] > best.get(metric, {"value": -2.0})["value"]:
            best[metric] = {"value": metrics[metric], "epoch": epoch}
            name = "best.pt" if rank == 0 else f"best_{metric}.pt"
            save_checkpoint(settings.out / name, weights, **common)
    state = training_state(trainee.model, trainee.ema, trainee.optimizer, trainee.scaler, epoch, best)
    save_checkpoint(settings.out / "last.pt", weights, **common, training=state)


def _stalled(recipe: DetectionRecipe, best: BestMetrics, epoch: int) -> bool:
    """Whether the first watched metric is no better for ``patience`` epochs, after ``epoch`` of them."""
    watched = best.get(recipe.evaluation.save_best[0])
    patience = recipe.evaluation.patience
    return patience > 0 and watched is not None and epoch - watched["epoch"] >= patience


def _metrics(found: Evaluation) -> dict[str, float]:
    assert found.metrics is not None, "the validation split has annotations"
    return dict(found.metrics.values)


def _say(epoch: int, recipe: DetectionRecipe, values: dict[str, float], seconds: float) -> None:
    losses = "  ".join(f"{name} {values[f'loss/{name}']:.4f}" for name in ("box", "objectness", "classes"))
    shown = ("AP", "AP50", "AP_S", "AP_M", "AP_L")
    scores = "  ".join(f"{name} {values[f'val/{name}']:.3f}" for name in shown if f"val/{name}" in values)
    left = seconds * (recipe.epochs - epoch) / 60
    LOGGER.info("epoch %d/%d  %s  %s  %.1f s, %.0f min left", epoch, recipe.epochs, losses, scores, seconds, left)


def _plain(settings: RunSettings, trainee: Trainee) -> dict[str, Any]:
    """The settings as they can be written and read back, with the precision that was chosen: a resumed run keeps it."""
    return {
        "model": settings.model or trainee.model.definition.name,
        "weights": str(settings.weights) if settings.weights else None,
        "data": to_plain(settings.data),
        "recipe": to_plain(replace(settings.recipe, precision=trainee.precision)),
        "strict": settings.strict,
    }
