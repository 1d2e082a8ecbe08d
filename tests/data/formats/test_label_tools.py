"""The same boxes are read of every labelling tool's exports, in all its forms and in several versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from detect.data.datasets import read_split
from detect.data.recognition import open_data
from tests.data.formats.tool_exports import BOXES, EXPECTED, EXPORTS, make_export
from tests.data.formats.tool_folders import boxes_of


@pytest.mark.parametrize("export", EXPORTS)
def test_equal_boxes(export: str, tmp_path: Path) -> None:
    paths = make_export(tmp_path, export)
    config = open_data(str(tmp_path))
    assert config.format == EXPORTS[export][0]
    table = read_split(config, "train")
    assert table.names == tuple(BOXES)
    found = boxes_of(table)
    assert {name: found[path.name] for name, path in paths.items()} == EXPECTED
    assert [line for line in table.problems.summary() if "skipped" in line] == []
