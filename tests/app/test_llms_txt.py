"""
llms.txt, the list of pages for language models, has every page once.
"""

from __future__ import annotations

import re

from tests.integration.machine import ROOT

TEXT = (ROOT / "llms.txt").read_text()


def test_it_has_every_page() -> None:
    """
    Each page of the documentation, apart from the index and the decisions, has one line that describes it.
    """
    pages = {path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]}
    listed = re.findall(r"^- \[[^\]]+\]\(([^)]+)\): \S.*\.$", TEXT, re.M)
    assert sorted(listed) == sorted(pages - {"docs/index.md"})


def test_it_has_the_shape_that_readers_expect() -> None:
    """
    A title, a summary in a quotation, and sections with nothing but links.
    """
    title, _, summary, *_ = TEXT.splitlines()
    assert title == "# dcm-ws"
    assert summary.startswith("> ")
    sections = TEXT.partition("\n## ")[2].splitlines()[1:]
    assert [line for line in sections if line and not line.startswith(("- [", "## "))] == []
