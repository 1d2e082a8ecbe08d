"""Lists of class names compared by name: of a checkpoint and a data set, of two splits, of two checkpoints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_SHOWN = 5


@dataclass(frozen=True)
class ClassMatch:
    """Classes of a source among those of a target.

    Args:
        source: S class names.
        target: T class names.
        target_of: (S,) int64, the target's index of each source class; -1 for none.
    """

    source: tuple[str, ...]
    target: tuple[str, ...]
    target_of: np.ndarray

    @property
    def is_same(self) -> bool:
        """The two have the same classes in the same order."""
        return len(self.source) == len(self.target) and bool((self.target_of == np.arange(len(self.target))).all())

    @property
    def shared(self) -> list[str]:
        """The target's names of the classes that both have."""
        return [self.target[index] for index in self.target_of.tolist() if index >= 0]

    @property
    def only_source(self) -> list[str]:
        """Source classes that the target lacks."""
        return [name for name, index in zip(self.source, self.target_of.tolist(), strict=True) if index < 0]

    @property
    def only_target(self) -> list[str]:
        """Target classes that the source lacks."""
        found = set(self.target_of.tolist())
        return [name for index, name in enumerate(self.target) if index not in found]

    @property
    def respelled(self) -> list[str]:
        """Pairs that differ in case or blanks, as text; empty where every shared name is the same to the letter."""
        pairs = zip(self.source, self.target_of.tolist(), strict=True)
        return [
            f"{name!r} is {self.target[index]!r}" for name, index in pairs if index >= 0 and name != self.target[index]
        ]


def match_names(source: tuple[str, ...], target: tuple[str, ...]) -> ClassMatch:
    """Find the classes of ``source`` in ``target``.

    Equal names are the same class. So are names that differ only in case or blanks (``Traffic  Light``,
    ``traffic light``), where neither list has another name of that form. A name that a list has twice names no class,
    unless the two lists are equal.
    """
    if source == target:
        return ClassMatch(source, target, np.arange(len(target), dtype=np.int64))
    found = _unique_pairs(source, target)
    folded = _unique_pairs([_fold(name) for name in source], [_fold(name) for name in target])
    taken = set(found.values())
    found |= {row: index for row, index in folded.items() if row not in found and index not in taken}
    return ClassMatch(source, target, np.array([found.get(row, -1) for row in range(len(source))], np.int64))


def some_names(names: Sequence[str]) -> str:
    """The first names in quotes, and how many more there are."""
    shown = ", ".join(map(repr, names[:_SHOWN]))
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown


def are_numbers(names: tuple[str, ...]) -> bool:
    """Whether the names are 0 to K - 1: those of classes that nobody has named."""
    return names == tuple(map(str, range(len(names))))


def _fold(name: str) -> str:
    return " ".join(name.casefold().split())


def _unique_pairs(source: Sequence[str], target: Sequence[str]) -> dict[int, int]:
    """Index in ``source`` to index in ``target`` of the names that each of them has once."""
    in_source, in_target = Counter(source), Counter(target)
    place = {name: index for index, name in enumerate(target)}
    return {row: place[name] for row, name in enumerate(source) if in_source[name] == 1 and in_target.get(name, 0) == 1}
