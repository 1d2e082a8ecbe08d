"""Training with SDPoint: each batch goes through a random instance; at the end each instance gets norm statistics.

In-place distillation is the recipe's choice: a cheap instance learns the predictions of the plain network for the same
images. Source: Universally Slimmable Networks (Yu and Huang, 2019), section 3.3, for classifiers; detectors' loss is
ours.

Letters: B images of this process, A anchors per cell, H W cells of a level, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from detect.config.recipe import ClassificationRecipe, DetectionRecipe, LossConfig, Recipe
from detect.errors import InputError
from detect.losses.detection import GAIN_IMAGE_SIZE, GAIN_NUM_CLASSES, default_balance
from detect.models.checkpoint import load_checkpoint, rewrite_checkpoint
from detect.models.graph import GraphTransform
from detect.models.heads import DetectionHead
from detect.models.model import DetectionModel, Model
from detect.models.norms import Statistics, set_statistics
from detect.papers.sdpoint.instances import EXTRA, Instances, give_own_affine, instances_in, with_instances
from detect.papers.sdpoint.transform import (
    PLAIN,
    Instance,
    InstanceCosts,
    InstanceTransform,
    find_points,
    list_instances,
    set_way,
    use_instance,
)
from detect.runtime.device import Precision
from detect.runtime.distributed import all_reduce_mean, is_main_process
from detect.runtime.logs import LOGGER
from detect.runtime.reproducibility import generator
from detect.training.batch_norms import prepare_norms
from detect.training.checks import OptionDependency
from detect.training.norm_statistics import NormEstimator, learning_norms
from detect.training.strategy import AnyTargets, Part, Strategy, resized, size_of, size_px
from detect.training.task import BatchLoss, Loader

INSTANCE_STREAM = 6
"""Key of the generators that draw instances."""
MIN_SAVING = 0.02
"""Smallest share of a detector's full cost that an instance saves; neck and head read the maps in front of a point."""


def class_distillation(logits: Tensor, teacher: Tensor) -> Tensor:
    """Mean cross-entropy of logits (B, K) against the teacher's probabilities."""
    return F.cross_entropy(logits.float(), teacher.float().softmax(dim=1))


class DetectionDistillation:
    """Loss of raw predictions against those of the plain network, the teacher.

    The targets are the teacher's probabilities of objectness and classes, and its raw box values. Classes and boxes are
    weighted by the teacher's objectness, or by its best class where there is none. The gains are those of the detection
    loss. A level with fewer cells than the teacher's (``shrink``) has the largest probability of the teacher's cells in
    each of its own as target, and no box loss.

    Args:
        config: gains of the detection loss.
        head: of the model.
        image_size: nominal training size in pixels.
    """

    def __init__(self, config: LossConfig, head: DetectionHead, image_size: int) -> None:
        self.head = head
        self.balance = config.balance or default_balance(head.reductions)
        self.objectness_gain = config.objectness * (image_size / GAIN_IMAGE_SIZE) ** 2
        self.class_gain = config.classes * head.num_classes / GAIN_NUM_CLASSES
        self.box_gain = config.box

    def __call__(self, raw: list[Tensor], teacher: list[Tensor]) -> Tensor:
        """Compute the loss, a mean over images, of raw predictions (B, A, H, W, 5 + K) of each level."""
        total = raw[0].new_zeros((), dtype=torch.float32)
        for y, teacher_y, balance in zip(raw, teacher, self.balance, strict=True):
            total = total + self._level(y.float(), teacher_y.float(), balance)
        return total

    def _level(self, y: Tensor, teacher: Tensor, balance: float) -> Tensor:
        scores = slice(4, 5 + self.head.num_classes)  # behind them in training: the logits of distributions
        targets = teacher[..., scores].sigmoid()  # (B, A, H, W, 1 + K)
        is_same = teacher.shape == y.shape
        if not is_same:
            targets = _largest(targets, y.shape)
        errors = F.binary_cross_entropy_with_logits(y[..., scores], targets, reduction="none")
        certainty = targets[..., 0] if self.head.has_objectness else targets[..., 1:].amax(dim=-1)  # (B, A, H, W)
        weights = certainty / certainty.sum().clamp(min=1e-6)
        loss = self.objectness_gain * balance * errors[..., 0].mean()
        if self.head.num_classes > 1 or not self.head.has_objectness:  # beside objectness, a single class is certain
            loss = loss + self.class_gain * (errors[..., 1:].mean(dim=-1) * weights).sum()
        if is_same:
            distances = F.smooth_l1_loss(self.head.box_values(y), teacher[..., :4], reduction="none").mean(dim=-1)
            loss = loss + self.box_gain * (distances * weights).sum()
        return loss


def _largest(targets: Tensor, shape: Any) -> Tensor:
    """Probabilities (B, A, H, W, 1 + K) on the cells of a level of another ``shape``."""
    batch, anchors, height, width, _ = shape
    planes = targets.permute(0, 1, 4, 2, 3).flatten(1, 2)  # (B, A * (1 + K), H, W)
    pooled = F.adaptive_max_pool2d(planes, (height, width))
    return pooled.view(batch, anchors, -1, height, width).permute(0, 1, 3, 4, 2)


def open_sdpoint(
    recipe: Recipe, model: Model, loader: Loader, device: torch.device, precision: Precision
) -> SDPoint | None:
    """Build the strategy, if the recipe has ratios or sizes."""
    return SDPoint(recipe, model, loader, device, precision) if recipe.sdpoint.is_on else None


class SDPoint(Strategy):
    """Draws an instance for each batch, and computes norm statistics of the instances that are evaluated or saved.

    The running statistics of the training mix those of all instances and suit none of them. Scales and shifts of the
    norms are trained by all instances together, or each by its own (``sdpoint.affine``).

    Args:
        recipe: with ``sdpoint.ratios`` or ``sdpoint.sizes``.
        model: gets the way of the recipe.
        loader: the training batches.
        device: of the model.
        precision: number format of the network.

    Raises:
        InputError: the model has no points, or not those of the recipe, or it cannot take a size.

    Source: SDPoint (Kuen et al., 2018), sections 3.1 to 3.3.
    """

    def __init__(
        self, recipe: Recipe, model: Model, loader: Loader, device: torch.device, precision: Precision
    ) -> None:
        self.recipe, self.model, self.device = recipe, model, device
        set_way(model, recipe.sdpoint.way)
        costs, full_hw = InstanceCosts(model.graph, model.num_classes), (recipe.image_size, recipe.image_size)
        macs = {instance: costs.macs(instance, full_hw) for instance in _all_instances(recipe, model)}
        self.instances = list(macs) if model.definition.is_classifier else _cheaper(macs)
        self._cheapest = min(self.instances, key=lambda instance: macs[instance])
        self.norms = NormEstimator(
            loader, learning_norms(model), recipe.sdpoint.norm_batches, device, precision, self._scaled, _use
        )
        if recipe.sdpoint.affine == "own":
            give_own_affine(model, self.instances, self.norms.learning)
        self._affine = _parameters(model)
        self.own_gradients = tuple(self._affine)
        self.epoch = recipe.epochs - 1
        self._plan, self._instance = [PLAIN], PLAIN
        self._teacher: Any = None
        self._distil = _distillation(recipe, model)

    def on_batch(self, images: Tensor, targets: AnyTargets, epoch: int, number: int) -> list[Part]:
        """Return the batch once for each of its instances, at its size."""
        self._plan = self.plan(epoch, number)
        sizes = [instance.network_hw(size_of(images), self.model.max_reduction) for instance in self._plan]
        return [resized(images, targets, size_hw, "area") for size_hw in sizes]

    def on_part(self, number: int) -> None:
        self._instance = self._plan[number % len(self._plan)]
        use_instance(self.model, self._instance)

    def on_batch_end(self, ends_update: bool) -> None:
        use_instance(self.model, PLAIN)
        if ends_update:
            all_reduce_mean([p.grad for p in self._affine.values() if p.grad is not None])

    def on_loss(self, terms: BatchLoss, loss: Tensor, raw: Any) -> Tensor:
        """Divide the loss by the number of instances; those behind the plain network learn from it too."""
        if len(self._plan) == 1:
            return loss
        if self._instance == PLAIN:
            self._teacher = raw.detach() if isinstance(raw, Tensor) else [level.detach() for level in raw]
        else:
            images = len(raw) if isinstance(raw, Tensor) else len(raw[0])
            distilled = self._distil(raw, self._teacher) * (images / terms.num_images)  # this process's share
            loss = distilled if isinstance(raw, Tensor) else loss + distilled
        return loss / len(self._plan)

    def plan(self, epoch: int, number: int) -> list[Instance]:
        """List the instances of a batch; a pure function of (seed, epoch, batch)."""
        if self.recipe.sdpoint.schedule == "paper":
            return [self.draw(epoch, number)]
        rng = generator(INSTANCE_STREAM, self.recipe.seed, epoch, number)
        others = [instance for instance in self.instances if instance not in (PLAIN, self._cheapest)]
        drawn = rng.permutation(len(others))[: self.recipe.sdpoint.drawn]
        return [PLAIN, self._cheapest, *(others[i] for i in drawn)]

    def draw(self, epoch: int, number: int) -> Instance:
        """Draw the instance of a batch: sizes with equal probability, and so points, of which 0 is one, and ratios.

        With ``sdpoint.plain_share`` the plain network at full size has that probability, and the others share the rest.
        """
        rng, left = generator(INSTANCE_STREAM, self.recipe.seed, epoch, number), self.instances
        share = self.recipe.sdpoint.plain_share
        if share > 0:
            if rng.random() < share:
                return PLAIN
            left = left[1:]
        for name in ("scale", "point", "ratio"):
            values = list(dict.fromkeys(getattr(instance, name) for instance in left))
            value = values[rng.integers(len(values))]
            left = [instance for instance in left if getattr(instance, name) == value]
        return left[0]

    @property
    def checkpoint_extras(self) -> dict[str, Any]:
        return {"extras": {EXTRA: Instances(tuple(self.instances), self.recipe.sdpoint.way)}}

    def state_dict(self) -> dict[str, Any]:
        return {name: parameter.detach().cpu() for name, parameter in self._affine.items()}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, parameter in self._affine.items():
            parameter.copy_(state[name])

    def eval_model(self, model: Model, epoch: int) -> Model:
        """Return a copy with the norm statistics of the plain network."""
        self.epoch = epoch
        return self.norms.refreshed(model, epoch, self._transform(PLAIN))

    def on_train_end(self, best: Path) -> None:
        """Add the norm statistics of all instances to the checkpoint."""
        checkpoint = load_checkpoint(best)
        before = instances_in(checkpoint)
        if before is not None and before.statistics:
            return  # a finished run was resumed; the checkpoint may hold records
        model = checkpoint.model.to(self.device).to(memory_format=torch.channels_last)
        prepare_norms(model)
        found = self._statistics(model)
        plain = found.pop(PLAIN)
        statistics = {instance: _differing(norms, plain) for instance, norms in found.items()}
        set_statistics(model.graph, plain)
        instances = Instances(tuple(self.instances), self.recipe.sdpoint.way, statistics)
        if is_main_process():
            rewrite_checkpoint(best, with_instances(checkpoint, instances))
        LOGGER.info(
            "%s: norm statistics of %d instances; measure them, so that --cost can choose: "
            "detect val --weights %s --data DATA --instances",
            *(best, len(self.instances), best),
        )

    def _statistics(self, model: Model) -> dict[Instance, Statistics]:
        transforms = {instance: self._transform(instance) for instance in self.instances}
        found = self.norms.measure(model, list(transforms.values()), self.epoch)
        return {instance: found[transform] for instance, transform in transforms.items()}

    def _transform(self, instance: Instance) -> InstanceTransform:
        return InstanceTransform(instance, self.recipe.sdpoint.way)

    def _scaled(self, images: Tensor, transform: GraphTransform) -> Tensor:
        """Images (B, 3, H, W) at the size of an instance."""
        assert isinstance(transform, InstanceTransform), "only its statistics are measured"
        new_hw = transform.instance.network_hw(size_of(images), self.model.max_reduction)
        return images if new_hw == size_of(images) else F.interpolate(images, new_hw, mode="area")


def _use(model: Model, transform: GraphTransform) -> None:
    use_instance(model, transform.instance if isinstance(transform, InstanceTransform) else PLAIN)


def _parameters(model: Model) -> dict[str, Tensor]:
    """Parameters of the instances' own, by their names in the model."""
    return {name: parameter for name, parameter in model.named_parameters() if name.startswith(f"extras.{EXTRA}.")}


def _differing(norms: Statistics, plain: Statistics) -> Statistics:
    """The statistics of norms behind the point, which differ from the plain network's."""
    return {
        path: values
        for path, values in norms.items()
        if not all(torch.equal(a, b) for a, b in zip(values, plain[path], strict=True))
    }


def _distillation(recipe: Recipe, model: Model) -> Callable[[Any, Any], Tensor]:
    if isinstance(recipe, DetectionRecipe) and isinstance(model, DetectionModel):
        return DetectionDistillation(recipe.loss, model.head, recipe.image_size)
    return class_distillation


def _all_instances(recipe: Recipe, model: Model) -> list[Instance]:
    """The plain network, and every point and ratio of the recipe, at each of its sizes."""
    full, multiple = recipe.image_size, model.max_reduction
    sizes = {size_px("sdpoint.sizes", wanted, full, multiple) for wanted in recipe.sdpoint.sizes} - {full}
    if not (sizes or recipe.sdpoint.ratios):
        raise InputError(
            f"sdpoint.sizes: none is below image_size {full} in multiples of {multiple}; choose smaller ones"
        )
    scales = [1.0, *sorted((size / full for size in sizes), reverse=True)]
    return list_instances(_chosen_points(recipe, model) if recipe.sdpoint.ratios else (), recipe.sdpoint.ratios, scales)


def _cheaper(macs: dict[Instance, int]) -> list[Instance]:
    """The instances, given their multiply-adds, that save ``MIN_SAVING`` of the plain network's at their size.

    Classifiers keep all, as in the paper, whose last point saves nothing.
    """
    limits = {instance.scale: (1 - MIN_SAVING) * macs[instance] for instance in macs if instance.point == 0}
    kept = [instance for instance in macs if instance.point == 0 or macs[instance] <= limits[instance.scale]]
    left_out = ", ".join(instance.name for instance in macs if instance not in kept)
    if left_out:
        LOGGER.info("sdpoint: left out, because they save under %.0f %% of the cost: %s", 100 * MIN_SAVING, left_out)
    if kept == [PLAIN]:
        raise InputError(
            f"sdpoint: no instance saves {100 * MIN_SAVING:.0f} % of the cost; choose earlier points or smaller sizes"
        )
    return kept


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
    if not recipe.sdpoint.is_on:
        keys = [field.name for field in fields(recipe.sdpoint) if field.name not in ("ratios", "sizes")]
        return [OptionDependency("sdpoint", key, "sdpoint.ratios", "empty", "a list") for key in keys]
    is_classifier = isinstance(recipe, ClassificationRecipe)
    needs = (
        [] if recipe.sdpoint.ratios else [OptionDependency("sdpoint", "points", "sdpoint.ratios", "empty", "a list")]
    )
    if recipe.sdpoint.schedule == "paper":
        needs.append(OptionDependency("sdpoint", "drawn", "sdpoint.schedule", "paper", "sandwich"))
    else:
        needs.append(OptionDependency("sdpoint", "plain_share", "sdpoint.schedule", "sandwich", "paper"))
    return [
        *needs,
        OptionDependency(
            "sdpoint", "way", "the model", "a classifier" if is_classifier else "a detector", "a detector"
        ),
    ]
