"""Building blocks of models; importing the package registers all of them."""

from __future__ import annotations

from detect.models.blocks import attention, conv, csp, dense, downsample, merge, pool, residual  # noqa: F401
