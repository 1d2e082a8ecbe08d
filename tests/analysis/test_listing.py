from __future__ import annotations

from pathlib import Path

import pytest

from detect.analysis.listing import MAX_LENGTH, describe, listing
from detect.models.catalog import FOLDERS, shipped_models, shipped_parts

FILE = """# A family of models: 3 of them. More words.

name: first
variants:
  other: {neck: prn, defaults: {activation: silu, se: true}}
  scaled: {backbone: {part: peleenet, scale: {width: 0.5}}, scale: {depth: 0.33}, norm: {momentum: 0.01}}
  named: {scale: s}
  rows: {override: {c4: {repeats: 3}, c5: {repeats: 3}, p4: {module: SPPF, from: [c4, c5], args: {kernel_size: 5}}}}
  both: {defaults: {fusion: csp}, override: {c4: {repeats: 3}}}
  long: {defaults: {fusion: csp}, override: {c2: {args: {words: WORDS}}, c3: {repeats: 3}}}
""".replace("WORDS", str(list(range(40))))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("first", "A family of models"),
        ("other", "first with neck prn, activation silu, se true"),
        ("scaled", "first with backbone peleenet (width 0.5), depth 0.33, norm momentum 0.01"),
        ("named", "first with scale s"),
        ("rows", "first with c4, c5: repeats 3; p4: SPPF, kernel_size 5, from [c4, c5]"),
        ("both", "first with fusion csp; c4: repeats 3"),
        ("long", "first with fusion csp; other c2, c3"),
    ],
)
def test_what_a_line_says(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / "family.yaml"
    path.write_text(FILE, encoding="utf-8")
    assert describe(path, name) == text


def test_every_shipped_name_has_a_line_of_its_own() -> None:
    lines = [line.split(maxsplit=1) for line in listing().splitlines() if line.startswith("  ")]
    assert [name for name, _ in lines] == [
        *shipped_models(),
        *(name for section in FOLDERS for name in shipped_parts(section)),
    ]
    variants = [text for _, text in lines if " with " in text]
    assert len(variants) > 50
    assert len(set(variants)) == len(variants)
    assert max(len(text) for text in variants) < MAX_LENGTH + 30
