"""The choice of one of a network's instances (SDPoint) within a budget, for detectors and classifiers alike.

Shares of the full cost are as they were measured; GFLOPs and milliseconds are those of a square image of the size in
use, though a detector sees the smallest rectangle that holds the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from detect.errors import InputError
from detect.inference.network import Budget, TorchNetwork
from detect.models.checkpoint import Checkpoint
from detect.papers.sdpoint.comparison import NO_INSTANCES, pareto_front
from detect.papers.sdpoint.instances import InstanceRecord, instances_in
from detect.papers.sdpoint.network_time import NetworkRun, network_ms
from detect.papers.sdpoint.transform import PLAIN, Instance, InstanceCosts, instance_of, use_instance
from detect.runtime.device import Precision


@dataclass(frozen=True)
class Choice:
    """An instance that was chosen.

    Args:
        instance: which.
        reason: what is known about it, in words.
    """

    instance: Instance
    reason: str

    def line(self) -> str:
        """Which instance it is and what it costs, in one line."""
        return f"instance {self.instance.name}: {self.reason}"


class InstanceMenu:
    """The instances of a checkpoint with what was measured of them.

    Args:
        checkpoint: of any network; one without instances has the plain network only.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._metric = "top1" if checkpoint.model.definition.is_classifier else "AP"
        self._costs: InstanceCosts | None = None

    def share(self, instance: Instance) -> float:
        """The share of the plain network's multiply-adds that an instance has.

        Raises:
            InputError: it is another one than the plain network, and nothing was measured.
        """
        if instance == PLAIN:
            return 1.0
        records = self._records()
        return next(record.macs for record in records if record.instance == instance) / records[0].macs

    def within_share(self, share: float) -> Choice:
        """The instance with the best metric of those that cost no more; for 1 the plain network, whatever was measured.

        Args:
            share: of the full cost, in (0, 1]; those of the instances are rounded to the three decimals that tables
                show.

        Raises:
            InputError: it is out of range or below the cheapest instance, or nothing was measured.
        """
        if not 0 < share <= 1:
            raise InputError(f"cost: must be above 0 and at most 1, the full network; found {share:g}")
        if share == 1:
            return Choice(PLAIN, "the full network")
        shares = {record.instance: round(self.share(record.instance), 3) for record in self._records()}
        return self._best(shares, share, f"cost {share:g}", "costs {:.3f} of the full network")

    def within_gflops(self, gflops: float, image_size: int) -> Choice:
        """The instance with the best metric of those that need no more billions of operations.

        Args:
            gflops: 2 * multiply-adds / 1e9 of an image; those of the instances are rounded to four digits.
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
        """The instance with the best metric of those that are as fast, timed here and now.

        Instances on the Pareto front of metric over multiply-adds are timed, best metric first, until one is fast
        enough.

        Args:
            target_ms: milliseconds of the network for one image.
            image_size: side of the square image in pixels.
            device: where the model is.
            precision: number format of the network.

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
                "tools/evaluate.py --weights FILE --data DATA --instances"
            )
        is_whole = {"data", "split", "image_size"} <= instances.measured.keys() and instances.records[0].macs > 0
        if not is_whole or any(self._metric not in record.metrics for record in instances.records):
            raise InputError("the cost cannot be chosen: the records of the instances are damaged; measure them again")
        return instances.records

    def _best(self, amounts: dict[Instance, float], budget: float, asked: str, words: str) -> Choice:
        """The best instance of those whose amount is within the budget; of equally good ones that with the least."""
        records = [record for record in self._records() if record.instance in amounts]
        fitting = [record for record in records if amounts[record.instance] <= budget]
        if not fitting:
            least = min(records, key=lambda record: amounts[record.instance])
            words = words.format(amounts[least.instance])
            raise InputError(f"{asked}: no instance is within it; {least.instance.name} {words}")
        best = max(fitting, key=lambda record: (record.metrics[self._metric], -amounts[record.instance]))
        return Choice(best.instance, self._words(best, words.format(amounts[best.instance])))

    def _words(self, record: InstanceRecord, amount: str) -> str:
        instances = instances_in(self._checkpoint)
        assert instances is not None, "there are records"
        measured = instances.measured
        return (
            f"{amount}; {self._metric} {record.metrics[self._metric]:.3f} "
            f"({measured['data']} {measured['split']}, {measured['image_size']} px)"
        )


class AdjustableNetwork(TorchNetwork):
    """A checkpoint's model whose cost can be chosen while it is in use; without instances, the full network.

    Args:
        checkpoint: of one with instances the model itself runs, moved to ``device``; otherwise a faster copy.
        device: where.
        precision: number format of the network.
    """

    def __init__(self, checkpoint: Checkpoint, device: torch.device, precision: Precision) -> None:
        # Without norms a network is faster, but instances have norms of their own, and switch in a moment.
        super().__init__(checkpoint, device, precision, fuse=instances_in(checkpoint) is None)
        self._menu = InstanceMenu(checkpoint)

    @property
    def cost(self) -> float:
        """See ``Network``."""
        return self._menu.share(instance_of(self.model))

    def choose(self, budget: Budget) -> Choice:
        """See ``Network``. It takes less than 10 ms, but for milliseconds."""
        size = self.check_size(budget.image_size)
        if budget.cost is not None:
            choice = self._menu.within_share(budget.cost)
        elif budget.gflops is not None:
            choice = self._menu.within_gflops(budget.gflops, size)
        else:
            assert budget.target_ms is not None, "one is given"
            choice = self._menu.within_ms(budget.target_ms, size, self.device, self.precision)
        use_instance(self.model, choice.instance)
        return choice

    def choices(self, costs: Sequence[float], network_hw: tuple[int, int]) -> list[tuple[Choice, float]]:
        """What each of several shares of the cost would choose, and the network's milliseconds, timed in turn.

        Args:
            costs: shares of the full cost.
            network_hw: height and width of the network input.

        Raises:
            InputError: as for ``choose``.
        """
        chosen = [self._menu.within_share(cost) for cost in costs]
        runs = [NetworkRun(self.model, choice.instance, network_hw) for choice in chosen]
        return list(zip(chosen, network_ms(runs, self.device, self.precision), strict=True))


def choose_cost(checkpoint: Checkpoint, cost: float) -> str:
    """Use the best instance of at most ``cost``, a share of the full cost in (0, 1], as the model's network.

    Returns:
        A line with its name and cost.

    Raises:
        InputError: there is none, or nothing was measured.
    """
    choice = InstanceMenu(checkpoint).within_share(cost)
    use_instance(checkpoint.model, choice.instance)
    return choice.line()


def export_facts(checkpoint: Checkpoint) -> dict[str, str]:
    """What an exported file says of the instance that runs."""
    instance = instance_of(checkpoint.model)
    return {"instance": instance.name, "cost": str(InstanceMenu(checkpoint).share(instance))}
