"""Plug-ins of the papers, found by name, so that no other package imports ``detect.papers``."""

from __future__ import annotations

import importlib
from typing import Any

from detect.errors import InputError

PAPERS = "detect.papers"
"""The package with the table ``PLUGINS``; an installation may leave it out."""


def plugin_names(hook: str) -> tuple[str, ...]:
    """Return the names of the plug-ins on a hook; none without the package."""
    return tuple(_table(hook))


def find_plugin(hook: str, name: str) -> Any:
    """Import and return a plug-in; None where there is none."""
    place = _table(hook).get(name)
    if place is None:
        return None
    module, attribute = place.split(":")
    return getattr(importlib.import_module(module), attribute)


def require_plugin(hook: str, name: str, where: str) -> Any:
    """Import and return the plug-in of a hook, a key of ``detect.papers.PLUGINS``, and of a name, a key on the hook.

    ``InputError`` if there is none, with ``where``, the setting that needs it.
    """
    found = find_plugin(hook, name)
    if found is None:
        raise InputError(f"{where}: needs {PAPERS}, which this installation does not have")
    return found


def _table(hook: str) -> dict[str, str]:
    try:
        plugins: dict[str, dict[str, str]] = importlib.import_module(PAPERS).PLUGINS
    except ModuleNotFoundError as error:
        if error.name != PAPERS:
            raise
        return {}
    return plugins.get(hook, {})
