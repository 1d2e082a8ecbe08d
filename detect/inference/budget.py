"""The choice of one of a network's instances (SDPoint) within a budget, for detectors and classifiers alike.

Shares of the full cost are as they were measured; GFLOPs and milliseconds are those of a square image of the size in
use, though a detector sees the smallest rectangle that holds the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from detect.errors import InputError
from detect.evaluation.instances import NO_INSTANCES, pareto_front
from detect.evaluation.network_time import NetworkRun, network_ms
from detect.inference.network import Network, TorchNetwork
from detect.inference.onnx_network import OnnxNetwork
from detect.models.checkpoint import Checkpoint
from detect.models.instance_costs import InstanceCosts
from detect.models.instances import InstanceRecord
from detect.models.sdpoint import PLAIN, Instance
from detect.runtime.precision import Precision


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
        instances = self._checkpoint.instances
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
        instances = self._checkpoint.instances
        assert instances is not None, "there are records"
        measured = instances.measured
        return (
            f"{amount}; {self._metric} {record.metrics[self._metric]:.3f} "
            f"({measured['data']} {measured['split']}, {measured['image_size']} px)"
        )


class AdjustableCost:
    """What ``Detector`` and ``Classifier`` share: a network whose cost can be chosen while it is in use (SDPoint).

    Args:
        network: what runs; the cost of an exported file is settled.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._menu = InstanceMenu(network.checkpoint) if isinstance(network, TorchNetwork) else None

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        return self._network.device

    @property
    def names(self) -> tuple[str, ...]:
        """The K class names."""
        return self._network.names

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The ids that the K classes have in the annotation file of the training."""
        return self._network.category_ids

    @property
    def image_size(self) -> int:
        """Side of the network input in pixels that the network was trained with; of a detector, the long one."""
        return self._network.image_size

    @property
    def cost(self) -> float:
        """The share of the full network's multiply-adds that the network in use has, in (0, 1].

        Setting it switches, in less than 10 ms, to the instance with the best measured metric (AP, top-1) of those that
        cost no more. 1 is the full network, even where a cheaper instance measured better. Only checkpoints that were
        trained with SDPoint and measured (``tools/evaluate.py --instances``) take anything but 1.

        Raises:
            InputError: it is out of range or below the cheapest instance, or nothing was measured.
        """
        if isinstance(self._network, OnnxNetwork):
            return self._network.cost
        menu, network = self._adjustable()
        return menu.share(network.model.instance)

    @cost.setter
    def cost(self, share: float) -> None:
        self.choose(cost=share)

    def choose(
        self,
        *,
        cost: float | None = None,
        gflops: float | None = None,
        target_ms: float | None = None,
        image_size: int | None = None,
    ) -> Choice:
        """Use the instance with the best measured metric within a budget, of which one is to be given.

        Args:
            cost: a share of the full cost, as the property.
            gflops: 2 * multiply-adds / 1e9 of a square image.
            target_ms: milliseconds of the network for a square image, which are measured here and now.
            image_size: side of that image in pixels; None is the one of the training.

        Returns:
            What was chosen.

        Raises:
            InputError: not one budget is given, it is out of range or below the cheapest instance, nothing was
                measured, or the network is an exported file.
        """
        if sum(budget is not None for budget in (cost, gflops, target_ms)) != 1:
            raise InputError("budget: name one of cost, gflops and target_ms")
        menu, network = self._adjustable()
        size = network.check_size(image_size)
        if cost is not None:
            choice = menu.within_share(cost)
        elif gflops is not None:
            choice = menu.within_gflops(gflops, size)
        else:
            assert target_ms is not None, "one is given"
            choice = menu.within_ms(target_ms, size, network.device, network.precision)
        network.model.use_instance(choice.instance)
        return choice

    def choices(self, costs: Sequence[float], network_hw: tuple[int, int]) -> list[tuple[Choice, float]]:
        """What ``cost`` would choose for each of several shares, and the network's milliseconds, timed in turn.

        Args:
            costs: shares of the full cost.
            network_hw: height and width of the network input.

        Raises:
            InputError: as for ``cost``.
        """
        menu, network = self._adjustable()
        chosen = [menu.within_share(cost) for cost in costs]
        runs = [NetworkRun(network.model, choice.instance, network_hw) for choice in chosen]
        return list(zip(chosen, network_ms(runs, network.device, network.precision), strict=True))

    def _adjustable(self) -> tuple[InstanceMenu, TorchNetwork]:
        if self._menu is None or not isinstance(self._network, TorchNetwork):
            raise InputError("the cost of an exported file is settled; tools/export.py --cost exports another one")
        return self._menu, self._network
