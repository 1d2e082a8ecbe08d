"""The building blocks: importing this package registers all of them."""

from __future__ import annotations

from detect.models.blocks import (  # noqa: F401
    conv,
    csp,
    dense,
    downsample,
    maxout,
    merge,
    plain,
    pool,
    preactivation,
    preresidual,
    residual,
    spatial_attention,
    spp,
)
