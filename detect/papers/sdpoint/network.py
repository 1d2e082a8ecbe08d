"""Choice of an instance (SDPoint) within a budget, and timing of networks.

Shares of the full cost are as measured; GFLOPs and milliseconds are those of a square image of the size in use,
though a detector sees the smallest rectangle that holds the image.
Letters: H W network input pixels.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from detect.evaluation.forward import evaluation_mode, run_classifier, run_network
from detect.inference.inputs import checked_size
from detect.inference.instances import FULL, PLAIN_NAME, Budget, Choice, InstanceMenu
from detect.inference.timing import median_ms
from detect.inference.torch_network import TorchNetwork
from detect.models.checkpoint import Checkpoint
from detect.models.model import ClassificationModel, DetectionModel, Model
from detect.papers.sdpoint.instances import instances_in, instances_of, menu_of
from detect.papers.sdpoint.transform import PLAIN, Instance, InstanceCosts, instance_of, use_instance
from detect.runtime.device import Precision


class AdjustableNetwork(TorchNetwork):
    """A checkpoint's model whose cost can be changed in use; without instances, the full network.

    Args:
        checkpoint: with instances its own model is used, moved to ``device``; without, a fused copy.
        device: of the model.
        precision: number format of the network.
    """

    def __init__(self, checkpoint: Checkpoint, device: torch.device, precision: Precision) -> None:
        # Instances have norms of their own, so their convolutions cannot be fused with them.
        super().__init__(checkpoint, device, precision, fuse=instances_in(checkpoint) is None)
        self._full_size = checkpoint.image_size
        self._costs: InstanceCosts | None = None

    @property
    def cost(self) -> float:
        return share_of(self.checkpoint, instance_of(self.model))

    def menu(self) -> InstanceMenu:
        return menu_of(self.checkpoint)

    def use(self, name: str) -> None:
        """See ``InferenceNetwork``; ``image_size`` becomes the instance's. Under 10 ms."""
        instance = named_instance(self.checkpoint, name)
        use_instance(self.model, instance)
        self.image_size = self.check_size(None)

    def check_size(self, image_size: int | None) -> int:
        """See ``InferenceNetwork``; an instance on smaller images has its share of ``image_size``."""
        size = self._check_full_size(image_size)
        height, _ = instance_of(self.model).network_hw((size, size), self.multiple)
        return height

    def choose(self, budget: Budget) -> Choice:
        """See ``InferenceNetwork``. Under 10 ms, except for ``target_ms``."""
        size = self._check_full_size(budget.image_size)
        if budget.cost == 1:
            choice = FULL
        else:
            choice = self.menu().choose(budget, size, partial(self._gflops, size), partial(self._ms, size))
        self.use(choice.name)
        return choice

    def choices(self, costs: Sequence[float], network_hw: tuple[int, int]) -> list[tuple[Choice, float]]:
        """Choose an instance for each cost, and time it on an input of ``network_hw``; errors as of ``choose``."""
        chosen = [choose_share(self.checkpoint, cost) for cost in costs]
        runs = [NetworkRun(self.model, named_instance(self.checkpoint, one.name), network_hw) for one in chosen]
        return list(zip(chosen, network_ms(runs, self.device, self.precision), strict=True))

    def _check_full_size(self, image_size: int | None) -> int:
        return checked_size(self._full_size if image_size is None else image_size, self.multiple)

    def _gflops(self, image_size: int, name: str) -> float:
        if self._costs is None:
            self._costs = InstanceCosts(self.model.graph, self.model.num_classes)
        return 2e-9 * self._costs.macs(named_instance(self.checkpoint, name), (image_size, image_size))

    def _ms(self, image_size: int, name: str) -> float:
        run = NetworkRun(self.model, named_instance(self.checkpoint, name), (image_size, image_size))
        return network_ms([run], self.device, self.precision)[0]


def named_instance(checkpoint: Checkpoint, name: str) -> Instance:
    """An instance of a checkpoint by its name; ``InputError`` if it has no such measured instance."""
    if name == PLAIN_NAME:
        return PLAIN
    menu_of(checkpoint).entry(name)
    instances = instances_of(checkpoint, name)
    return next(record.instance for record in instances.records if record.instance.name == name)


def share_of(checkpoint: Checkpoint, instance: Instance) -> float:
    """Multiply-adds of a measured instance as a share of the plain network's."""
    return 1.0 if instance == PLAIN else menu_of(checkpoint).entry(instance.name).cost


def choose_share(checkpoint: Checkpoint, cost: float) -> Choice:
    """The best instance of at most ``cost``, a share of the full cost; the full network needs no measurement."""
    budget = Budget(cost=cost)
    return FULL if budget.cost == 1 else menu_of(checkpoint).within_share(cost)


def choose_cost(checkpoint: Checkpoint, cost: float) -> tuple[Checkpoint, str]:
    """Use the best instance of at most this share of the cost; return the checkpoint with its size, and a line."""
    choice = choose_share(checkpoint, cost)
    return with_instance(checkpoint, choice.name), choice.line()


def with_instance(checkpoint: Checkpoint, name: str) -> Checkpoint:
    """Activate an instance; returns the checkpoint with its image size."""
    instance, size = named_instance(checkpoint, name), checkpoint.image_size
    use_instance(checkpoint.model, instance)
    image_size, _ = instance.network_hw((size, size), checkpoint.model.max_reduction)
    return replace(checkpoint, image_size=image_size)


def export_facts(checkpoint: Checkpoint) -> dict[str, str]:
    """Metadata of an exported file about the active instance."""
    instance = instance_of(checkpoint.model)
    return {"instance": instance.name, "cost": str(share_of(checkpoint, instance))}


@dataclass(frozen=True)
class NetworkRun:
    """A network to time.

    Args:
        model: on the device of the timing.
        instance: of the model.
        image_hw: H and W at scale 1, multiples of the model's ``max_reduction``.
    """

    model: Model
    instance: Instance
    image_hw: tuple[int, int]


def network_ms(runs: Sequence[NetworkRun], device: torch.device, precision: Precision = "fp32") -> list[float]:
    """Milliseconds of each network for one image, decoding included, as ``median_ms`` measures them.

    Args:
        runs: afterwards the models have their previous instances.
        device: of the models.
        precision: number format of the networks.
    """
    before = {id(run.model): (run.model, instance_of(run.model)) for run in runs}
    with ExitStack() as modes:
        for model, _ in before.values():
            modes.enter_context(evaluation_mode(model))
        times = median_ms([partial(_seconds, run, device, precision) for run in runs])
    for model, instance in before.values():
        use_instance(model, instance)
    return times


def _seconds(run: NetworkRun, device: torch.device, precision: Precision) -> float:
    use_instance(run.model, run.instance)
    image_hw = run.instance.network_hw(run.image_hw, run.model.max_reduction)
    image = torch.full((1, *image_hw, 3), 128, dtype=torch.uint8)
    start = time.perf_counter()
    _forward(run.model, image, device, precision)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def _forward(model: Model, image: Tensor, device: torch.device, precision: Precision) -> None:
    if isinstance(model, DetectionModel):
        run_network(model, image, device, precision)
    else:
        assert isinstance(model, ClassificationModel), "there are two kinds of models"
        run_classifier(model, image, device, precision)
