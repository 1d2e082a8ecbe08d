from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import resource
import torch
from detect.runtime.cpu import keep_freed_memory
keep_freed_memory()
def work():
    blocks = [torch.ones(2**20) for _ in range(16)]  # 4 MiB each, as activations are
for _ in range(5):
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="about glibc")
def test_freed_memory_is_used_again() -> None:
    """Each round touches 16 x 1024 pages. Without the call, glibc returns them at most starts: 327,060 faults."""
    ended = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert int(ended.stdout) < 1024


RETURNING = """
import re
from detect.runtime.cpu import return_freed_memory
def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read()).group(1)) // 1024
blocks = [bytes(10_000) for _ in range(20_000)]  # 200 MB, each too small to go back by itself
last = bytes(10_000)  # behind them: the heap cannot become shorter
full = resident()
del blocks
kept = resident()
return_freed_memory()
print(full, kept, resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="about glibc")
def test_freed_memory_goes_back() -> None:
    ended = subprocess.run([sys.executable, "-c", RETURNING], capture_output=True, text=True, check=True)
    full, kept, returned = map(int, ended.stdout.split())
    assert kept > full - 20
    assert returned < full - 150
