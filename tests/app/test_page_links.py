"""
The links between the pages of the documentation lead somewhere.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(path for folder in ("", "docs/", "docs/*/", "contrib/") for path in ROOT.glob(f"{folder}*.md"))


def text_of(page: Path) -> str:
    """
    The page without its blocks of code.
    """
    return re.sub(r"^ *```.*?^ *```$|^    [^\n]*$", "", page.read_text(), flags=re.M | re.S)


def anchors(page: Path) -> set[str]:
    """
    The names of the page's headings, as GitHub makes them.
    """
    found: set[str] = set()
    seen: Counter[str] = Counter()
    for heading in re.findall(r"^#+ (.*)$", text_of(page), re.M):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
        name = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found.add(f"{name}-{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return found


def broken(page: Path, text: str) -> list[str]:
    """
    The links in C{text} that lead to a file or a heading that does not exist.
    """
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"[a-z]+:", link)]
    wrong = []
    for link in links:
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            wrong.append(link)
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """
    Each link to a file or a heading of the repository finds it.
    """
    assert broken(page, text_of(page)) == []


def test_broken_links_are_noticed() -> None:
    """
    A link to a page or a heading that does not exist is found, and there are many links.
    """
    page = ROOT / "docs" / "protocol.md"
    assert broken(
        page, "[a](gone.md) [b](#gone) [c](log.md#gone) [d](log.md) [e](#events) [f](https://x.example/)"
    ) == [
        "gone.md",
        "#gone",
        "log.md#gone",
    ]
    assert sum(text_of(page).count("](") for page in PAGES) > 200
