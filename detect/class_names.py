"""Class names: their indices, and lists of them compared by name.

Lists are those of a checkpoint and a data set, of two splits, or of two checkpoints.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detect.errors import InputError, did_you_mean

_NUM_SHOWN = 5


@dataclass(frozen=True)
class ClassMatch:
    """Classes of a source found among those of a target.

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
        """Equal classes in equal order."""
        return len(self.source) == len(self.target) and bool((self.target_of == np.arange(len(self.target))).all())

    @property
    def shared(self) -> list[str]:
        """Common classes, by the target's names."""
        return [self.target[index] for index in self.target_of.tolist() if index >= 0]

    @property
    def only_source(self) -> list[str]:
        return [name for name, index in zip(self.source, self.target_of.tolist(), strict=True) if index < 0]

    @property
    def only_target(self) -> list[str]:
        found = set(self.target_of.tolist())
        return [name for index, name in enumerate(self.target) if index not in found]

    @property
    def respelled(self) -> list[str]:
        """Pairs that differ in case or blanks, as text."""
        pairs = zip(self.source, self.target_of.tolist(), strict=True)
        return [
            f"{name!r} is {self.target[index]!r}" for name, index in pairs if index >= 0 and name != self.target[index]
        ]

    def differences(self, only_source: str, only_target: str, respelled: str) -> str:
        """Join those of the three sentences that apply, with the class names in place of their ``{}``."""
        sentences = {
            only_source: some_names(self.only_source),
            only_target: some_names(self.only_target),
            respelled: ", ".join(self.respelled[:3]),
        }
        return "; ".join(sentence.format(names) for sentence, names in sentences.items() if names)


def match_names(source: tuple[str, ...], target: tuple[str, ...]) -> ClassMatch:
    """Find the classes of ``source`` in ``target``.

    Equal names are the same class. So are names that differ only in case or blanks (``Traffic  Light``,
    ``traffic light``), if neither list has another name of that form. A name that occurs twice in a list matches
    nothing, unless the two lists are equal.
    """
    if source == target:
        return ClassMatch(source, target, np.arange(len(target), dtype=np.int64))
    found = _unique_pairs(source, target)
    folded = _unique_pairs([_fold(name) for name in source], [_fold(name) for name in target])
    taken = set(found.values())
    found |= {row: index for row, index in folded.items() if row not in found and index not in taken}
    return ClassMatch(source, target, np.array([found.get(row, -1) for row in range(len(source))], np.int64))


def some_names(names: Sequence[str]) -> str:
    """Return the first names in quotes, and the number of the others."""
    shown = ", ".join(map(repr, names[:_NUM_SHOWN]))
    return f"{shown} and {len(names) - _NUM_SHOWN} more" if len(names) > _NUM_SHOWN else shown


def are_numbers(names: tuple[str, ...]) -> bool:
    """Return True for the default names, 0 to K - 1."""
    return names == tuple(map(str, range(len(names))))


def class_indices(classes: Sequence[str | int] | None, names: Sequence[str]) -> tuple[int, ...] | None:
    """Return class names or indices as distinct indices; None stays None.

    Raises:
        InputError: there is no such class.
    """
    if classes is None:
        return None
    if isinstance(classes, str):
        raise InputError(f"classes: must be a list, such as [{classes!r}]")
    return tuple(dict.fromkeys(_class_index(choice, names) for choice in classes))


def _fold(name: str) -> str:
    return " ".join(name.casefold().split())


def _unique_pairs(source: Sequence[str], target: Sequence[str]) -> dict[int, int]:
    """Map index in ``source`` to index in ``target`` for the names that occur once in each."""
    in_source, in_target = Counter(source), Counter(target)
    place = {name: index for index, name in enumerate(target)}
    return {row: place[name] for row, name in enumerate(source) if in_source[name] == 1 and in_target.get(name, 0) == 1}


def _class_index(choice: str | int, names: Sequence[str]) -> int:
    if isinstance(choice, str) and choice in names:
        return names.index(choice)
    try:
        index = int(choice)
    except ValueError:
        raise InputError(f"classes: unknown class {choice!r}{did_you_mean(str(choice), names)}") from None
    if not 0 <= index < len(names):
        raise InputError(f"classes: there is no class {index}; allowed: 0 to {len(names) - 1}")
    return index
