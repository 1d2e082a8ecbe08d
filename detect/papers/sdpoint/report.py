"""The comparison of a network's instances (SDPoint) as text for people and as JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detect.evaluation.coco import ABSENT
from detect.evaluation.report import number
from detect.papers.sdpoint.comparison import Baseline, Comparison, SizeRecord
from detect.papers.sdpoint.instances import InstanceRecord


def comparison_table(comparison: Comparison) -> str:
    """All instances, cheapest first, with the baselines at equal multiply-adds; then the baselines.

    Returns:
        Lines without a newline at the end.
    """
    own, *others = comparison.baselines
    labels = [("own", f"{comparison.metric} of this plain network at the image size that has as many multiply-adds")]
    labels += [("other", f"the same of {baseline.source}") for baseline in others]
    lines = _head(comparison)
    at_equal_cost = [f"{label:>8}" for label, _ in labels]
    lines += ["", f"  {'instance':10}{_column_names(comparison)}{''.join(at_equal_cost)}"]
    front = comparison.front
    for record in sorted(comparison.records, key=lambda record: record.macs):
        mark = "*" if record in front else " "
        line = f"{mark} {record.instance.name:10}{_numbers(comparison, record)}"
        for baseline in comparison.baselines if record in front else ():
            line += _cell(baseline.at(record.macs, comparison.metric))
        lines.append(line)
    lines += ["", f"*: on the Pareto front; no other instance of this cost or less reaches this {comparison.metric}"]
    lines += [f"{label}: {meaning}" for label, meaning in labels]
    lines += _baseline_lines(comparison, own, "this plain network")
    for baseline in others:
        lines += _baseline_lines(comparison, baseline, baseline.source)
    if any(record.metrics[name] == ABSENT for record in comparison.records for name in comparison.shown):
        lines += ["", "-1: there is no such object in the ground truth"]
    return "\n".join(lines)


def comparison_record(comparison: Comparison) -> dict[str, Any]:
    """What ``--metrics-json`` holds.

    Returns:
        ``metric``, ``own_norms``, ``instances`` (name, point, ratio, share of the full cost, macs, ms, pareto,
        metrics, and ``baselines``: for each its metric at equal multiply-adds, or None), ``baselines`` (source and
        sizes), and the entries of ``Comparison.measured``. No NaN.
    """
    metric, front = comparison.metric, comparison.front
    return {
        "metric": metric,
        "own_norms": comparison.has_own_norms,
        "instances": [
            {
                "name": record.instance.name,
                "point": record.instance.point,
                "ratio": record.instance.ratio,
                **_plain(comparison, record),
                "pareto": record in front,
                "baselines": [baseline.at(record.macs, metric) for baseline in comparison.baselines],
            }
            for record in comparison.records
        ],
        "baselines": [
            {
                "source": baseline.source,
                "sizes": [{"image_size": size.image_size, **_plain(comparison, size)} for size in baseline.sizes],
            }
            for baseline in comparison.baselines
        ],
        **comparison.measured,
    }


def _head(comparison: Comparison) -> list[str]:
    measured = comparison.measured
    norms = "each with norms of its own" if comparison.has_own_norms else "all with the norms of the training (uniform)"
    return [
        f"{len(comparison.records)} instances, {norms}; {measured['data']} {measured['split']} at "
        f"{measured['image_size']} px in {measured['precision']} on {measured['device']}",
        "share: of the plain network's multiply-adds; GMACs: billions of them for one square image; "
        "ms: of the network alone for it, median, all in turn",
    ]


def _column_names(comparison: Comparison) -> str:
    return f"{'share':>6}{'GMACs':>10}{'ms':>9}" + "".join(f"{name:>8}" for name in comparison.shown)


def _numbers(comparison: Comparison, record: InstanceRecord | SizeRecord) -> str:
    metrics = "".join(_cell(record.metrics[name]) for name in comparison.shown)
    return f"{record.macs / comparison.full_macs:6.3f}{record.macs / 1e9:>#10.4g}{record.ms:9.2f}{metrics}"


def _cell(value: float | None) -> str:
    return f"{'-':>8}" if value is None else f"  {number(value)}"


def _baseline_lines(comparison: Comparison, baseline: Baseline, name: str) -> Sequence[str]:
    rows = [f"  {f'{size.image_size} px':10}{_numbers(comparison, size)}" for size in baseline.sizes]
    return ["", f"Baseline: {name} at lower image sizes", f"  {'size':10}{_column_names(comparison)}", *rows]


def _plain(comparison: Comparison, record: InstanceRecord | SizeRecord) -> dict[str, Any]:
    return {
        "share": record.macs / comparison.full_macs,
        "macs": record.macs,
        "ms": round(record.ms, 3),
        "metrics": dict(record.metrics),
    }
