"""Settings of the documentation site; ``make docs`` builds it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from generate import write_index_for_language_models, write_pages

project = "detect"
author = "the authors of detect"
project_copyright = "the authors of detect. Apache-2.0"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
source_suffix = {".md": "markdown"}
nitpick_ignore_regex = [("py:.*", r".*")]  # names of other libraries, and of ours that have no page

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence", "deflist", "attrs_inline"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
add_module_names = False
python_maximum_signature_line_length = 90
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = "detect"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = True  # each page as Markdown, for language models: llms.txt
html_show_sphinx = False
html_theme_options = {"sidebar_hide_name": False, "top_of_page_buttons": ["view"]}
copybutton_exclude = ".linenos, .gp, .go"


def setup(app: Any) -> None:
    """Write the generated pages before the build, and ``llms.txt`` after it."""
    app.connect("builder-inited", lambda app: write_pages(Path(app.srcdir) / "generated"))
    app.connect("build-finished", _finish)


def _finish(app: Any, error: Exception | None) -> None:
    if error is None and app.builder.name == "html":
        titles = {name: node.astext() for name, node in app.env.titles.items()}
        write_index_for_language_models(Path(app.outdir), titles, app.env.toctree_includes[app.config.root_doc])
