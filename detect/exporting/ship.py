"""The program that uses an exported file, put beside it."""

from __future__ import annotations

from pathlib import Path

from detect.runtime.files import write_text

RUNNER = Path(__file__).with_name("onnx_runner.py")
"""It needs numpy, onnxruntime and opencv, and nothing of this package."""


def ship_runner(exported: Path) -> str:
    """Put ``onnx_runner.py`` beside an exported file; another one that is there stays, for a user may have changed it.

    Returns:
        How to use it, in one line.
    """
    target, program = exported.with_name(RUNNER.name), RUNNER.read_text(encoding="utf-8")
    if not target.exists():
        write_text(target, program)
    elif target.read_text(encoding="utf-8", errors="replace") != program:
        return f"{target}: is there and differs from the one of this version, so it was left alone"
    return f"without PyTorch: python {target} {exported} IMAGE"
