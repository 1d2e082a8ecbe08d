"""Choice of an instance (SDPoint) within a budget, and timing of networks.

Shares of the full cost are as measured; GFLOPs and milliseconds are those of a square image of the size in use,
though a detector sees the smallest rectangle that holds the image.
Letters: H W network input pixels.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from statistics import median

import torch
from torch import Tensor

from detect.errors import InputError
from detect.evaluation.forward import evaluation_mode, run_classifier, run_network
from detect.inference.network import Budget, CostTable, MeasuredNetwork
from detect.inference.torch_network import TorchNetwork
from detect.models.checkpoint import Checkpoint
from detect.models.model import ClassificationModel, DetectionModel, Model
from detect.papers.sdpoint.instances import NO_INSTANCES, InstanceRecord, Instances, instances_in, pareto_front
from detect.papers.sdpoint.transform import PLAIN, Instance, InstanceCosts, instance_of, use_instance
from detect.runtime.device import Precision
from detect.runtime.progress import progress_bar

_DAMAGED = "the cost cannot be chosen: the records of the instances are damaged; measure them again"


@dataclass(frozen=True)
class Choice:
    """A chosen instance.

    Args:
        instance: point, ratio and scale.
        reason: its cost and metric as text.
    """

    instance: Instance
    reason: str

    def line(self) -> str:
        return f"instance {self.instance.name}: {self.reason}"


class InstanceMenu:
    """The measured instances of a checkpoint.

    Args:
        checkpoint: of any network; without instances it has the plain network only.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._metric = "top1" if checkpoint.model.definition.is_classifier else "AP"
        self._costs: InstanceCosts | None = None

    def share(self, instance: Instance) -> float:
        """Multiply-adds of a measured instance as a share of the plain network's."""
        if instance == PLAIN:
            return 1.0
        records = self._records()
        return next(record.macs for record in records if record.instance == instance) / records[0].macs

    def table(self) -> CostTable | None:
        """The measured instances, cheapest first; None without any. ``InputError`` if their records are damaged."""
        instances = instances_in(self._checkpoint)
        if instances is None or not instances.records:
            return None
        records = sorted(self._records(), key=lambda record: record.macs)
        values = [value for record in records for value in (record.ms, record.metrics[self._metric])]
        if not all(isinstance(value, (int, float)) and math.isfinite(value) for value in values):
            raise InputError(_DAMAGED)
        front = pareto_front(records, self._metric)
        networks = tuple(
            MeasuredNetwork(
                record.instance.name,
                round(self.share(record.instance), 3),
                record.macs,
                record.ms,
                record.metrics[self._metric],
                is_best=record in front,
            )
            for record in records
        )
        return CostTable(self._metric, _conditions(instances), networks)

    def within_share(self, share: float) -> Choice:
        """Choose the instance with the best metric up to a share of the cost in (0, 1]; for 1 always the plain network.
        The share is compared with costs rounded to three decimals, as in tables.

        Raises:
            InputError: the share is out of range or below the cheapest instance, or nothing was measured.
        """
        if not 0 < share <= 1:
            raise InputError(f"cost: must be above 0 and at most 1, the full network; found {share:g}")
        if share == 1:
            return Choice(PLAIN, "the full network")
        shares = {record.instance: round(self.share(record.instance), 3) for record in self._records()}
        return self._best(shares, share, f"cost {share:g}", "costs {:.3f} of the full network")

    def within_gflops(self, gflops: float, image_size: int) -> Choice:
        """Choose the instance with the best metric up to a number of operations.

        Args:
            gflops: 2 * multiply-adds / 1e9 of an image; compared with costs rounded to four digits.
            image_size: side of the square image in pixels.

        Raises:
            InputError: it is out of range or below the cheapest instance, or nothing was measured.
        """
        if not gflops > 0:
            raise InputError(f"gflops: must be above 0, found {gflops:g}")
        if self._costs is None:
            model = self._checkpoint.model
            self._costs = InstanceCosts(model.graph, model.num_classes)
        needed = {
            record.instance: float(f"{2e-9 * self._costs.macs(record.instance, (image_size, image_size)):.4g}")
            for record in self._records()
        }
        return self._best(needed, gflops, f"gflops {gflops:g}", f"needs {{:.4g}} GFLOPs at {image_size} px")

    def within_ms(
        self, target_ms: float, image_size: int, device: torch.device, precision: Precision = "fp32"
    ) -> Choice:
        """Choose the instance with the best metric up to a network time for one square image, measured now.

        Instances on the Pareto front of metric over multiply-adds are timed, best metric first, until one is fast
        enough.

        Raises:
            InputError: it is out of range or no instance is as fast, or nothing was measured.
        """
        if not target_ms > 0:
            raise InputError(f"target ms: must be above 0, found {target_ms:g}")
        times: dict[Instance, float] = {}
        for record in reversed(pareto_front(self._records(), self._metric)):
            run = NetworkRun(self._checkpoint.model, record.instance, (image_size, image_size))
            (times[record.instance],) = network_ms([run], device, precision)
            if times[record.instance] <= target_ms:
                break
        return self._best(times, target_ms, f"target ms {target_ms:g}", f"takes {{:.3g}} ms here at {image_size} px")

    def _records(self) -> tuple[InstanceRecord, ...]:
        instances = instances_in(self._checkpoint)
        if instances is None:
            raise InputError(f"the cost cannot be chosen: {NO_INSTANCES}")
        if not instances.records:
            raise InputError(
                "the cost cannot be chosen before the checkpoint's instances are measured: "
                "detect val --weights FILE --data DATA --instances"
            )
        is_whole = {"data", "split", "image_size"} <= instances.measured.keys() and instances.records[0].macs > 0
        if not is_whole or any(self._metric not in record.metrics for record in instances.records):
            raise InputError(_DAMAGED)
        return instances.records

    def _best(self, amounts: dict[Instance, float], budget: float, asked: str, template: str) -> Choice:
        """The instance with the best metric within the budget; of equally good ones the cheapest."""
        records = [record for record in self._records() if record.instance in amounts]
        fitting = [record for record in records if amounts[record.instance] <= budget]
        if not fitting:
            least = min(records, key=lambda record: amounts[record.instance])
            amount = template.format(amounts[least.instance])
            raise InputError(f"{asked}: no instance is within it; {least.instance.name} {amount}")
        best = max(fitting, key=lambda record: (record.metrics[self._metric], -amounts[record.instance]))
        return Choice(best.instance, self._reason(best, template.format(amounts[best.instance])))

    def _reason(self, record: InstanceRecord, amount: str) -> str:
        instances = instances_in(self._checkpoint)
        assert instances is not None, "there are records"
        return f"{amount}; {self._metric} {record.metrics[self._metric]:.3f} ({_conditions(instances)})"


def _conditions(instances: Instances) -> str:
    """Data, split and image size of the measurement."""
    measured = instances.measured
    return f"{measured['data']} {measured['split']}, {measured['image_size']} px"


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
        self._menu, self._full_size = InstanceMenu(checkpoint), checkpoint.image_size

    @property
    def cost(self) -> float:
        return self._menu.share(instance_of(self.model))

    def cost_table(self) -> CostTable | None:
        return self._menu.table()

    def choose(self, budget: Budget) -> Choice:
        """See ``InferenceNetwork``; ``image_size`` becomes the choice's. Under 10 ms, except for ``target_ms``."""
        size = self.check_size(self._full_size if budget.image_size is None else budget.image_size)
        if budget.cost is not None:
            choice = self._menu.within_share(budget.cost)
        elif budget.gflops is not None:
            choice = self._menu.within_gflops(budget.gflops, size)
        else:
            assert budget.target_ms is not None, "one is given"
            choice = self._menu.within_ms(budget.target_ms, size, self.device, self.precision)
        use_instance(self.model, choice.instance)
        self.image_size, _ = choice.instance.network_hw((self._full_size, self._full_size), self.multiple)
        return choice

    def choices(self, costs: Sequence[float], network_hw: tuple[int, int]) -> list[tuple[Choice, float]]:
        """Choose an instance for each share of the cost, and time the network, in turn; errors as of ``choose``.

        ``network_hw`` is the network input at scale 1.
        """
        chosen = [self._menu.within_share(cost) for cost in costs]
        runs = [NetworkRun(self.model, choice.instance, network_hw) for choice in chosen]
        return list(zip(chosen, network_ms(runs, self.device, self.precision), strict=True))


def choose_cost(checkpoint: Checkpoint, cost: float) -> tuple[Checkpoint, str]:
    """Use the best instance of at most ``cost``, a share of the full cost in (0, 1], as the model's network.

    Returns the checkpoint with the instance's image size, and a line with its name and cost; ``InputError`` if there is
    none, or nothing was measured.
    """
    choice = InstanceMenu(checkpoint).within_share(cost)
    use_instance(checkpoint.model, choice.instance)
    size = checkpoint.image_size
    image_size, _ = choice.instance.network_hw((size, size), checkpoint.model.max_reduction)
    return replace(checkpoint, image_size=image_size), choice.line()


def export_facts(checkpoint: Checkpoint) -> dict[str, str]:
    """Metadata of an exported file about the active instance."""
    instance = instance_of(checkpoint.model)
    return {"instance": instance.name, "cost": str(InstanceMenu(checkpoint).share(instance))}


MAX_ROUNDS, MIN_ROUNDS, ENOUGH_SECONDS = 51, 5, 20.0
"""Maximum runs, minimum runs, time budget in seconds."""


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
    """Milliseconds of each network for one image: the median of its runs, after a first one that does not count.

    The time includes decoding, not reading, scaling and non-maximum suppression. Networks take turns, so that a
    machine that is slow for a while is slow for all.

    Args:
        runs: afterwards the models have their previous instances.
        device: of the models.
        precision: number format of the networks.
    """
    before = {id(run.model): (run.model, instance_of(run.model)) for run in runs}
    seconds: list[list[float]] = [[] for _ in runs]
    with ExitStack() as modes:
        for model, _ in before.values():
            modes.enter_context(evaluation_mode(model))
        for run in runs:
            _seconds(run, device, precision)
        start = time.perf_counter()
        for number in progress_bar(range(MAX_ROUNDS), "milliseconds", unit="round"):
            if number >= MIN_ROUNDS and time.perf_counter() - start > ENOUGH_SECONDS:
                break
            for run, found in zip(runs, seconds, strict=True):
                found.append(_seconds(run, device, precision))
    for model, instance in before.values():
        use_instance(model, instance)
    return [1000 * median(found) for found in seconds]


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
