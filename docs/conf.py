"""
The settings of Sphinx, which makes a site of the pages.  C{scripts/docs} runs it, with the repository as its source, so
that links between pages, and to files next to C{docs/}, are the same on the site and on a forge.
"""

from __future__ import annotations

import gc
import re
from pathlib import Path

from sphinx.application import Sphinx

from dcm_ws.version import VERSION

# nearly all that Sphinx makes is kept until it ends: to look for garbage takes a fifth of its time
gc.disable()

project = "dcm-ws"
version = release = VERSION
root_doc = "docs/index"
extensions = ["myst_parser"]
include_patterns = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs/*.md", "docs/decisions/*.md"]
# these are not even looked into
exclude_patterns = [
    ".*",
    "benchmarks",
    "build",
    "client",
    "contrib",
    "dcm_ws",
    "node_modules",
    "scripts",
    "tests",
    "twisted",
]

# the names of headings as a forge makes them
myst_heading_anchors = 6
# frames and excerpts with "…" are not complete JSON
suppress_warnings = ["misc.highlighting_failure"]
highlight_language = "none"

html_theme = "furo"
html_title = f"dcm-ws {VERSION}"
html_copy_source = False
html_show_copyright = False
templates_path = ["_templates"]
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_sidebars = {
    "**": [
        "sidebar/brand.html",
        "sidebar/search.html",
        "sidebar/scroll-start.html",
        "sidebar/navigation.html",
        "api.html",
        "sidebar/scroll-end.html",
    ]
}


def without_folders(app: Sphinx, page: str, source: list[str]) -> None:
    """
    Write links to folders as text: a site has no page for them.
    C{tests/app/test_page_links.py} checks that they exist.
    """
    here = Path(app.env.doc2path(page)).parent

    def text(link: re.Match[str]) -> str:
        return link[1] if (here / link[2]).is_dir() else link[0]

    source[0] = re.sub(r"\[([^\]]*)\]\(([\w./-]+)\)", text, source[0])


def setup(app: Sphinx) -> None:
    """
    Called by Sphinx.
    """
    app.connect("source-read", without_folders)
