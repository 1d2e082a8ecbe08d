"""The loss of classification.

Letters: B images, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from detect.runtime.distributed import all_reduce_sum
from detect.structures import ClassTargets


@dataclass(frozen=True)
class ClassLossTerms:
    """The loss's one term, a scalar, as the mean over the batch.

    Args:
        classes: cross-entropy; of several processes each has its share.
        num_images: of the batch, over all processes.
    """

    classes: Tensor
    num_images: int

    @property
    def total(self) -> Tensor:
        """The term."""
        return self.classes

    def values(self) -> dict[str, float]:
        """A plain number by name, for logs."""
        return {"classes": float(self.classes.detach())}


class ClassificationLoss:
    """Cross-entropy of logits with what the images show.

    Args:
        label_smoothing: so much of each target is spread over all classes, in [0, 1).

    Source: Szegedy et al., "Rethinking the Inception Architecture" (2016), section 7, for label smoothing.
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing

    def __call__(self, logits: Tensor, targets: ClassTargets) -> ClassLossTerms:
        """The loss of a batch.

        Args:
            logits: (B, K).
            targets: shares (B, K).
        """
        num_images = int(all_reduce_sum([len(logits)])[0])
        mean = F.cross_entropy(logits.float(), targets.shares, label_smoothing=self.label_smoothing)
        return ClassLossTerms(mean * (len(logits) / num_images), num_images)
