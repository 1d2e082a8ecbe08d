"""Loss of classification.

Letters: B images, E exits, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from detect.runtime.distributed import all_reduce_sum
from detect.structures import ClassTargets

TRAIN_TOP1 = "train/top1"
"""Tag of the top-1 accuracy on training batches as they went through the network, augmented."""


@dataclass(frozen=True)
class ClassLossTerms:
    """The only term, a scalar, as the mean over the batch, and the accuracy; of several processes each has its share.

    Args:
        classes: cross-entropy.
        top1: share of the images whose class is predicted, of mixed images the class with the larger share; of several
            exits by the last one.
        num_images: of the batch, over all processes.
    """

    classes: Tensor
    top1: Tensor
    num_images: int

    @property
    def total(self) -> Tensor:
        return self.classes

    def values(self) -> dict[str, float]:
        """Return numbers by name, for logs."""
        return {"classes": float(self.classes.detach()), TRAIN_TOP1: float(self.top1)}


class ClassificationLoss:
    """Cross-entropy of logits and target shares.

    Args:
        label_smoothing: share of each target that is spread over all classes, in [0, 1).

    Source: Szegedy et al., "Rethinking the Inception Architecture" (2016), section 7, for label smoothing.
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing

    def __call__(self, logits: Tensor, targets: ClassTargets) -> ClassLossTerms:
        """Compute the loss of logits (B, K), or the mean of those of E exits (B, E, K), and target shares (B, K)."""
        num_images = int(all_reduce_sum([len(logits)])[0])
        shares = targets.shares
        last = logits.detach() if logits.ndim == 2 else logits.detach()[:, -1]  # (B, K)
        is_right = last.argmax(dim=1) == shares.argmax(dim=1)
        flat = logits.float().view(-1, logits.shape[-1])  # (B * E, K)
        if logits.ndim == 3:
            shares = shares.repeat_interleave(logits.shape[1], dim=0)  # (B * E, K)
        mean = F.cross_entropy(flat, shares, label_smoothing=self.label_smoothing)
        return ClassLossTerms(mean * (len(logits) / num_images), is_right.sum() / num_images, num_images)
