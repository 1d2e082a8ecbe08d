"""The numbers of the tables in docs/results are those of the files that the runs left."""

from __future__ import annotations

import csv
import json
import statistics
from collections import defaultdict
from pathlib import Path

from detect.analysis.listing import listed

ROOT = Path(__file__).parents[1]


def rows_of(name: str) -> list[dict[str, str]]:
    """The rows of a file of results."""
    with (ROOT / "docs" / "results" / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def three_seeds(rows: list[dict[str, str]], column: str) -> str:
    """Mean and standard deviation of a column over the runs of seeds 0, 1 and 2."""
    assert [row["seed"] for row in rows] == ["0", "1", "2"]
    values = [float(row[column]) for row in rows]
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"


def test_the_table_of_instances_is_what_the_runs_gave() -> None:
    """Each line of the classifier's table in sdpoint.md."""
    runs = rows_of("cifar10-subset-sdpoint.csv")
    text = (ROOT / "docs" / "results" / "sdpoint.md").read_text(encoding="utf-8")
    section = text.split("## A classifier")[1].split("## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")][1:]
    assert len(lines) == 6
    for line in lines:
        name, share, *cells = (cell.strip() for cell in line.strip("| ").split("|"))
        rows = [row for row in runs if row["instance"] == name]
        assert {row["share"] for row in rows} == {share}
        assert cells == [three_seeds(rows, c) for c in ("own_norms", "training_norms", "plain_smaller_images")]


def test_every_listed_model_has_its_time() -> None:
    """``python benchmarks/model_times.py`` measures them anew."""
    groups = listed()
    assert {row["model"] for row in rows_of("model-times.csv")} == {*groups["models"], *groups["backbones"]}


def test_the_table_of_cheaper_trainings_is_what_the_runs_gave() -> None:
    """Each line of the classifier's table in trd.md."""
    runs = rows_of("cifar10-subset-trainings.csv")
    text = (ROOT / "docs" / "results" / "trd.md").read_text(encoding="utf-8")
    lines = [line for line in text.split("## Accuracy over")[0].splitlines() if line.startswith(("| full", "| TRD"))]
    full = float(runs[0]["gmacs"])
    for line, training in zip(lines, ("plain", "short", "trd"), strict=True):
        _, epochs, share, top1 = (cell.strip() for cell in line.strip("| ").split("|"))
        rows = [row for row in runs if row["training"] == training]
        assert {row["epochs"] for row in rows} == {epochs}
        assert {f"{float(row['gmacs']) / full:.1%}" for row in rows} == {
            share.split(" %")[0] + ("%" if "." in share else ".0%")
        }
        assert top1 == three_seeds(rows, "top1")


def test_the_table_of_test_sizes_is_what_the_runs_gave() -> None:
    """Each cell of the table over the test size in trd.md."""
    runs = rows_of("trd-test-size.csv")
    text = (ROOT / "docs" / "results" / "trd.md").read_text(encoding="utf-8").split("## Accuracy over")[1]
    table = [[cell.strip() for cell in line.strip("| ").split("|")] for line in text.splitlines() if line[:1] == "|"]
    sizes = [cell.removesuffix(" px") for cell in table[0][1:]]
    for training, *cells in table[2:4]:
        rows = [row for row in runs if row["training"] == training]
        assert cells == [three_seeds([row for row in rows if row["image_size"] == size], "top1") for size in sizes]


def test_the_table_of_ways_to_many_costs_is_what_the_runs_gave() -> None:
    """Each line of the table of three ways in sdpoint.md."""
    runs = rows_of("costs-subset.csv")
    text = (ROOT / "docs" / "results" / "sdpoint.md").read_text(encoding="utf-8").split("## Three ways")[1]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    method = ""
    for first, network, share, top1 in lines[2:]:
        method = first or method
        name = {"32 px": "plain"}.get(network, network)
        if name.endswith(" px"):
            name = f"plain*{int(name[:-3]) / 32:g}"
        rows = [row for row in runs if (row["method"], row["network"]) == (method, name)]
        assert {f"{float(row['share']):.3f}" for row in rows} == {share}
        assert three_seeds(rows, "top1") == top1


def test_the_table_of_classifiers_is_what_the_runs_gave() -> None:
    """Mean and standard deviation of top-1, and mean CPU seconds, of each model's runs."""
    runs: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows_of("cifar10-subset.csv"):
        runs[row["model"]].append(row)
    page = (ROOT / "docs" / "results" / "index.md").read_text(encoding="utf-8")
    assert len(runs) == 2
    for model, rows in runs.items():
        assert [row["seed"] for row in rows] == ["0", "1", "2"]
        top1 = [float(row["top1"]) for row in rows]
        cpu_s = statistics.mean(float(row["cpu_s"]) for row in rows)
        (line,) = (line for line in page.splitlines() if line.startswith(f"| `{model}` |"))
        cells = [cell.strip() for cell in line.split("|")]
        assert cells[2] == f"{statistics.mean(top1):.3f} ± {statistics.stdev(top1):.3f}"
        assert cells[5] == f"{cpu_s:.0f}"


def test_the_table_of_frame_rates_is_what_the_benchmark_gave() -> None:
    rates = json.loads((ROOT / "docs" / "results" / "csp-table-5.json").read_text(encoding="utf-8"))
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8").split("## Frames per second of CSPNet")[1]
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if "Net" in line or "YOLO" in line
    ]
    table = {cells[0]: cells[3:] for cells in lines if len(cells) == 6}
    assert table == {label: [f"{rate:.1f}" for rate in row.values()] for label, row in rates.items()}
