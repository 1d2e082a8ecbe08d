"""Training with SDPoint: each batch goes through a random instance; at the end each instance gets its own norms."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detect.config.recipe import ClassificationRecipe, Recipe
from detect.errors import InputError
from detect.models.checkpoint import load_checkpoint, rewrite_checkpoint
from detect.models.model import Model, network_input
from detect.papers.sdpoint.instances import EXTRA, Instances, Statistics, instances_in, named_norms, with_instances
from detect.papers.sdpoint.transform import PLAIN, Instance, find_points, list_instances, set_way, use_instance
from detect.runtime.device import Precision, autocast
from detect.runtime.distributed import is_main_process
from detect.runtime.logs import LOGGER
from detect.runtime.progress import progress_bar
from detect.runtime.reproducibility import generator
from detect.structures import Batch
from detect.training.batch_norms import prepare_norms
from detect.training.checks import OptionDependency
from detect.training.strategy import AnyTargets, Part, Strategy
from detect.training.task import Loader

INSTANCE_STREAM = 6
"""Key of the generators that draw instances."""


def open_sdpoint(
    recipe: Recipe, model: Model, loader: Loader, device: torch.device, precision: Precision
) -> SDPoint | None:
    """Build the strategy, if the recipe has ratios."""
    return SDPoint(recipe, model, loader, device, precision) if recipe.sdpoint.ratios else None


class SDPoint(Strategy):
    """Draws an instance for each batch, and computes norm statistics of the instances that are evaluated or saved.

    The running statistics of the training mix those of all instances and suit none of them.

    Args:
        recipe: with ``sdpoint.ratios``.
        model: gets the way of the recipe.
        loader: the training batches.
        device: of the model.
        precision: number format of the network.

    Raises:
        InputError: the model has no points, or not those of the recipe.

    Source: SDPoint (Kuen et al., 2018), sections 3.1 to 3.3.
    """

    def __init__(
        self, recipe: Recipe, model: Model, loader: Loader, device: torch.device, precision: Precision
    ) -> None:
        self.recipe, self.model, self.loader = recipe, model, loader
        self.device, self.precision = device, precision
        self.points = _chosen_points(recipe, model)
        self.instances = list_instances(self.points, recipe.sdpoint.ratios)
        self.learning = [path for path, norm in named_norms(model.graph) if norm.weight.requires_grad]
        self.epoch = recipe.epochs - 1
        set_way(model, recipe.sdpoint.way)

    def on_batch(self, images: Tensor, targets: AnyTargets, epoch: int, number: int) -> list[Part]:
        use_instance(self.model, self.draw(epoch, number))
        return [(images, targets)]

    def draw(self, epoch: int, number: int) -> Instance:
        """Draw the instance of a batch: plain network and points with equal probability, and so the ratios."""
        rng = generator(INSTANCE_STREAM, self.recipe.seed, epoch, number)
        point, ratio = int(rng.integers(len(self.points) + 1)), rng.choice(self.recipe.sdpoint.ratios)
        return Instance(self.points[point - 1], float(ratio)) if point else PLAIN

    @property
    def checkpoint_extras(self) -> dict[str, Any]:
        return {"extras": {EXTRA: Instances(tuple(self.instances), self.recipe.sdpoint.way)}}

    def on_epoch_end(self) -> dict[str, float]:
        use_instance(self.model, PLAIN)
        return {}

    def eval_model(self, model: Model, epoch: int) -> Model:
        """Return a copy with the norm statistics of the plain network."""
        self.epoch = epoch
        copied = copy.deepcopy(model)
        found = self._statistics(copied, [PLAIN])[PLAIN]
        _set_statistics(copied, found)
        return copied

    def on_train_end(self, best: Path) -> None:
        """Add the norm statistics of all instances to the checkpoint."""
        checkpoint = load_checkpoint(best)
        before = instances_in(checkpoint)
        if before is not None and before.statistics:
            return  # a finished run was resumed; the checkpoint may hold records
        model = checkpoint.model.to(self.device).to(memory_format=torch.channels_last)
        prepare_norms(model)
        found = self._statistics(model, self.instances)
        plain = found.pop(PLAIN)
        statistics = {instance: _differing(norms, plain) for instance, norms in found.items()}
        _set_statistics(model, plain)
        instances = Instances(tuple(self.instances), self.recipe.sdpoint.way, statistics)
        if is_main_process():
            rewrite_checkpoint(best, with_instances(checkpoint, instances))
        LOGGER.info("%s: statistics of the norms of %d instances", best, len(self.instances))

    def _statistics(self, model: Model, instances: list[Instance]) -> dict[Instance, Statistics]:
        count = self.recipe.sdpoint.norm_batches or len(self.loader)
        batches = islice(self.loader.epoch(self.epoch), count)
        total = min(count, len(self.loader))
        bar = progress_bar(batches, "statistics of the norms", total)
        set_way(model, self.recipe.sdpoint.way)
        return norm_statistics(model, self.learning, instances, bar, self._forward)

    def _forward(self, model: Model, batch: Batch) -> None:
        images = network_input(batch.images, self.device)
        with autocast(self.precision, self.device):
            model(images)


@torch.no_grad()
def norm_statistics(
    model: Model,
    norms: Iterable[str],
    instances: list[Instance],
    batches: Iterable[Batch],
    forward: Callable[[Model, Batch], None],
) -> dict[Instance, Statistics]:
    """Compute norm statistics of instances: means over batches of the mean and variance of each batch.

    All instances see the same batches, so that statistics before a point are exactly the plain network's.

    Args:
        model: keeps its own statistics; left in evaluation mode with its plain network active.
        norms: paths of the norms to measure; the others keep their statistics.
        instances: to measure.
        batches: of the training, with its augmentation.
        forward: runs the model on a batch.

    Source: SDPoint (Kuen et al., 2018), section 3.3; that all batches have equal weight is ours.
    """
    layers = {path: norm for path, norm in named_norms(model.graph) if path in set(norms)}
    own = {path: (norm.running_mean, norm.running_var, norm.momentum) for path, norm in layers.items()}
    counts = {path: norm.num_batches_tracked for path, norm in layers.items()}
    found: dict[Instance, Statistics] = {
        instance: {path: (torch.zeros_like(norm.weight), torch.ones_like(norm.weight)) for path, norm in layers.items()}
        for instance in instances
    }
    model.eval()
    for norm in layers.values():
        norm.train()
        norm.num_batches_tracked = None
    for number, batch in enumerate(batches, start=1):
        for instance in instances:
            use_instance(model.graph, instance)
            for path, norm in layers.items():
                norm.running_mean, norm.running_var = found[instance][path]
                norm.momentum = 1 / number
            forward(model, batch)
    use_instance(model.graph, PLAIN)
    for path, norm in layers.items():
        norm.running_mean, norm.running_var, norm.momentum = own[path]
        norm.num_batches_tracked = counts[path]
    model.eval()
    return found


def _set_statistics(model: Model, statistics: Statistics) -> None:
    for path, norm in named_norms(model.graph):
        if path in statistics:
            norm.running_mean, norm.running_var = statistics[path]


def _differing(norms: Statistics, plain: Statistics) -> Statistics:
    """The statistics of norms behind the point, which differ from the plain network's."""
    return {
        path: values
        for path, values in norms.items()
        if not all(torch.equal(a, b) for a, b in zip(values, plain[path], strict=True))
    }


def _chosen_points(recipe: Recipe, model: Model) -> tuple[int, ...]:
    count = len(find_points(model.graph))
    if not count:
        raise InputError(f"sdpoint: {model.definition.name} has no points; blocks of its backbone would be some")
    for point in recipe.sdpoint.points:
        if point > count:
            raise InputError(f"sdpoint.points: {model.definition.name} has the points 1 to {count}, found {point}")
    return tuple(dict.fromkeys(recipe.sdpoint.points)) or tuple(range(1, count + 1))


def option_dependencies(recipe: Recipe) -> list[OptionDependency]:
    """List the keys of ``sdpoint`` without effect while it is off, or for a classifier."""
    if not recipe.sdpoint.ratios:
        keys = [field.name for field in fields(recipe.sdpoint) if field.name != "ratios"]
        return [OptionDependency("sdpoint", key, "sdpoint.ratios", "empty", "a list") for key in keys]
    is_classifier = isinstance(recipe, ClassificationRecipe)
    return [
        OptionDependency("sdpoint", "way", "the model", "a classifier" if is_classifier else "a detector", "a detector")
    ]
