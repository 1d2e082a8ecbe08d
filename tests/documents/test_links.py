"""Links of the documents: what they name is there. What is on other machines is not asked for."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.documents.pages import DOCUMENTS, ROOT, identity

sys.path.append(str(ROOT / "docs"))

from generate import MIRRORS, write_index_for_language_models

GENERATED = {"commands.md", "config-keys.md", "models.md", "blocks.md", *MIRRORS.values()}
"""Pages of ``docs/generated``, which a build of the site makes."""
MARKDOWN = [path for path in DOCUMENTS if path.suffix == ".md"]

_LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)|\{(?:download|doc)\}`[^`<]*<(?P<role>[^>]+)>`")
_INCLUDE = re.compile(r"^```\{(?:literalinclude|include|image|figure)\} (?P<target>\S+)", re.MULTILINE)


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub and MyST make them."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower() for title in titles)
    return {re.sub(r"[^\w\- ]", "", title).strip().replace(" ", "-") for title in plain}


def broken(path: Path, text: str) -> list[str]:
    """The links of a page that lead nowhere."""
    found = []
    targets = [match["target"] or match["role"] for match in _LINK.finditer(re.sub(r"`[^`<]*\]\([^`]*`", "", text))]
    for target in [*targets, *(match["target"] for match in _INCLUDE.finditer(text))]:
        name, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", name):
            continue
        file = (path.parent / name).resolve() if name else path
        if file.parent == ROOT / "docs" / "generated":
            is_there = file.name in GENERATED
        else:
            is_there = file.exists()
            is_page = is_there and file.suffix == ".md" and anchor
            is_there = is_there and (not is_page or anchor in anchors(file.read_text(encoding="utf-8")))
        if not is_there:
            found.append(target)
    return found


@pytest.mark.parametrize("path", MARKDOWN, ids=identity)
def test_links_lead_somewhere(path: Path) -> None:
    assert broken(path, path.read_text(encoding="utf-8")) == []


def test_broken_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# One, `two`\n", encoding="utf-8")
    text = (
        "[a](a.md) [b](a.md#one-two) [c](b.md) [d](a.md#three) [e](https://a.b/c) {download}`x <c.txt>`\n"
        "```{literalinclude} d.py\n```\n"
    )
    assert broken(tmp_path / "page.md", text) == ["b.md", "a.md#three", "c.txt", "d.py"]


def test_the_index_for_language_models(tmp_path: Path) -> None:
    titles = {"index": "detect", "how-to/export": "Export to ONNX", "generated/models": "Models"}
    write_index_for_language_models(tmp_path, titles, ["how-to/export", "generated/models"])
    lines = (tmp_path / "llms.txt").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# detect"
    assert [line for line in lines if line.startswith(("##", "-"))] == [
        "## how-to",
        "- [Export to ONNX](_sources/how-to/export.md.txt)",
        "## reference",
        "- [Models](_sources/generated/models.md.txt)",
    ]
