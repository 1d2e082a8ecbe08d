"""Names of devices, without PyTorch."""

from __future__ import annotations

from detect.runtime.distributed import local_rank


def full_device_name(name: str) -> str:
    """Return ``cuda:1`` for ``1``, and for ``cuda``, with several processes, the GPU of the local rank; others as they
    are.
    """
    own = local_rank()
    if name == "cuda" and own is not None:
        return f"cuda:{own}"  # one GPU for each process of a machine
    return f"cuda:{name}" if name.isdigit() else name
