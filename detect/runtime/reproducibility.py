"""Seeds of everything random, and the record of what made a file."""

from __future__ import annotations

import platform
import random
import shlex
import sys
from datetime import datetime, timezone

import cv2
import numpy as np
import torch

import detect


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and PyTorch on every device.
    Training samples do not depend on these: they draw from generators keyed by (seed, epoch, position).
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def generator(*key: int) -> np.random.Generator:
    """Return a NumPy generator that is a pure function of ``key``, such as (seed, epoch, position)."""
    # Two 32-bit words for each number, after the count: NumPy alone takes (1, 0) for (1,) and 2**32 for (0, 1).
    words = [word for number in key for word in (number & 0xFFFFFFFF, number >> 32)]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([len(key), *words])))


def collect_provenance() -> dict[str, str]:
    """Return versions, the machine's architecture, the time (UTC, ISO 8601) and the command line."""
    return {
        "detect": detect.__version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv),
    }
