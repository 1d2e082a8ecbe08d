"""Detection of small objects, and classification: train, evaluate, predict, export."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detect.inference.classifier import Classifier
    from detect.inference.detector import Detector

__version__ = "0.1.0"

__all__ = ["Classifier", "Detector", "__version__"]


def __getattr__(name: str) -> Any:
    # They need libraries that take a second or more to import; `import detect` alone should not.
    if name == "Classifier":
        from detect.inference.classifier import Classifier

        return Classifier
    if name == "Detector":
        from detect.inference.detector import Detector

        return Detector
    raise AttributeError(f"module 'detect' has no attribute {name!r}")
