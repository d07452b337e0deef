"""
The table of limits: the code, the docs, the options and the counters say the same.
"""

from __future__ import annotations

from pathlib import Path

from twisted.internet.task import Clock

from dcm_ws.app.commandline import Options
from dcm_ws.app.documentation import limits_table
from dcm_ws.core.limits import COUNTERS, TABLE
from tests.fakes import make_core, make_report

DOCS = Path(__file__).parents[2] / "docs"


def test_docs_have_the_table() -> None:
    """
    docs/limits.md has every limit of the code, in a table that is exactly that of the code.
    """
    assert limits_table() in (DOCS / "limits.md").read_text()


def test_counters_are_those_of_stats() -> None:
    """
    Every limit has its counter in /stats, in the order of the table, and every counter there has its limit; all are 0
    at the start.
    """
    limits = make_report(make_core(Clock())).stats(False)["limits"]
    assert isinstance(limits, dict)
    assert tuple(limits) == COUNTERS
    assert set(limits.values()) == {0}
    assert len(COUNTERS) == len(set(COUNTERS))


def test_options_exist() -> None:
    """
    Every option of the table is one of the service, and described in the settings.
    """
    options = Options()
    text = (DOCS / "settings.md").read_text()
    for limit in TABLE:
        name = limit.option.removeprefix("--")
        assert not name or name in options, limit
        assert not name or f"| `--{name}" in text, limit
