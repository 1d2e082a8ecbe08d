"""Mean operations of a training whose epochs have two resolutions (TRD)."""

from __future__ import annotations


def area_rule(full: float, resolution: int, full_resolution: int) -> float:
    """Operations at another resolution, as the paper has them: as many times less as the image has fewer pixels.

    Maps are whole cells, and what follows the global pool costs the same at any resolution, so that a network does more
    than this: ResNet-50 at 112 px for 224 px by 5 %, at 84 px by 19 %.

    Args:
        full: operations at the full resolution.
        resolution: lambda, side of the reduced image in pixels.
        full_resolution: R, side of the full image in pixels.

    Source: Temporally Resolution Decrement, Table 1, whose figures follow from it.
    """
    return full * (resolution / full_resolution) ** 2


def mean_flops(full: float, reduced: float, probability: float) -> float:
    """mFLOPs: operations for an image, on average over the epochs.

    Args:
        full: operations at the full resolution.
        reduced: those at the reduced one.
        probability: P, or the share of the epochs that were reduced.

    Source: Temporally Resolution Decrement, section 4.1 ("weighted average value of training FLOPs in time domain").
    """
    return (1 - probability) * full + probability * reduced
