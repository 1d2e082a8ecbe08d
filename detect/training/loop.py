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
from detect.config.schema import ClassificationRecipe, DataConfig, DetectionRecipe, Recipe
from detect.errors import InputError
from detect.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from detect.models.graph import set_norms
from detect.models.model import Model
from detect.runtime.logs import LOGGER
from detect.runtime.memory import keep_freed_memory
from detect.runtime.precision import Precision, choose_precision
from detect.runtime.seeding import seed_everything
from detect.training.classification import ClassificationTask, open_classes
from detect.training.compute import ComputeMeter, compute_line
from detect.training.detection import DetectionTask, open_material, report_small_objects
from detect.training.ema import WeightAverage, build_ema
from detect.training.epoch import Trainee, quiet_denormals, train_epoch
from detect.training.multi_scale import MultiScale
from detect.training.optimizer import REFERENCE_BATCH, Schedule, build_optimizer
from detect.training.preparation import freeze
from detect.training.recorder import Recorder, write_settings
from detect.training.sdpoint import SDPoint
from detect.training.state import provenance, restore_state, training_state
from detect.training.strategy import Strategy
from detect.training.task import Loader, Task, Validation
from detect.training.trd import Trd

CPU = torch.device("cpu")
BestMetrics = dict[str, dict[str, float]]


@dataclass(frozen=True)
class RunSettings:
    """A run.

    Args:
        model: model name or file; None takes the model of ``weights``.
        data: the data set.
        recipe: the recipe; its kind is that of the model's head.
        out: folder of everything that the run writes.
        weights: checkpoint to start from.
        resume: go on after ``out/last.pt``.
        device: where.
        strict: refuse damaged images and boxes instead of skipping them.
    """

    model: str | None
    data: DataConfig
    recipe: DetectionRecipe | ClassificationRecipe
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
    task = _open_task(settings)
    seed_everything(recipe.seed)
    resumed = _load_resumed(out / "last.pt", task) if settings.resume else None
    model = resumed.model if resumed else task.prepare_model(settings.model, settings.weights)
    freeze(model, recipe.freeze)
    loader = task.loader(model, out)
    trainee = _prepare_trainee(task, model, loader, settings.device)
    first_epoch, best = _restore(resumed, trainee)
    plain = _plain(settings, trainee)
    write_settings(out, plain)
    origin = provenance(plain, task.counts)
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
            show = partial(task.record_batch, recorder, out, epoch=epoch) if epoch == first_epoch else None
            values = train_epoch(trainee, loader, epoch, on_first_batch=show)
            values |= {f"rate/{group['name']}": group["lr"] for group in trainee.optimizer.param_groups}
            values["time/epoch_s"] = time.monotonic() - start
            judged = _judged(trainee, epoch) if _is_validated(recipe, epoch) else None
            found = task.validate(judged, trainee.device, trainee.precision) if judged is not None else None
            if found is not None:
                values |= {f"val/{name}": value for name, value in found.metrics.items()}
                found.record(recorder, out, epoch)
            recorder.epoch(epoch + 1, values)
            _save(settings, trainee, task, origin, epoch + 1, judged, found, best)
            _say(task, epoch + 1, values, time.monotonic() - start)
        _finish(settings, trainee, recorder)
    return load_checkpoint(out / "best.pt").metrics


def _open_task(settings: RunSettings) -> Task:
    """Read the data and check it."""
    recipe = settings.recipe
    if isinstance(recipe, ClassificationRecipe):
        return ClassificationTask(open_classes(settings.data, settings.strict), recipe, settings.strict)
    material = open_material(settings.data, settings.strict)
    report_small_objects(material.train, recipe.image_size)
    return DetectionTask(material, recipe, settings.strict)


def _prepare_trainee(task: Task, model: Model, loader: Loader, device: torch.device) -> Trainee:
    recipe, batches = task.recipe, len(loader)
    precision = choose_precision(recipe.precision, device)
    model = model.to(device).to(memory_format=torch.channels_last)
    if recipe.norm_momentum:
        set_norms(model, {"momentum": recipe.norm_momentum})
    nominal = recipe.nominal_batch_size or recipe.batch_size
    accumulate = max(round(nominal / recipe.batch_size), 1)
    accumulate = min(accumulate, batches)
    images_per_update = recipe.batch_size * accumulate
    # Where the loss is a mean, its weight relative to the decay does not grow with the batch.
    decay_batch = images_per_update if task.sums_images else REFERENCE_BATCH
    strategies = open_strategies(recipe, model, loader, device, precision)
    return Trainee(
        model=model,
        ema=build_ema(model, recipe.ema) if recipe.ema.decay > 0 else None,
        loss=task.criterion(model),
        optimizer=build_optimizer(model, recipe.optimizer, decay_batch),
        scaler=torch.amp.GradScaler(device.type, enabled=precision == "fp16"),
        schedule=Schedule(recipe.optimizer, -(-batches // accumulate), recipe.epochs),
        accumulate=accumulate,
        device=device,
        precision=precision,
        meter=ComputeMeter(model.graph, model.num_classes),
        strategies=strategies,
        loss_scale=1.0 if task.sums_images else 1 / images_per_update,
    )


def _load_resumed(path: Path, task: Task) -> Checkpoint:
    """The checkpoint to go on from, if the data still has its classes."""
    checkpoint = load_checkpoint(path)
    if checkpoint.names != task.names:
        raise InputError(
            f"{path}: was trained on the classes {', '.join(checkpoint.names)}, but the data has "
            f"{', '.join(task.names)}; start a new run with --weights"
        )
    return checkpoint


def _restore(resumed: Checkpoint | None, trainee: Trainee) -> tuple[int, BestMetrics]:
    if resumed is None:
        return 0, {}
    epoch, best = restore_state(resumed, trainee.model, trainee.ema, trainee.optimizer, trainee.scaler)
    LOGGER.info("resuming after epoch %d of %d", epoch, trainee.schedule.epochs)
    return epoch, best


def open_strategies(
    recipe: Recipe, model: Model, loader: Loader, device: torch.device, precision: Precision
) -> tuple[Strategy, ...]:
    """The strategies that a recipe asks for, in the order in which they change a batch."""
    strategies: list[Strategy] = []
    if recipe.multi_scale > 0:
        strategies.append(MultiScale(recipe, model.max_reduction))
    if recipe.trd.resolution > 0:
        strategies.append(Trd(recipe, model))
    if recipe.sdpoint.ratios:
        strategies.append(SDPoint(recipe, model, loader, device, precision))
    return tuple(strategies)


def _is_validated(recipe: Recipe, epoch: int) -> bool:
    return epoch + 1 == recipe.epochs or (epoch + 1) % recipe.evaluation.every == 0


def _evaluated(model: Model, ema: WeightAverage | None) -> Model:
    """The weights that count: the average if there is one."""
    return model if ema is None else ema.module


def _judged(trainee: Trainee, epoch: int) -> Model:
    """What the strategies make of the weights that count."""
    model = _evaluated(trainee.model, trainee.ema)
    for strategy in trainee.strategies:
        model = strategy.judged(model, epoch)
    return model


def _finish(settings: RunSettings, trainee: Trainee, recorder: Recorder) -> None:
    """Let the strategies complete the best checkpoints, and sum the run up."""
    watched = settings.recipe.evaluation.save_best
    for name in (_best_name(rank, metric) for rank, metric in enumerate(watched)):
        for strategy in trainee.strategies:
            strategy.finish(settings.out / name)
    rows = recorder.rows
    for line in (compute_line(rows), *(line for s in trainee.strategies for line in s.report(rows))):
        LOGGER.info("%s", line)


def _best_name(rank: int, metric: str) -> str:
    return "best.pt" if rank == 0 else f"best_{metric}.pt"


def _save(
    settings: RunSettings,
    trainee: Trainee,
    task: Task,
    origin: dict[str, Any],
    epoch: int,
    judged: Model | None,
    found: Validation | None,
    best: BestMetrics,
) -> None:
    """Write ``last.pt``, and a best checkpoint for each watched metric that has improved."""
    metrics = found.metrics if found is not None else {}
    common: dict[str, Any] = {
        **task.facts,
        "image_size": settings.recipe.image_size,
        **{key: value for strategy in trainee.strategies for key, value in strategy.facts.items()},
        "metrics": metrics,
        "provenance": {**origin, "epoch": epoch},
    }
    for rank, metric in enumerate(settings.recipe.evaluation.save_best):
        if metrics and metrics[metric] > best.get(metric, {"value": -2.0})["value"]:
            best[metric] = {"value": metrics[metric], "epoch": epoch}
            assert judged is not None, "what has metrics was judged"
            save_checkpoint(settings.out / _best_name(rank, metric), judged, **common)
    weights = _evaluated(trainee.model, trainee.ema)
    state = training_state(trainee.model, trainee.ema, trainee.optimizer, trainee.scaler, epoch, best)
    save_checkpoint(settings.out / "last.pt", weights, **common, training=state)


def _stalled(recipe: Recipe, best: BestMetrics, epoch: int) -> bool:
    """Whether the first watched metric is no better for ``patience`` epochs, after ``epoch`` of them."""
    watched = best.get(recipe.evaluation.save_best[0])
    patience = recipe.evaluation.patience
    return patience > 0 and watched is not None and epoch - watched["epoch"] >= patience


def _say(task: Task, epoch: int, values: dict[str, float], seconds: float) -> None:
    losses = "  ".join(f"{tag.removeprefix('loss/')} {values[tag]:.4f}" for tag in values if tag.startswith("loss/"))
    scores = "  ".join(f"{name} {values[f'val/{name}']:.3f}" for name in task.shown if f"val/{name}" in values)
    epochs = task.recipe.epochs
    left = seconds * (epochs - epoch) / 60
    LOGGER.info("epoch %d/%d  %s  %s  %.1f s, %.0f min left", epoch, epochs, losses, scores, seconds, left)


def _plain(settings: RunSettings, trainee: Trainee) -> dict[str, Any]:
    """The settings as they can be written and read back, with the precision that was chosen: a resumed run keeps it."""
    return {
        "model": settings.model or trainee.model.definition.name,
        "weights": str(settings.weights) if settings.weights else None,
        "data": to_plain(settings.data),
        "recipe": to_plain(replace(settings.recipe, precision=trainee.precision)),
        "task": "classification" if isinstance(settings.recipe, ClassificationRecipe) else "detection",
        "strict": settings.strict,
    }
