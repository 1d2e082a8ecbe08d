"""The building blocks: importing this package registers all of them."""

from detect.models.blocks import conv, csp, downsample, merge, spp  # noqa: F401
