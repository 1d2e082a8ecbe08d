"""One seed for everything random."""

from __future__ import annotations

import random

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and PyTorch on every device.

    Training samples do not depend on these: they draw from generators keyed by (seed, epoch, position).
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def generator(*key: int) -> np.random.Generator:
    """A NumPy generator that is a pure function of ``key``, such as (seed, epoch, position)."""
    # Each number as two words of 32 bits, behind their count: NumPy alone takes (1, 0) for (1,) and 2**32 for (0, 1).
    words = [word for number in key for word in (number & 0xFFFFFFFF, number >> 32)]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([len(key), *words])))
