"""Families of test cases of which the fast suite runs a few."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def thin(cases: Iterable[Any], *fast: int) -> list[Any]:
    """All cases; those at other positions than ``fast`` are slow."""
    return [
        case if i in fast else pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow)
        for i, case in enumerate(cases)
    ]
