"""Check a data set for detection before training: find everything that is wrong, and report it as text or JSON."""

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
    check_copies_by_name,
    check_unlisted,
    image_folder,
    images_in,
)
from detect.curation.check.kinds import (
    DEEP,
    DEEP_AS_IT_IS,
    DEEP_MEASURED,
    REFUSED,
    SEVERITIES,
    Severity,
    mend_of,
    severity_of,
)
from detect.curation.check.pixels import check_pixels
from detect.data.annotations import AnnotationTable, Problems
from detect.data.checks import check_split
from detect.data.datasets import READERS, read_split
from detect.data.formats.shard_images import StoredImage
from detect.data.pixel_values import ReadSettings
from detect.data.value_range import choose_range
from detect.drawing.text import shorten
from detect.errors import InputError

MAX_EXAMPLE = 400  # characters in a report

EXIT_CODES: dict[Severity, int] = {"error": 2, "warning": 1, "note": 0}
"""Exit code of ``detect data check``, by the worst finding."""

_VERDICTS = (
    "clean: nothing to mend",
    "warnings: {warnings}; training works, but look at them",
    "errors: {errors}, {warnings}; data is lost or wrong",
)
_TITLES = ("images", "boxes", "classes", "errors", "warnings", "notes")
_MAX_NAME = 20


@dataclass(frozen=True)
class Finding:
    """One kind of problem in one split.

    Args:
        split: its name.
        severity: of the problem.
        kind: the problem and, in parentheses, its consequence.
        count: number of problems.
        examples: the first few, without control characters.
        mend: of the problem; empty for a note, or where none is known.
    """

    split: str
    severity: Severity
    kind: str
    count: int
    examples: tuple[str, ...]
    mend: str = ""


@dataclass(frozen=True)
class SplitSize:
    """Size of a split without the data that the readers skipped."""

    images: int
    boxes: int
    classes: int


@dataclass(frozen=True)
class CheckReport:
    """The result of a check.

    Args:
        name: of the data set.
        format: of its annotations.
        root: its folder.
        sizes: by split name; None for an unreadable split.
        findings: errors first.
        unchecked: checks that were not done, with the reason.
    """

    name: str
    format: str
    root: str
    sizes: dict[str, SplitSize | None]
    findings: tuple[Finding, ...]
    unchecked: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0 without problems, 1 for warnings, 2 for errors."""
        return max((EXIT_CODES[finding.severity] for finding in self.findings), default=0)

    def count(self, severity: Severity, split: str | None = None) -> int:
        """Count the problems of a severity, in one split or in all."""
        mine = (f for f in self.findings if f.severity == severity and split in (None, f.split))
        return sum(finding.count for finding in mine)


def check_data(config: DataConfig, splits: Sequence[str], decode: bool, workers: int) -> CheckReport:
    """Check splits of a data set.

    An unreadable split does not stop the check of the others, and the images in its folder are still checked.

    Args:
        config: the data set, with ``root`` as an absolute path.
        splits: keys of ``config.splits``.
        decode: decode every image and compare their content; otherwise only headers and trailers are read.
        workers: processes that decode; 0: this one.

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
    check_copies_by_name(tables, problems)
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
    """Refuse a data set for classification, which has no boxes."""
    if config.format not in (*READERS, None):
        raise InputError(
            f"{config.name}: format {config.format} is for classification, and has no boxes to look at; formats for "
            f"detection: {', '.join(READERS)}. Problems of classification data are reported when training starts"
        )


def _read(config: DataConfig, splits: Sequence[str]) -> tuple[dict[str, AnnotationTable], dict[str, Problems]]:
    """Return the readable splits, and the problems of all."""
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
    """Return the settings of reading a split's images; ``problems`` gets the source of their range."""
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
    """Decode the images in the folders of unreadable splits that belong to no other split."""
    seen = {table.path(row) for table in tables.values() for row in range(len(table))}
    for split in problems.keys() - tables.keys():
        paths = [path for path in images_in(image_folder(config, split)) if path not in seen]
        check_pixels([StoredImage(path) for path in paths], problems[split], f"{config.name} {split}", workers)
        seen.update(paths)


def _size(table: AnnotationTable) -> SplitSize:
    return SplitSize(len(table), len(table.labels), len(table.names))


def _findings(problems: dict[str, Problems]) -> tuple[Finding, ...]:
    found = [
        Finding(split, severity_of(kind), kind, count, _shortened(examples), mend_of(kind))
        for split, of_split in problems.items()
        for kind, count, examples in of_split.found()
    ]
    return tuple(sorted(found, key=lambda finding: SEVERITIES.index(finding.severity)))


def _shortened(examples: Sequence[str]) -> tuple[str, ...]:
    return tuple(shorten(example, MAX_EXAMPLE) for example in examples)


def _unchecked(decode: bool, is_whole: bool) -> tuple[str, ...]:
    unchecked = []
    if not decode:
        unchecked.append("damage inside images, and copies under another name: --quick does not decode")
    if not is_whole:
        unchecked.append("images in the folders that no annotation names: that needs every split of the data set")
    return tuple(unchecked)


# ------------------------------------------------------------------------------------------------ report


def check_text(report: CheckReport) -> str:
    """Return the report as text: a table by split, one line for each kind of problem, and the verdict."""
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
    mends = {found.kind: found.mend for found in report.findings if found.mend}
    lines += ["", "what mends them:"] * bool(mends)
    lines += [f"  {kind.partition(' (')[0]}: {mend}" for kind, mend in mends.items()]
    lines += ["", *(f"not looked for: {what}" for what in report.unchecked), _verdict(report)]
    return "\n".join(lines)


def check_json(report: CheckReport) -> dict[str, Any]:
    """Return the report as JSON values; ``exit_code`` is that of the command."""
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
