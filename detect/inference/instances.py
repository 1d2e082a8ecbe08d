"""Choice among the instances of a network (SDPoint) within a budget, from their measured table; without PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from detect.errors import InputError, did_you_mean

PLAIN_NAME = "plain"
"""Name of the full network."""

Item = TypeVar("Item")


class FixedCostError(InputError):
    """A network without measured instances to choose from."""


@dataclass(frozen=True)
class Budget:
    """Maximum cost of a network: one of the first three.

    Args:
        cost: share of the full network's multiply-adds, in (0, 1].
        gflops: 2 * multiply-adds / 1e9 of a square image.
        target_ms: milliseconds of the network for a square image, measured on this machine first.
        image_size: side of that image in pixels; None: the training's.

    Raises:
        InputError: none, or more than one, of the three is given, or it is out of range.
    """

    cost: float | None = None
    gflops: float | None = None
    target_ms: float | None = None
    image_size: int | None = None

    def __post_init__(self) -> None:
        if sum(given is not None for given in (self.cost, self.gflops, self.target_ms)) != 1:
            raise InputError("budget: name one of cost, gflops and target_ms")
        if self.cost is not None and not 0 < self.cost <= 1:
            raise InputError(f"cost: must be above 0 and at most 1, the full network; found {self.cost:g}")
        for name, value in (("gflops", self.gflops), ("target ms", self.target_ms)):
            if value is not None and not value > 0:
                raise InputError(f"{name}: must be above 0, found {value:g}")


@dataclass(frozen=True)
class Choice:
    """A chosen instance.

    Args:
        name: of the instance.
        reason: its cost and metric as text.
    """

    name: str
    reason: str

    def line(self) -> str:
        """Name, cost and metric in one line."""
        return f"instance {self.name}: {self.reason}"


FULL = Choice(PLAIN_NAME, "the full network")


@dataclass(frozen=True)
class InstanceEntry:
    """A row of the table of instances.

    Args:
        name: as ``3@0.5``; the full network is ``plain``.
        cost: share of the full network's multiply-adds.
        macs: multiply-adds of one square image of the measured size.
        ms: milliseconds of the network for it, on the machine that measured.
        metric: AP or top-1.
    """

    name: str
    cost: float
    macs: int
    ms: float
    metric: float


@dataclass(frozen=True)
class InstanceMenu:
    """The measured instances of a network.

    Args:
        entries: the full network first.
        metric: name of the metric.
        measured: data, split and image size as text.
    """

    entries: tuple[InstanceEntry, ...]
    metric: str
    measured: str

    def entry(self, name: str) -> InstanceEntry:
        """Find an entry; ``InputError`` if there is none."""
        for entry in self.entries:
            if entry.name == name:
                return entry
        raise InputError(f"instance {name}: is unknown{did_you_mean(name, (entry.name for entry in self.entries))}")

    @property
    def front_macs(self) -> list[InstanceEntry]:
        """The Pareto front by multiply-adds, cheapest first."""
        return pareto_front(self.entries, lambda entry: entry.macs, lambda entry: entry.metric)

    @property
    def front_ms(self) -> list[InstanceEntry]:
        """The Pareto front by milliseconds, fastest first."""
        return pareto_front(self.entries, lambda entry: entry.ms, lambda entry: entry.metric)

    def within_share(self, share: float) -> Choice:
        """Choose the instance with the best metric up to a share of the cost; for 1 always the full network.

        Shares are compared rounded to three decimals, as in tables. ``InputError`` if no instance is as cheap.
        """
        if share == 1:
            return FULL
        shares = {entry.name: round(entry.cost, 3) for entry in self.entries}
        return self._best(shares, share, f"cost {share:g}", "costs {:.3f} of the full network")

    def choose(
        self, budget: Budget, image_size: int, gflops_of: Callable[[str], float], ms_of: Callable[[str], float]
    ) -> Choice:
        """Choose the instance with the best metric within a budget.

        Operations are compared rounded to four digits, as they are shown. For ``target_ms`` instances on the Pareto
        front by multiply-adds are timed, best metric first, until one is fast enough.

        Args:
            budget: the maximum.
            image_size: side of the square image that the next two are of.
            gflops_of: an instance's name to its operations.
            ms_of: an instance's name to its milliseconds, measured now.

        Raises:
            InputError: no instance is within the budget.
        """
        if budget.cost is not None:
            return self.within_share(budget.cost)
        if budget.gflops is not None:
            needed = {entry.name: float(f"{gflops_of(entry.name):.4g}") for entry in self.entries}
            template = f"needs {{:.4g}} GFLOPs at {image_size} px"
            return self._best(needed, budget.gflops, f"gflops {budget.gflops:g}", template)
        assert budget.target_ms is not None, "one is given"
        times: dict[str, float] = {}
        for entry in reversed(self.front_macs):
            times[entry.name] = ms_of(entry.name)
            if times[entry.name] <= budget.target_ms:
                break
        template = f"takes {{:.3g}} ms here at {image_size} px"
        return self._best(times, budget.target_ms, f"target ms {budget.target_ms:g}", template)

    def _best(self, amounts: dict[str, float], budget: float, asked: str, template: str) -> Choice:
        """The instance with the best metric within the budget; of equally good ones the cheapest."""
        entries = [entry for entry in self.entries if entry.name in amounts]
        fitting = [entry for entry in entries if amounts[entry.name] <= budget]
        if not fitting:
            least = min(entries, key=lambda entry: amounts[entry.name])
            amount = template.format(amounts[least.name])
            raise InputError(f"{asked}: no instance is within it; {least.name} {amount}")
        best = max(fitting, key=lambda entry: (entry.metric, -amounts[entry.name]))
        amount = template.format(amounts[best.name])
        return Choice(best.name, f"{amount}; {self.metric} {best.metric:.3f} ({self.measured})")


def pareto_front(items: Iterable[Item], cost: Callable[[Item], float], metric: Callable[[Item], float]) -> list[Item]:
    """Items that no other beats in one of cost and metric and equals in the other; cheapest first.

    Of items equal in both, the first is kept.
    """
    front: list[Item] = []
    for item in sorted(items, key=lambda item: (cost(item), -metric(item))):
        if not front or metric(item) > metric(front[-1]):
            front.append(item)
    return front
