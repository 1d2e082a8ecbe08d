from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import torch
from detect.runtime.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def work():
    blocks = [torch.ones(2**20) for _ in range(16)]  # 4 MiB each, as activations are
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="about glibc")
def test_freed_memory_is_used_again() -> None:
    faults = {
        how: int(subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, check=True).stdout)
        for how in ("leave", "keep")
    }
    assert faults["keep"] < faults["leave"] / 4
