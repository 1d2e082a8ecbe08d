"""The building blocks: importing this package registers all of them."""

from __future__ import annotations

from detect.models.blocks import conv, csp, downsample, merge, spp  # noqa: F401
