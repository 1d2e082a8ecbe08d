"""Detection of small objects, and classification: train, evaluate, predict, export."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detect.api.evaluation import Metrics, evaluate
    from detect.api.exporting import export
    from detect.api.training import TrainResult, resume, train
    from detect.inference.classifier import Classifier
    from detect.inference.detector import Detector

__version__ = "0.2.0"

__all__ = [
    "Classifier",
    "Detector",
    "Metrics",
    "TrainResult",
    "__version__",
    "evaluate",
    "export",
    "resume",
    "train",
]

_MODULES = {
    "Classifier": "inference.classifier",
    "Detector": "inference.detector",
    "Metrics": "api.evaluation",
    "TrainResult": "api.training",
    "evaluate": "api.evaluation",
    "export": "api.exporting",
    "resume": "api.training",
    "train": "api.training",
}


def __getattr__(name: str) -> Any:
    # They need libraries that take a second or more to import; `import detect` alone should not.
    if name not in _MODULES:
        raise AttributeError(f"module 'detect' has no attribute {name!r}")
    return getattr(importlib.import_module(f"detect.{_MODULES[name]}"), name)
