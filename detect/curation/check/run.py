"""Everything that is wrong with a data set for detection, found before a training finds it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from detect.config.data import DataConfig
from detect.curation.check.content import (
    check_classes,
    check_content,
    check_copies,
    check_unlisted,
    image_folder,
    images_in,
)
from detect.curation.check.pixels import check_pixels
from detect.curation.check.severity import (
    DEEP,
    DEEP_AS_IT_IS,
    DEEP_MEASURED,
    REFUSED,
    SEVERITIES,
    Severity,
    severity_of,
)
from detect.data.annotations import AnnotationTable, Problems
from detect.data.checks import check_split
from detect.data.datasets import READERS, read_split
from detect.data.formats.shard_images import StoredImage
from detect.data.pixel_values import ReadSettings
from detect.data.value_range import choose_range
from detect.drawing.text import shorten
from detect.errors import InputError

MAX_EXAMPLE = 400
"""Characters of an example in a report."""

EXIT_CODES: dict[Severity, int] = {"error": 2, "warning": 1, "note": 0}
"""What a tool ends with, by the worst finding."""


@dataclass(frozen=True)
class Finding:
    """One kind of problem in one split.

    Args:
        split: where.
        severity: how bad it is.
        kind: what is wrong, and in parentheses what is done about it.
        count: how often.
        examples: the first few, fit for a terminal: without control characters.
    """

    split: str
    severity: Severity
    kind: str
    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class SplitSize:
    """What a split has after the readers skipped what cannot be used."""

    images: int
    boxes: int
    classes: int


@dataclass(frozen=True)
class CheckReport:
    """What a check found.

    Args:
        name: of the data set.
        format: of its annotations.
        root: its folder.
        sizes: split name to its size; None for a split that cannot be read.
        findings: errors first.
        unchecked: what was not looked for, and why.
    """

    name: str
    format: str
    root: str
    sizes: dict[str, SplitSize | None]
    findings: tuple[Finding, ...]
    unchecked: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0 if there is nothing to mend, 1 for warnings, 2 for errors."""
        return max((EXIT_CODES[finding.severity] for finding in self.findings), default=0)

    def count(self, severity: Severity, split: str | None = None) -> int:
        """How many problems of a severity there are, in one split or in all."""
        mine = (f for f in self.findings if f.severity == severity and split in (None, f.split))
        return sum(finding.count for finding in mine)


def check_data(config: DataConfig, splits: Sequence[str], decode: bool, workers: int) -> CheckReport:
    """Look for all that is wrong in some splits of a data set.

    A split that cannot be read does not keep the others from being checked, and the images in its folder are looked at.

    Args:
        config: the data set, with ``root`` as an absolute path.
        splits: keys of ``config.splits``.
        decode: decode every image and compare their content; otherwise only their first and last bytes are seen.
        workers: processes that decode; 0 is none but this one.

    Raises:
        InputError: the data set is one for classification, or has no such split.
    """
    require_detection(config)
    for split in splits:
        check_split(config, split)
    tables, problems = _read(config, splits)
    digests: dict[str, list[bytes]] = {}
    for split, table in tables.items():
        check_content(table, config, split, problems[split])
        if decode:
            images = [table.stored(row) for row in range(len(table))]
            settings = _read_settings(config, split, table, problems[split])
            digests[split] = check_pixels(images, problems[split], f"{config.name} {split}", workers, settings)
    if decode:
        _check_unread(config, tables, problems, workers)
    check_copies(tables, digests, problems)
    check_classes(tables, problems)
    is_whole = tables.keys() == config.splits.keys()
    if is_whole:
        check_unlisted(config, tables, problems)
    return CheckReport(
        name=config.name,
        format=config.format or "",
        root=config.root,
        sizes={split: _size(tables[split]) if split in tables else None for split in splits},
        findings=_findings(problems),
        unchecked=_unchecked(decode, is_whole),
    )


def require_detection(config: DataConfig) -> None:
    """Refuse a data set without boxes.

    Raises:
        InputError: it is one for classification.
    """
    if config.format not in (*READERS, None):
        raise InputError(
            f"{config.name}: format {config.format} is for classification, and has no boxes to look at; formats for "
            f"detection: {', '.join(READERS)}. Of classification data tools/train.py says what is wrong when it starts"
        )


def _read(config: DataConfig, splits: Sequence[str]) -> tuple[dict[str, AnnotationTable], dict[str, Problems]]:
    """The splits that can be read, and the problems of all."""
    tables, problems = {}, {}
    for split in splits:
        try:
            tables[split] = read_split(config, split)
            problems[split] = tables[split].problems
        except InputError as error:
            problems[split] = Problems()
            problems[split].add(REFUSED, str(error))
    return tables, problems


def _read_settings(config: DataConfig, split: str, table: AnnotationTable, problems: Problems) -> ReadSettings:
    """How the images of a split are read; what is said of their range goes to the problems."""
    try:
        choice = choose_range(config, split, table, read_split)
    except InputError as error:
        problems.add(REFUSED, str(error))
        return table.read_settings
    if choice.num_deep:
        as_it_is = choice.value_range is None
        kind = DEEP_AS_IT_IS if as_it_is else DEEP if choice.is_stated else DEEP_MEASURED
        problems.merge([(kind, choice.num_deep, (choice.text or "value // 256",))])
    return replace(table.read_settings, value_range=choice.value_range)


def _check_unread(
    config: DataConfig, tables: dict[str, AnnotationTable], problems: dict[str, Problems], workers: int
) -> None:
    """Decode what lies in the folders of the splits that cannot be read, and is of no other split."""
    seen = {table.path(row) for table in tables.values() for row in range(len(table))}
    for split in problems.keys() - tables.keys():
        paths = [path for path in images_in(image_folder(config, split)) if path not in seen]
        check_pixels([StoredImage(path) for path in paths], problems[split], f"{config.name} {split}", workers)
        seen.update(paths)


def _size(table: AnnotationTable) -> SplitSize:
    return SplitSize(len(table), len(table.labels), len(table.names))


def _findings(problems: dict[str, Problems]) -> tuple[Finding, ...]:
    found = [
        Finding(split, severity_of(kind), kind, count, tuple(shorten(example, MAX_EXAMPLE) for example in examples))
        for split, of_split in problems.items()
        for kind, count, examples in of_split.found()
    ]
    return tuple(sorted(found, key=lambda finding: SEVERITIES.index(finding.severity)))


def _unchecked(decode: bool, is_whole: bool) -> tuple[str, ...]:
    unchecked = []
    if not decode:
        unchecked.append("damage inside images, and copies under another name: --quick does not decode")
    if not is_whole:
        unchecked.append("images in the folders that no annotation names: that needs every split of the data set")
    return tuple(unchecked)


# ------------------------------------------------------------------------------------------------ report


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
