"""The page of the papers names what exists, and leaves nothing of the papers out."""

from __future__ import annotations

import re

import pytest

from detect.config.ablation import load_ablation_config
from detect.config.yaml_files import CONFIGS
from detect.papers.tables.tables import shipped_tables
from tests.documents.pages import ROOT

PAGE = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
PAPERS = {
    "SPD-Conv": (6, 7),
    "CSPNet": (5, 8),
    "BDSC": (5, 3),
    "SDPoint": (2, 5),
    "TRD": (8, 8),
}
"""Number of the tables and of the figures of each paper."""
SECTIONS = {
    "SPD-Conv": "1 2.1 2.2 3.1 3.2 4.1 4.2 5.1 5.2 6",
    "CSPNet": "1 2 3.1 3.2 4.1 4.2 4.3 4.4 4.5 5",
    "SDPoint": "1 2 3 4.1 4.2 4.3 4.4 4.5 5.1 6.1.1 6.1.2 6.2.1 6.2.2 6.2.3 7",
    "TRD": "1 2 3.1 3.2 4.1 4.2 4.3 4.4 4.5 4.6 4.7 5",
}
"""Sections without subsections of each paper; those of BDSC have no numbers."""
PLUGINS = [path for path in (ROOT / "detect" / "papers").iterdir() if path.is_dir() and path.name != "__pycache__"]


def sections() -> dict[str, str]:
    """The text below each heading of the second level."""
    parts = re.split(r"^## (.+)$", PAGE, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def rows(paper: str) -> list[list[str]]:
    """The cells of each row of a paper's table."""
    lines = [line for line in sections()[paper].splitlines() if line.startswith("| ")][1:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def numbers(word: str, text: str) -> set[int]:
    """Numbers behind ``Table`` or ``Figure``, in forms such as ``Tables 3 and 8`` and ``Figures 3, 7 and 8``."""
    found = re.findall(rf"{word}s? (\d+(?:(?:, | and )\d+)*)", text)
    return {int(number) for group in found for number in re.findall(r"\d+", group)}


@pytest.mark.parametrize("paper", PAPERS)
def test_every_table_and_figure_has_a_row(paper: str) -> None:
    places = " ; ".join(cells[0] for cells in rows(paper))
    num_tables, num_figures = PAPERS[paper]
    assert numbers("Table", places) == set(range(1, num_tables + 1))
    assert numbers("Figure", places) == set(range(1, num_figures + 1))


@pytest.mark.parametrize("paper", SECTIONS)
def test_every_section_has_a_row(paper: str) -> None:
    places = " ; ".join(cells[0] for cells in rows(paper))
    groups = re.findall(r"Sections? (\d[\d.]*(?:(?:, | and )\d[\d.]*)*)", places)
    named = {number for group in groups for number in re.findall(r"\d(?:\.\d)*", group)}
    assert set(SECTIONS[paper].split()) - named == set()


def test_appendices_have_rows() -> None:
    places = " ; ".join(cells[0] for cells in rows("TRD"))
    assert set(re.findall(r"[Aa]ppendix ([A-Z])", places)) == set("ABCD")


@pytest.mark.parametrize("paper", PAPERS)
def test_every_row_has_its_cells(paper: str) -> None:
    for cells in rows(paper):
        assert len(cells) == 5, cells
        assert cells[1], cells


def test_named_files_exist() -> None:
    named = re.findall(r"`((?:detect|configs|tests|benchmarks|docs)/[\w./-]+)`", PAGE)
    assert len(named) > 80
    assert [path for path in named if not (ROOT / path).is_file()] == []


def test_named_tables_are_shipped_and_all_are_named() -> None:
    assert set(re.findall(r"`detect reproduce ([\w-]+)", PAGE)) - {"NAME"} == set(shipped_tables())


def test_named_comparisons_are_shipped() -> None:
    for name in re.findall(r"`detect ablate ([\w-]+)", PAGE):
        assert load_ablation_config(name).name == name


def test_all_recipes_and_runs_of_the_papers_are_named() -> None:
    prefixes = ("spd-", "csp-", "bdsc-", "sdpoint-", "trd-", "coco-csp")
    for folder in ("train", "runs"):
        own = [path.name for path in (CONFIGS / folder).glob("*.yaml") if path.name.startswith(prefixes)]
        assert [name for name in own if f"configs/{folder}/{name}" not in PAGE] == []


def test_all_plug_ins_are_named() -> None:
    assert [path.name for path in PLUGINS if f"detect/papers/{path.name}/" not in PAGE] == []


def test_the_index_leads_to_the_page() -> None:
    assert re.search(r"^papers$", (ROOT / "docs" / "index.md").read_text(encoding="utf-8"), re.MULTILINE)
