"""Program of a fresh process that runs one file, and times each stage of each batch; it reads and writes JSON lines.

The first line names the file; each further one a batch size and images.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

from detect.bench.pipeline import Pipeline, open_pipeline
from detect.errors import InputError
from detect.runtime.threads import use_threads

STATUS = Path("/proc/self/status")


def peak_bytes() -> int:
    """Largest resident memory of this process so far; 0 where the system does not say."""
    if not STATUS.is_file():
        return 0
    # Not getrusage: its peak begins with the memory of the process that started this one.
    found = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return 1024 * int(found.split()[1])


def _answer(pipeline: Pipeline, order: dict[str, Any]) -> dict[str, Any]:
    size, paths = order["batch"], order["images"]
    batches = [paths[start : start + size] for start in range(0, len(paths) - size + 1, size)]
    before = time.process_time()
    seconds = [pipeline.time_batch(batch) for batch in batches]
    cpu_s = time.process_time() - before
    return {"seconds": seconds, "cpu_s": cpu_s, "peak_bytes": peak_bytes()}


def main() -> None:
    """Serve the process that started this one until it closes standard input."""
    first = json.loads(sys.stdin.readline())
    use_threads(first["threads"])
    try:
        pipeline = open_pipeline(first["weights"], first["is_foreign"], first["names"])
        _reply({"name": pipeline.name, "stages": pipeline.stages})
        for line in sys.stdin:
            _reply(_answer(pipeline, json.loads(line)))
    except InputError as error:
        _reply({"error": str(error)})


def _reply(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # meant for the process that started this one
    main()
