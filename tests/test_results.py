"""The numbers of the README's tables are those of the files that the runs left."""

from __future__ import annotations

import csv
import statistics
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_table_of_classifiers_is_what_the_runs_gave() -> None:
    """Mean and standard deviation of top-1, and mean CPU seconds, of each model's runs."""
    runs: dict[str, list[dict[str, str]]] = defaultdict(list)
    with (ROOT / "docs" / "results" / "cifar10-subset.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            runs[row["model"]].append(row)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(runs) == 2
    for model, rows in runs.items():
        assert [row["seed"] for row in rows] == ["0", "1", "2"]
        top1 = [float(row["top1"]) for row in rows]
        cpu_s = statistics.mean(float(row["cpu_s"]) for row in rows)
        (line,) = (line for line in readme.splitlines() if line.startswith(f"| `{model}` |"))
        cells = [cell.strip() for cell in line.split("|")]
        assert cells[2] == f"{statistics.mean(top1):.3f} ± {statistics.stdev(top1):.3f}"
        assert cells[5] == f"{cpu_s:.0f}"
