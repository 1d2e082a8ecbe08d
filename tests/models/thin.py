"""Families of test cases of which the fast suite runs a few."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from _pytest.mark import ParameterSet


def thin(cases: Iterable[Any], *fast: int) -> list[Any]:
    """Return all cases; those at other positions than ``fast`` are slow, unless they carry marks of their own."""
    return [
        case
        if i in fast or isinstance(case, ParameterSet)
        else pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow)
        for i, case in enumerate(cases)
    ]
