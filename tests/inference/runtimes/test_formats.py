"""Which runtime opens a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from detect.errors import InputError
from detect.inference.runtimes.formats import FORMATS, Format


@pytest.mark.parametrize("form", FORMATS.values(), ids=list(FORMATS))
def test_a_missing_file_is_reported_before_a_missing_runtime(form: Format, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model\.\w+: cannot be read: No such file"):
        form.open_network(tmp_path / f"model{form.suffix}", "cpu")
