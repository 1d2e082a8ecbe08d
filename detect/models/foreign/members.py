"""Choice of the member of a family of models that weights fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from detect.errors import InputError

Fit = TypeVar("Fit")


class Misfit(NamedTuple):
    """The nearest member of a family that weights do not fit.

    Args:
        num_misfits: tensors or rows that do not fit.
        name: of the member.
        complaint: about the first of them.
    """

    num_misfits: int
    name: str
    complaint: str


def fitting_member(
    family: Sequence[str], name: str | None, path: Path, translate: Callable[[str], tuple[Fit, list[str]]]
) -> Fit | Misfit:
    """Return what the first member that weights fit becomes, or the nearest one as a ``Misfit``.

    Args:
        family: names of the members, in the order in which they are tried.
        name: the only member to try; ``InputError`` if the weights do not fit it.
        path: file of the weights, for messages.
        translate: a member's name to what it becomes, and a complaint for each tensor or row that does not fit.
    """
    misfits = []
    for candidate in family if name is None else (name,):
        model, complaints = translate(candidate)
        if not complaints:
            return model
        misfits.append(Misfit(len(complaints), candidate, complaints[0]))
    nearest = min(misfits, key=lambda misfit: misfit.num_misfits)
    if name is not None:
        raise InputError(f"{path}: weights of another model than {name}: {nearest.complaint}")
    return nearest
