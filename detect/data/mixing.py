"""The rule of mixup and CutMix that detection and classification share.

Source: Zhang et al., mixup, arXiv:1710.09412; Yun et al., CutMix, arXiv:1905.04899.
"""

from __future__ import annotations

import math
from typing import Literal

Mix = Literal["none", "mixup", "cutmix"]


def choose_mix(draw: float, mixup: float, cutmix: float) -> Mix:
    """Choose by the two probabilities, whose sum is at most 1; ``draw`` is uniform in [0, 1)."""
    if draw < mixup:
        return "mixup"
    return "cutmix" if draw < mixup + cutmix else "none"


def cutmix_rectangle(
    image_hw: tuple[int, int], share: float, centre_xy_px: tuple[float, float]
) -> tuple[int, int, int, int]:
    """Rectangle with a share of the image's area and its aspect ratio, clipped to the image; xyxy in whole pixels.

    Source: CutMix, equation 2: each side is sqrt(share) of the image's.
    """
    (height, width), (x, y) = image_hw, centre_xy_px
    half_height, half_width = height * math.sqrt(share) / 2, width * math.sqrt(share) / 2
    left, top = round(max(x - half_width, 0)), round(max(y - half_height, 0))
    return left, top, round(min(x + half_width, width)), round(min(y + half_height, height))
