"""From a file to what can predict with it: the network decides the task."""

from __future__ import annotations

from pathlib import Path

from detect.inference.classifier import Classifier
from detect.inference.detector import Detector
from detect.inference.network import open_network
from detect.runtime.device import Precision


def open_predictor(weights: Path, device: str, precision: Precision) -> Detector | Classifier:
    """A detector or a classifier.

    Args:
        weights: the file of a checkpoint or of an exported model.
        device: as of ``Detector``.
        precision: number format of the network.

    Raises:
        InputError: the file or the device is not usable.
    """
    network = open_network(weights, device, precision)
    return Classifier(network) if network.is_classifier else Detector(network)
