"""Names of devices, without PyTorch."""

from __future__ import annotations


def full_device_name(name: str, local_rank: int | None) -> str:
    """Return ``cuda:1`` for ``1``, and for ``cuda``, with several processes, the GPU of the local rank; others as they
    are.
    """
    if name == "cuda" and local_rank is not None:
        return f"cuda:{local_rank}"  # one GPU for each process of a machine
    return f"cuda:{name}" if name.isdigit() else name
