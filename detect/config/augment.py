"""Augmentation of training images: the ``augment`` section of a recipe."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Interval

from detect.config.base import Listed, Named, Share, Strict, Unit


@dataclass(frozen=True)
class AlbumentationConfig(Strict):
    """One transform of the albumentations library."""

    name: str
    """Its class name (``Blur``, ``GaussNoise``, ``CLAHE``, ...)."""
    p: Share = 0.5
    """Probability."""
    args: Named[Any] = field(default_factory=dict)
    """Its other keyword arguments."""


@dataclass(frozen=True)
class AugmentConfig(Strict):
    """Augmentation of training images. Probabilities are per sample."""

    mosaic: Share = 1.0
    """Probability of a mosaic instead of the single image."""
    mosaic9: Share = 0.0
    """Share of mosaics of nine images instead of four."""
    close_mosaic: Annotated[int, Ge(0), Unit("epochs")] = 10
    """Number of final epochs without mosaic, mixup and cutmix."""
    mixup: Share = 0.0
    """Probability of blending with a second sample (weights from Beta(32, 32)). A sample is mixed one way at most,
    so mixup and cutmix together are at most 1."""
    cutmix: Share = 0.0
    """Probability of pasting a rectangle of a second sample (area share from Beta(1, 1))."""
    copy_paste: Share = 0.0
    """Probability that the small objects of an image are pasted again at other places of it, where no object is: the
    boxes, zoomed by up to a fifth and blended at the border."""
    copy_paste_px: Annotated[float, Ge(0), Unit("px")] = 32.0
    """Of ``copy_paste``: small objects have a smaller area than a square of this side in the network input."""
    copy_paste_copies: Annotated[int, Interval(ge=1, le=10)] = 1
    """Of ``copy_paste``: copies of each small object."""
    degrees: Annotated[float, Interval(ge=0, le=180), Unit("degrees")] = 0.0
    """Rotation, uniform in +-degrees."""
    translate: Share = 0.1
    """Shift, uniform in +-translate, as a share of the image size."""
    scale: Annotated[float, Interval(ge=0, le=0.99)] = 0.5
    """Zoom, uniform in [1 - scale, 1 + scale]."""
    shear: Annotated[float, Interval(ge=0, le=45), Unit("degrees")] = 0.0
    """Shear, uniform in +-degrees, x and y."""
    perspective: Annotated[float, Interval(ge=0, le=0.001)] = 0.0
    """Perspective coefficients, uniform in +-perspective, per pixel."""
    flip_left_right: Share = 0.5
    """Probability."""
    flip_up_down: Share = 0.0
    """Probability."""
    rotate90: Share = 0.0
    """Probability of a rotation by 90, 180 or 270 degrees (for images taken from above)."""
    hsv_hue: Annotated[float, Interval(ge=0, le=0.5)] = 0.015
    """Hue gain, uniform in +-hsv_hue, as a share of the circle."""
    hsv_saturation: Share = 0.7
    """Saturation factor, uniform in 1 +- hsv_saturation."""
    hsv_value: Share = 0.4
    """Value factor, uniform in 1 +- hsv_value."""
    albumentations: Listed[AlbumentationConfig] = ()
    """Further transforms, applied in order to each augmented sample."""


@dataclass(frozen=True)
class ClassAugmentConfig(Strict):
    """Augmentation of a classifier's training images. Probabilities are per image, those of mixing per batch.

    Source: ResNet (He et al., 2016), section 4.2, for ``pad``; BDSC (2018), section 4.1, for ``resize``; GoogLeNet
    (Szegedy et al., 2015), section 6, for ``area``; AutoAugment (Cubuk et al., 2019); Cutout (DeVries and Taylor,
    2017); mixup (Zhang et al., 2018); CutMix (Yun et al., 2019).
    """

    crop: Literal["none", "pad", "resize", "area"] = "none"
    """Crop of a training image to image size S. ``none``: center crop, as in evaluation. ``pad``: random S x S crop of
    the image with ``padding`` black pixels around it. ``resize``: the image is resized to a side uniform in
    ``resize_px``, then a random S x S crop. ``area``: a rectangle with a share of the image
    uniform in ``area`` and an aspect ratio up to ``aspect``, anywhere, resized to S x S."""
    padding: Annotated[int, Ge(0), Unit("px")] = 4
    """Of ``pad``: black pixels on each side."""
    resize_px: Listed[Annotated[int, Ge(1), Unit("px")]] = ()
    """Of ``resize``: smallest and largest side in pixels."""
    area: Listed[Annotated[float, Interval(ge=0.001, le=1)]] = (0.08, 1.0)
    """Of ``area``: smallest and largest share."""
    aspect: Annotated[float, Interval(ge=1, le=10)] = 4 / 3
    """Of ``area``: the ratio of the sides is log-uniform in [1 / aspect, aspect]."""
    degrees: Annotated[float, Interval(ge=0, le=180), Unit("degrees")] = 0.0
    """Rotation, uniform in +-degrees."""
    flip_left_right: Share = 0.5
    """Probability."""
    flip_up_down: Share = 0.0
    """Probability."""
    auto_augment: Literal["none", "cifar10", "imagenet", "svhn"] = "none"
    """Policy of AutoAugment, torchvision's, behind crop and flips."""
    brightness: Share = 0.0
    """Factor uniform in 1 +- brightness."""
    contrast: Share = 0.0
    """Factor on the difference from the image's mean grey, uniform in 1 +- contrast."""
    saturation: Share = 0.0
    """Factor on the difference from each pixel's grey, uniform in 1 +- saturation."""
    hue: Annotated[float, Interval(ge=0, le=0.5)] = 0.0
    """Hue shift, uniform in +-hue, as a share of the circle."""
    cutout: Annotated[int, Ge(0), Unit("px")] = 0
    """Side of a grey square with its centre anywhere in the image; 0 for none."""
    mixup: Share = 0.0
    """Probability that a batch is blended with a permutation of itself."""
    mixup_alpha: Annotated[float, Interval(ge=0.001, le=1000)] = 1.0
    """alpha of the weight's distribution, Beta(alpha, alpha)."""
    cutmix: Share = 0.0
    """Probability that a rectangle of a batch is replaced by that of a permuted batch. A batch is mixed once at most,
    so mixup and cutmix together are at most 1."""
    cutmix_alpha: Annotated[float, Interval(ge=0.001, le=1000)] = 1.0
    """alpha of the area's distribution, Beta(alpha, alpha)."""

    def contradictions(self) -> Iterator[tuple[str, str]]:
        if self.mixup + self.cutmix > 1:
            yield "", "mixup and cutmix exclude each other, so together they must be at most 1"
        for crop, key, ends in (("resize", "resize_px", self.resize_px), ("area", "area", self.area)):
            if crop == self.crop and (len(ends) != 2 or ends[0] > ends[1]):
                yield key, f"must be the smallest and the largest, found {list(ends)}"
