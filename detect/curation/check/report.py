"""A check in words and as JSON."""

from __future__ import annotations

import dataclasses
from typing import Any

from detect.curation.check.run import CheckReport
from detect.curation.check.severity import SEVERITIES
from detect.drawing.text import shorten

_VERDICTS = (
    "clean: nothing to mend",
    "warnings: {warnings}; training works, but look at them",
    "errors: {errors}, {warnings}; data is lost or wrong",
)
_MAX_NAME = 20


def check_text(report: CheckReport) -> str:
    """A table by split, one line for each kind of problem, and the verdict."""
    head = f"{shorten(report.name, 80)} ({report.format}) in {shorten(report.root, 200)}"
    lines = [head, "", f"{'split':<{_MAX_NAME}}" + "".join(f"{title:>10}" for title in _TITLES)]
    for split, size in report.sizes.items():
        counts = [f"{report.count(severity, split):,}" for severity in SEVERITIES]
        numbers = [f"{number:,}" for number in dataclasses.astuple(size)] if size else ["-", "-", "-"]
        lines.append(f"{shorten(split, _MAX_NAME - 1):<{_MAX_NAME}}" + "".join(f"{n:>10}" for n in numbers + counts))
    lines += [""] * bool(report.findings)
    for found in report.findings:
        examples = "; ".join(found.examples) + "; ..." * (found.count > len(found.examples))
        lines.append(f"{found.severity:<8} {shorten(found.split, _MAX_NAME)}: {found.count:,} {found.kind}: {examples}")
    lines += ["", *(f"not looked for: {what}" for what in report.unchecked), _verdict(report)]
    return "\n".join(lines)


_TITLES = ("images", "boxes", "classes", "errors", "warnings", "notes")


def check_json(report: CheckReport) -> dict[str, Any]:
    """The report as JSON values; ``exit_code`` is that of the tool."""
    return {
        "data": shorten(report.name, 80),
        "format": report.format,
        "exit_code": report.exit_code,
        "verdict": _verdict(report),
        "splits": {shorten(split, 80): size and dataclasses.asdict(size) for split, size in report.sizes.items()},
        "findings": [dataclasses.asdict(finding) for finding in report.findings],
        "not_looked_for": list(report.unchecked),
    }


def _verdict(report: CheckReport) -> str:
    counts = {f"{severity}s": _counted(report.count(severity), severity) for severity in SEVERITIES}
    return _VERDICTS[report.exit_code].format(**counts)


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
