"""Object detection for small objects: train, evaluate, predict, export."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detect.inference.detector import Detector

__version__ = "0.1.0"

__all__ = ["Detector", "__version__"]


def __getattr__(name: str) -> Any:
    # Detector needs PyTorch, which takes a second to import; `import detect` alone should not.
    if name == "Detector":
        from detect.inference.detector import Detector

        return Detector
    raise AttributeError(f"module 'detect' has no attribute {name!r}")
