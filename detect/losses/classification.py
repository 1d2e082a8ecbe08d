"""Loss of classification.

Letters: B images, E exits, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from detect.runtime.distributed import all_reduce_sum
from detect.structures import ClassTargets


@dataclass(frozen=True)
class ClassLossTerms:
    """The only term, a scalar, as the mean over the batch.

    Args:
        classes: cross-entropy; of several processes each has its share.
        num_images: of the batch, over all processes.
    """

    classes: Tensor
    num_images: int

    @property
    def total(self) -> Tensor:
        return self.classes

    def values(self) -> dict[str, float]:
        """Return numbers by name, for logs."""
        return {"classes": float(self.classes.detach())}


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
        flat = logits.float().view(-1, logits.shape[-1])  # (B * E, K)
        if logits.ndim == 3:
            shares = shares.repeat_interleave(logits.shape[1], dim=0)  # (B * E, K)
        mean = F.cross_entropy(flat, shares, label_smoothing=self.label_smoothing)
        return ClassLossTerms(mean * (len(logits) / num_images), num_images)
