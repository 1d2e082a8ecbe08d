"""Models with what turns their answer into what a user reads: this is what an exported file computes.

Letters: B images, H W pixels, P predictions of an image, K classes.
"""

from __future__ import annotations

from torch import Tensor, nn

from detect.models.classifier import ClassificationModel
from detect.models.detector import DetectionModel
from detect.models.model import Model

PREFIX = "model."
"""In front of the names that the model's weights have in its state dict."""


class DecodedDetector(nn.Module):
    """A detection model with its decoding.

    Args:
        model: in evaluation mode.
    """

    output_name = "predictions"

    def __init__(self, model: DetectionModel) -> None:
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1] to (B, P, 5 + K), as ``DetectionModel.decode`` gives it."""
        return self.model.decode(self.model(images))


class ClassProbabilities(nn.Module):
    """A classification model with its softmax.

    Probabilities, not logits: they are what ``detect.Classifier`` gives, as a detector's file gives probabilities too,
    and their logarithm is as good as the logits for whoever wants those.

    Args:
        model: in evaluation mode.
    """

    output_name = "probabilities"

    def __init__(self, model: ClassificationModel) -> None:
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1] to (B, K); each row sums to 1."""
        return self.model(images).softmax(dim=1)


Wrapper = DecodedDetector | ClassProbabilities


def wrapped(model: Model) -> Wrapper:
    """The wrapper of a model's task."""
    if isinstance(model, ClassificationModel):
        return ClassProbabilities(model)
    assert isinstance(model, DetectionModel), "there are two tasks"
    return DecodedDetector(model)
