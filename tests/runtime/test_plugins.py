from __future__ import annotations

import importlib

import pytest

from detect.errors import InputError
from detect.papers import PLUGINS
from detect.runtime.plugins import find_plugin, plugin_names, require_plugin


def test_nothing_hangs_there() -> None:
    assert plugin_names("nothing") == ()
    assert find_plugin("nothing", "at all") is None
    assert find_plugin("strategies", "at all") is None


def test_every_plugin_is_where_the_table_says() -> None:
    for hook, name in [(hook, name) for hook, names in PLUGINS.items() for name in names]:
        module, attribute = PLUGINS[hook][name].split(":")
        assert find_plugin(hook, name) is getattr(importlib.import_module(module), attribute)
        assert require_plugin(hook, name, "here") is find_plugin(hook, name)
        assert name in plugin_names(hook)


def test_what_is_needed_and_not_there() -> None:
    with pytest.raises(InputError, match=r"^conv: fancy: needs detect\.papers, which this installation does not have$"):
        require_plugin("convolutions", "fancy", "conv: fancy")
