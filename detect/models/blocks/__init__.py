"""Building blocks of models; importing the package registers all of them."""

from __future__ import annotations

from detect.models.blocks import (  # noqa: F401
    attention,
    conv,
    csp,
    dense,
    downsample,
    merge,
    normalise,
    pool,
    preresidual,
    residual,
    transition,
)
