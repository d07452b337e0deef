"""
The page about sizing calculates correctly, with the defaults of the options.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dcm_ws.app.options import BY_NAME
from dcm_ws.app.process import _OTHER_FILES

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "sizing.md").read_text()


def number(pattern: str) -> float:
    """
    The one number that the page has where the pattern has its group.
    """
    (found,) = set(re.findall(pattern, PAGE))
    return float(found.replace(",", ""))


def test_options_and_their_defaults() -> None:
    """
    The options exist, and the defaults are those that the page says.
    """
    named = set(re.findall(r"--([a-z][a-z-]+)", PAGE))
    assert named - BY_NAME.keys() == set()
    most = BY_NAME["max-connections"].default
    assert number(r"([\d,]+) by default \(`--max-connections`\)") == most
    files = most + BY_NAME["max-http-connections"].default + _OTHER_FILES
    assert number(r"together: ([\d,]+) by default") == files


def test_figures_are_those_of_other_pages() -> None:
    """
    What is quoted from the performance page and the page of topologies is there.
    """
    performance, topologies = ((DOCS / page).read_text() for page in ("performance.md", "topologies.md"))
    for figure in ("3,726", "26,903", "14,549", "458", "1,009", "530", "8.14", "5.6", "0.48", "15,000"):
        assert figure in PAGE
        assert re.search(rf"\b{re.escape(figure)}\b", performance), figure
    for sentence in ("the first seven, 712 MiB", "| in all, at most | 8 | 11 | 10 |"):
        assert sentence in topologies


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (r"= ([\d,]+) deliveries", 0.5 / 5.6e-6),
        (r"which makes ([\d,]+)\.", 0.5 / 8.14e-6),
        (r"4 GiB are ([\d.]+) million", 2**32 / 596 / 1e6),
        (r"or ([\d]+) a second for 24 hours", 2**32 / 596 / 86_400),
        (r"8\.14 µs each \| ([\d.]+) %", 5_000 * 8.14e-4),
        (r"525 µs each \| ([\d.]+) %", 50 * 525e-4),
        (r"1,009 µs each \| ([\d.]+) %", 50 * 1_009e-4),
        (r"end of the log \| ([\d]+) MiB", 66 + 2_000 * 8.6 / 1_024 + 64),
        (r"596 bytes a second \| ([\d.]+) GB", 50 * 596 * 86_400 / 1e9),
        (r"467 bytes a second \| ([\d]+) MB", 50 * 467 * 1_800 / 1e6),
        (r"1,287 bytes a second \| ([\d.]+) GB", 50 * 1_287 * 86_400 / 1e9),
    ],
)
def test_calculations(said: str, expected: float) -> None:
    """
    Each result is right to within 1 %, or the last digit.
    """
    assert number(said) == pytest.approx(expected, rel=0.01, abs=0.05)
