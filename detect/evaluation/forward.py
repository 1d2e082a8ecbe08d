"""Forward pass in PyTorch: a batch of images to predictions, or to logits.

Models are in evaluation mode, on ``device``. Detections are decoded in float32 at every precision of the network,
because bfloat16 scores have 8 bits and would tie.
Letters: B images, H W network input pixels, P predictions per image, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detect.evaluation.postprocess import Forward
from detect.models.model import ClassificationModel, DetectionModel, Model, network_input
from detect.runtime.cpu import tuned_threads
from detect.runtime.device import Precision, autocast


@contextmanager
def evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    """Put ``model`` into evaluation mode for the block, then every module back into its own mode."""
    # Module by module: a frozen part may have its norms in evaluation mode while the rest trains.
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@torch.inference_mode()
def run_network(model: DetectionModel, images: Tensor, device: torch.device, precision: Precision = "fp32") -> Tensor:
    """Predict (B, P, 5 + K) float32 from (B, H, W, 3) uint8 RGB: cxcywh in input pixels, objectness, probabilities."""
    raw = _raw_output(model, images, device, precision)
    return model.decode([level.float() for level in raw], (images.shape[1], images.shape[2]))


def forward_of(model: DetectionModel, device: torch.device, precision: Precision = "fp32") -> Forward:
    """Return ``run_network`` of a model as a function of arrays."""

    def forward(images: np.ndarray) -> Tensor:
        return run_network(model, torch.from_numpy(images), device, precision)

    return forward


@torch.inference_mode()
def run_classifier(
    model: ClassificationModel, images: Tensor, device: torch.device, precision: Precision = "fp32"
) -> Tensor:
    """Run a classifier; arguments as for ``run_network``. Returns its logits, (B, K) float32."""
    logits: Tensor = _raw_output(model, images, device, precision)
    return logits.float()


def _raw_output(model: Model, images: Tensor, device: torch.device, precision: Precision) -> Any:
    inputs = network_input(images, device)
    with tuned_threads(device, images.numel()), autocast(precision, device):
        return model(inputs)
