"""A training run, from its settings to its best checkpoint."""

from __future__ import annotations

import inspect
import time
import warnings
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from detect.config.base import to_plain
from detect.config.data import DataConfig
from detect.config.recipe import ClassificationRecipe, DetectionRecipe, Recipe
from detect.errors import InputError
from detect.evaluation.predict import evaluation_mode
from detect.models.checkpoint import Checkpoint, load_checkpoint
from detect.models.model import Model, network_input
from detect.models.rows import set_norms
from detect.runtime.cpu import keep_freed_memory, tune_threads, use_threads
from detect.runtime.device import Precision, autocast, choose_precision
from detect.runtime.distributed import barrier, broadcast_text, is_main_process, num_processes
from detect.runtime.files import locked_folder
from detect.runtime.interruption import StopRequest
from detect.runtime.logs import LOGGER
from detect.runtime.plugins import require_plugin
from detect.runtime.reproducibility import seed_everything
from detect.training.batch_norms import prepare_norms
from detect.training.checkpoints import LAST, CheckpointKeeper, best_names, load_newest
from detect.training.classification import ClassificationTask, open_classes
from detect.training.compute import ComputeMeter, compute_line
from detect.training.detection import DetectionTask, open_material, report_small_objects
from detect.training.ema import build_ema
from detect.training.epoch import Progress, Trainee, quiet_denormals, train_epoch
from detect.training.fingerprint import differences
from detect.training.multi_scale import MultiScale
from detect.training.optimizer import REFERENCE_BATCH, Schedule, build_optimizer
from detect.training.preparation import freeze
from detect.training.recorder import Recorder, write_settings
from detect.training.state import provenance, restore_state
from detect.training.strategy import Strategy
from detect.training.task import Loader, Task, Validation

CPU = torch.device("cpu")
_TRIAL_IMAGES = 8
"""Most images of a forward pass that numbers of threads are tried on."""
PAPER_SECTIONS = ("trd", "sdpoint")
"""Recipe sections whose strategy is a paper's (``detect.papers``), in the order in which they change a batch."""
_DDP_KEYS = inspect.signature(DistributedDataParallel).parameters


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
        accept_other_data: resume although images or boxes are not what the run was started with.
        device: where.
        strict: refuse damaged images and boxes instead of skipping them.
    """

    model: str | None
    data: DataConfig
    recipe: DetectionRecipe | ClassificationRecipe
    out: Path
    weights: Path | None = None
    resume: bool = False
    accept_other_data: bool = False
    device: torch.device = CPU
    strict: bool = False


def train(settings: RunSettings, stop: StopRequest | None = None) -> dict[str, float]:
    """Train, validate, keep ``best.pt`` and ``last.pt``.

    Several processes (``detect.runtime.distributed``) share out the images; all return the same.

    Args:
        settings: the run.
        stop: the wish that the run ends, if somebody may have it.

    Returns:
        The validation metrics of ``best.pt``.

    Raises:
        InputError: something that the user gave is wrong, or another process trains in the folder; nothing is
            overwritten.
        KeyboardInterrupt: somebody has wished that the run ends; it has been kept, to be resumed.
    """
    with locked_folder(settings.out):
        return _train(settings, StopRequest() if stop is None else stop)


def _train(settings: RunSettings, stop: StopRequest) -> dict[str, float]:
    recipe, out = settings.recipe, settings.out
    keep_freed_memory()
    use_threads(recipe.threads)
    task = _open_task(settings)
    seed_everything(recipe.seed)
    resumed = _load_resumed(out, task, settings.accept_other_data) if settings.resume else None
    model = resumed.model if resumed else task.prepare_model(settings.model, settings.weights)
    freeze(model, recipe.freeze)
    loader = task.loader(model, out)
    trainee = _prepare_trainee(task, model, loader, settings.device)
    _settle_threads(trainee, recipe)
    progress = _restore(resumed, trainee)
    plain = _plain(settings, trainee)
    origin = provenance(plain, task.counts)
    keeper = CheckpointKeeper(out, trainee, task, progress, origin, stop)
    write_settings(out, plain)
    recorder = Recorder(out, resumed_after=progress.epoch if resumed else None)
    LOGGER.info(
        "training %s in %s on %s, %d batches an epoch",
        model.definition.name,
        trainee.precision,
        settings.device if num_processes() == 1 else f"{num_processes()} x {settings.device.type}",
        len(loader),
    )
    with closing(recorder), quiet_denormals():
        _train_epochs(settings, trainee, task, loader, keeper, recorder)
        barrier("the end of the run")  # where all find the best checkpoint that the first process wrote
        _finish(settings, trainee, recorder)
    return load_checkpoint(out / "best.pt").metrics


def _train_epochs(
    settings: RunSettings,
    trainee: Trainee,
    task: Task,
    loader: Loader,
    keeper: CheckpointKeeper,
    recorder: Recorder,
) -> None:
    """Train, validate, record and keep, epoch by epoch, from where the run is to its end."""
    recipe, out, progress = settings.recipe, settings.out, keeper.progress
    show = partial(task.record_batch, recorder, out, epoch=progress.epoch) if is_main_process() else None
    while progress.epoch < recipe.epochs and not _is_stalled(recipe, progress):
        start = time.monotonic() - progress.seconds
        values = train_epoch(trainee, loader, progress, show, keeper.after_update, keeper.keep_between_updates)
        show = None
        values |= {f"rate/{group['name']}": group["lr"] for group in trainee.optimizer.param_groups}
        values["time/epoch_s"] = time.monotonic() - start
        judged, metrics = trainee.averaged, {}
        if _is_validated(recipe, progress.epoch):
            judged, found = _validate(trainee, task, keeper)
            metrics = found.metrics
            if is_main_process():
                found.record(recorder, out, progress.epoch)
        values |= {f"val/{name}": value for name, value in metrics.items()}
        progress.end_epoch()
        recorder.epoch(progress.epoch, values)
        keeper.end_epoch(judged, metrics)
        _say(task, progress.epoch, values, time.monotonic() - start)


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
    precision: Any = broadcast_text(choose_precision(recipe.precision, device))
    model = model.to(device).to(memory_format=torch.channels_last)
    prepare_norms(model)
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
        network=_with_shared_gradients(model, device),
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


@torch.inference_mode()
def _settle_threads(trainee: Trainee, recipe: Recipe) -> None:
    """Choose the number of threads before the first update, so that all updates have it and a resumed run, too."""
    model, device = trainee.model, trainee.device
    count = min(recipe.batch_size, _TRIAL_IMAGES)
    images = network_input(torch.zeros(count, recipe.image_size, recipe.image_size, 3, dtype=torch.uint8), device)
    with evaluation_mode(model), autocast(trainee.precision, device):
        tune_threads(lambda: model(images), device)


def _with_shared_gradients(model: Model, device: torch.device) -> nn.Module:
    """The model; of several processes, one whose gradients come out as the mean of all of theirs."""
    if num_processes() == 1:
        return model
    # Of 1 x 1 kernels two layouts are the same, of which PyTorch warns.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    # Statistics of the norms are the same everywhere already. The newer name does the same without a warning.
    of_buffers = "forward_sync_buffers" if "forward_sync_buffers" in _DDP_KEYS else "broadcast_buffers"
    options: dict[str, Any] = {of_buffers: False, "device_ids": [device] if device.type == "cuda" else None}
    return DistributedDataParallel(model, **options)


def _load_resumed(folder: Path, task: Task, accept_other_data: bool) -> Checkpoint:
    """The checkpoint to go on from, if the data is still the same; with ``accept_other_data``, if its classes are."""
    checkpoint = load_newest(folder)
    if checkpoint.names != task.names:
        order = " in another order" * (sorted(checkpoint.names) == sorted(task.names))
        raise InputError(
            f"{folder / LAST}: was trained on the classes {', '.join(checkpoint.names)}, but the data has "
            f"{', '.join(task.names)}{order}; start a new run with --weights, which carries classes over by name"
        )
    value_range = task.facts.get("value_range")
    if checkpoint.value_range != value_range:
        LOGGER.warning(
            "%s: was trained with the range of values %s, the data has %s now; state range in the data config",
            *(folder / LAST, checkpoint.value_range, value_range),
        )
    before = (checkpoint.training or {}).get("data")  # checkpoints of older versions have none
    if changes := differences(before, task.fingerprint) if isinstance(before, dict) else "":
        found = f"{folder / LAST}: the data is not what the run was started with: {changes}"
        if not accept_other_data:
            raise InputError(
                f"{found}; --resume anyway goes on with it, a new run with --weights starts from its weights"
            )
        LOGGER.warning("%s; it goes on, as was asked for", found)
    return checkpoint


def _restore(resumed: Checkpoint | None, trainee: Trainee) -> Progress:
    if resumed is None:
        return Progress()
    progress = restore_state(resumed, trainee)
    batches = f" and batch {progress.batches} of the next" if progress.batches else ""
    LOGGER.info("resuming after epoch %d of %d%s", progress.epoch, trainee.schedule.epochs, batches)
    return progress


def open_strategies(
    recipe: Recipe, model: Model, loader: Loader, device: torch.device, precision: Precision
) -> tuple[Strategy, ...]:
    """The strategies that a recipe asks for, in the order in which they change a batch."""
    strategies: list[Strategy] = []
    if recipe.multi_scale > 0:
        strategies.append(MultiScale(recipe, model.max_reduction))
    for name in PAPER_SECTIONS:
        section = getattr(recipe, name)
        if section != type(section)():
            strategy = require_plugin("strategies", name, where=name)(recipe, model, loader, device, precision)
            strategies += [strategy] if strategy else []
    return tuple(strategies)


def _is_validated(recipe: Recipe, epoch: int) -> bool:
    return epoch + 1 == recipe.epochs or (epoch + 1) % recipe.evaluation.every == 0


def _validate(trainee: Trainee, task: Task, keeper: CheckpointKeeper) -> tuple[Model, Validation]:
    """What the strategies make of the weights that count, and the measures of it.

    Raises:
        KeyboardInterrupt: somebody does not want to wait for them; the run has been kept as it was before.
    """
    state = keeper.state()
    try:
        with keeper.stop.immediate():
            model = trainee.averaged
            for strategy in trainee.strategies:
                model = strategy.judged(model, keeper.progress.epoch)
            return model, task.validate(model, trainee.device, trainee.precision)
    except KeyboardInterrupt:
        keeper.save(state)
        keeper.say_how_to_go_on()
        raise


def _finish(settings: RunSettings, trainee: Trainee, recorder: Recorder) -> None:
    """Let the strategies complete the best checkpoints, and sum the run up."""
    for name in best_names(settings.recipe):
        for strategy in trainee.strategies:
            strategy.finish(settings.out / name)
    rows = recorder.rows
    for line in (compute_line(rows), *(line for s in trainee.strategies for line in s.report(rows))):
        LOGGER.info("%s", line)


def _is_stalled(recipe: Recipe, progress: Progress) -> bool:
    """Whether the first watched metric is no better for ``patience`` epochs, said aloud."""
    metric, patience = recipe.evaluation.save_best[0], recipe.evaluation.patience
    watched = progress.best.get(metric)
    is_stalled = patience > 0 and watched is not None and progress.epoch - watched["epoch"] >= patience
    if is_stalled:
        LOGGER.info("stopped: no better %s for %d epochs", metric, patience)
    return is_stalled


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
