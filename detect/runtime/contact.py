"""The loss of other processes that a run needs."""

from __future__ import annotations


class LostContactError(RuntimeError):
    """Another process of the run has ended or does not answer."""


_CAUSES = {
    "Killed": "it was killed from outside, most often because the memory is used up; fewer --workers or a smaller "
    "--batch-size need less",
    "Bus error": "/dev/shm or a disk that it reads from is full or gone; --workers 0 needs no /dev/shm, docker's "
    "--shm-size makes it larger",
    "": "--workers 0 shows what it does",
}
"""Of the end of a worker process, by what PyTorch says of it."""
_OF_A_WORKER = "DataLoader worker (pid"


def lost_worker(error: RuntimeError) -> LostContactError | None:
    """PyTorch's error for a worker process that has ended, with the cause; None for any other error.

    PyTorch raises it wherever the main thread is at that moment. The one that is a cause of another names the signal.
    """
    told = next((text for text in (str(error.__cause__), str(error)) if text.startswith(_OF_A_WORKER)), None)
    if told is None:
        return None
    told = told.partition("\n")[0].rstrip(". ").removeprefix("DataLoader ")
    cause = next(cause for found, cause in _CAUSES.items() if found in told)
    return LostContactError(f"{told}: {cause}")
