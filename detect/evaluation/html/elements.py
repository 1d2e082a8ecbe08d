"""Elements of a static HTML page: nothing in it can run, and nothing is loaded.

All functions return HTML; texts that they are given may come from anyone and are escaped, ``Html`` is taken as it is.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence

from detect.drawing.text import shorten
from detect.errors import visible

MAX_NAME = 80
"""Characters of a class or file name; a longer one loses its middle."""

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""Content security policy: no script, no request."""

STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1000px; margin: 2em auto; padding: 0 1em; }
h1, h2 { line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin-top: 2em; border-bottom: 1px solid #8886; }
nav a { margin-right: 1em; white-space: nowrap; }
div.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1em 0; }
th, td { padding: .15em .7em; text-align: right; border-bottom: 1px solid #8884; font-variant-numeric: tabular-nums; }
th { white-space: nowrap; }
th:first-child, td:first-child, td.text { text-align: left; }
td { white-space: nowrap; }
td:first-child { white-space: normal; overflow-wrap: anywhere; min-width: 6em; }
meter { width: 6em; vertical-align: middle; }
img { max-width: 100%; height: auto; }
figure { margin: 1em 0; }
figure.chart img { background: white; }
div.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(170px, 45%), 1fr)); gap: 1em; }
div.grid figure, div.grid p { margin: 0; }
div.grid img { width: 100%; }
@media (min-width: 700px) { td.text { white-space: normal; } }
figcaption, p.note { font-size: 90%; opacity: .85; overflow-wrap: anywhere; }
"""


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def escaped(text: str) -> Html:
    """Escape a text, its control characters as elsewhere (``visible``)."""
    return text if isinstance(text, Html) else Html(html.escape(visible(text)))


def name(text: str) -> Html:
    """Show a name from a stranger: shortened, escaped, its direction of writing kept from the text around it."""
    return Html(f"<bdi>{escaped(shorten(text, MAX_NAME))}</bdi>")


def joined(parts: Iterable[str]) -> Html:
    return Html("\n".join(map(escaped, parts)))


def note(text: str) -> Html:
    return Html(f'<p class="note">{escaped(text)}</p>')


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Html:
    """Rows of texts; columns but the first are aligned to the right, those with an empty head to the left."""
    kinds = [' class="text"' if not title else "" for title in head]
    titles = "".join(f"<th>{escaped(title)}</th>" for title in head)
    body = "\n".join(
        f"<tr>{''.join(f'<td{kind}>{escaped(cell)}</td>' for kind, cell in zip(kinds, row, strict=True))}</tr>"
        for row in rows
    )
    return Html(f'<div class="wide"><table>\n<thead><tr>{titles}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>')


def bar(value: float) -> Html:
    """A bar for a value in [0, 1]; nothing for -1."""
    return Html(f'<meter value="{value:.3f}"></meter>' if value >= 0 else "")


def picture(data: bytes, kind: str, caption: str, style: str = "") -> Html:
    """An image of ``kind`` (``jpeg`` or ``png``) inside the page, with a caption, in a figure of class ``style``."""
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
    figure = f'<img alt="" src="{source}"><figcaption>{escaped(caption)}</figcaption>'
    return Html(f'<figure class="{style}">{figure}</figure>')


def grid(figures: Iterable[Html]) -> Html:
    return Html(f'<div class="grid">{joined(figures)}</div>')


def document(title: str, introduction: Html, sections: Sequence[tuple[str, Html]]) -> str:
    """A page with a link to each of its sections, which are pairs of heading and content."""
    links = joined(Html(f'<a href="#s{i}">{escaped(heading)}</a>') for i, (heading, _) in enumerate(sections))
    body = joined(Html(f'<h2 id="s{i}">{escaped(heading)}</h2>\n{part}') for i, (heading, part) in enumerate(sections))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="referrer" content="no-referrer">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{escaped(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{escaped(title)}</h1>
{introduction}
<nav>{links}</nav>
{body}
</body>
</html>
"""
