"""With what, when and by which command something was made."""

from __future__ import annotations

import platform
import shlex
import sys
from datetime import datetime, timezone

import cv2
import numpy as np
import torch

import detect


def made_with() -> dict[str, str]:
    """Versions, the kind of machine, the time (UTC, ISO 8601) and the command line, as plain values."""
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
