"""Palettes, and what a sensor does to a scene: blur, vignetting, noise, one colour, JPEG.

Letters: S side of a scene in pixels, C channels.
"""

from __future__ import annotations

import functools

import cv2
import numpy as np

from detect.data.scenes.textures import with_noise

BLUR_SHARE, VIGNETTE_SHARE, NOISE_SHARE, JPEG_SHARE, TINT_SHARE = 0.25, 0.12, 0.6, 0.05, 0.3
"""Shares of scenes; the last one of those in one colour, the others are grey."""
_SIGMAS = (1.5, 2.0, 3.0, 4.5, 6.5, 9.0, 12.0, 16.0)  # of the noise, grey levels
_LOSSES = (50, 90, 140)  # of light in the corners, in 1/256
_VALUES = np.arange(256)


def colour_table(channels: int, rng: np.random.Generator, min_contrast: int = 0) -> np.ndarray:
    """Draw a palette (256, C) uint8: two to four colours with straight lines between them.

    Args:
        channels: C; the channels of a dull palette differ little.
        rng: drawn from.
        min_contrast: grey levels between the first and the last colour, at least.
    """
    contrast = max(rng.uniform(8, 170), min_contrast)
    colour = rng.uniform(0, 255, 1) + rng.uniform(-1, 1, channels) * rng.choice([10, 40, 110])
    step = rng.uniform(-1, 1, channels) * contrast
    if min_contrast:
        step = (1.0 if rng.random() < 0.5 else -1.0) * contrast * rng.uniform(0.8, 1, channels)
        colour = 127.5 - step / 2 + rng.uniform(-40, 40, 1)
    count = int(rng.integers(2, 5)) if not min_contrast else 2
    colours = [colour - step / 2]
    for number in range(1, count):
        bend = rng.uniform(-0.3, 0.3, channels) * contrast if number < count - 1 else 0
        colours.append(colours[0] + step * number / (count - 1) + bend)
    stops = np.clip(np.round(colours), 0, 255).astype(np.int64)
    place = _VALUES * (count - 1)
    lower = np.minimum(place // 255, count - 2)
    share = (place - lower * 255)[:, None]
    return ((stops[lower] * (255 - share) + stops[lower + 1] * share + 127) // 255).astype(np.uint8)


def expose(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return an image (S, S) or (S, S, 3) uint8 as a sensor sees it: (S, S, 3) uint8 RGB."""
    blur, vignette, noisy, jpeg, tint = (rng.random(5) < _SHARES).tolist()
    if blur:
        size = 3 if rng.random() < 0.8 else 5
        image = cv2.GaussianBlur(image, (size, size), 0)
    if vignette:
        gains = _vignette(len(image), _LOSSES[int(rng.integers(len(_LOSSES)))], image.size // len(image) ** 2)
        image = cv2.multiply(image, gains, scale=1 / 256)  # exact in floats
    if noisy:
        image = with_noise(image, _SIGMAS[int(rng.integers(len(_SIGMAS)))], rng)
    image = cv2.applyColorMap(image, colour_table(3, rng, 120)[:, None]) if tint and image.ndim == 2 else to_rgb(image)
    return _compressed(image, int(rng.integers(25, 90))) if jpeg else image


def to_rgb(image: np.ndarray) -> np.ndarray:
    """Repeat the channel of a grey image: (S, S, 3)."""
    return cv2.merge([image] * 3) if image.ndim == 2 else image


_SHARES = np.array([BLUR_SHARE, VIGNETTE_SHARE, NOISE_SHARE, JPEG_SHARE, TINT_SHARE])


@functools.lru_cache(maxsize=8)
def _vignette(side: int, loss: int, channels: int) -> np.ndarray:
    """Gains in 1/256, (S, S) or (S, S, 3) uint8: 255 in the centre, ``loss`` less in the corners."""
    axis = (2 * np.arange(side, dtype=np.int64) - (side - 1)) ** 2
    gains = (255 - np.add.outer(axis, axis) * loss // (2 * max(side - 1, 1) ** 2)).astype(np.uint8)
    return cv2.merge([gains] * channels) if channels > 1 else gains


def _compressed(image: np.ndarray, quality: int) -> np.ndarray:
    """Encode as JPEG with all of the colour, whose decoders differ without it, and decode."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR]
    _, encoded = cv2.imencode(".jpg", image, [*options, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444])
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    assert decoded is not None, "it has just been encoded"
    return decoded
