"""Inject faults one at a time and run the fast tests that must notice them.

python benchmarks/faults.py [--faults FILE] [--only WORD]

Each fault of ``benchmarks/faults.yaml`` changes one passage of one file. It is applied to a copy of the checkout, the
tests that it names run there, and at least one of them must fail. The working tree is never touched.
Ends with 1 if a fault goes unnoticed or its passage is not in the file.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import yaml

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = (".git", ".venv", "runs", "__pycache__", ".*_cache", "*.egg-info", ".hypothesis", "build", "dist")
TESTS_FAILED = 1
"""Exit code of pytest. Any other is no proof: 2 is an interruption, 4 a wrong command line, 5 an empty selection."""


class Fault(NamedTuple):
    """``old`` stands exactly once in ``file`` and becomes ``new``; ``tests`` are paths or node ids."""

    file: str
    old: str
    new: str
    tests: list[str]


def run_tests(fault: Fault, copy: Path) -> tuple[bool, str]:
    """Run the tests against the fault; (noticed, the first failing test or the reason)."""
    path = copy / fault.file
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if text.count(fault.old) != 1:
        return False, f"the passage stands {text.count(fault.old)} times in the file"
    path.write_text(text.replace(fault.old, fault.new), encoding="utf-8")
    try:
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", *fault.tests]
        environment = os.environ | {"PYTHONPATH": str(copy)}
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    finally:
        path.write_text(text, encoding="utf-8")
    failures = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    reason = failures[0][:110] if failures else f"pytest ended with {done.returncode}"
    return done.returncode == TESTS_FAILED and bool(failures), reason


def main() -> int:
    """Print one line for each fault and the count; return 0 if all are noticed."""
    parser = argparse.ArgumentParser(description="inject faults and run the tests that must notice them")
    parser.add_argument("--faults", type=Path, default=ROOT / "benchmarks" / "faults.yaml", help="list of faults")
    parser.add_argument("--only", default="", metavar="WORD", help="faults with this word in their file's path")
    arguments = parser.parse_args()
    entries = yaml.safe_load(arguments.faults.read_text(encoding="utf-8"))
    faults = [fault for fault in (Fault(**entry) for entry in entries) if arguments.only in fault.file]
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "checkout"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*LEFT_OUT), symlinks=True)
        for number, fault in enumerate(faults, start=1):
            start = time.monotonic()
            is_noticed, reason = run_tests(fault, copy)
            missed += not is_noticed
            verdict = "noticed" if is_noticed else "MISSED "
            what = f"{fault.file}: {fault.new.strip()[:60]!r}"
            print(f"{number:>3} {verdict} {time.monotonic() - start:5.1f} s  {what}  {reason}", flush=True)
    print(f"{len(faults) - missed} of {len(faults)} faults noticed")
    return 1 if missed or not faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
