"""
The figures that C{dcm-ws top} shows.
"""

from __future__ import annotations

from twisted.internet.task import Clock

from dcm_ws.cli import top_screen
from dcm_ws.cli.top_report import number_at
from tests.fakes import make_core, make_report


def test_figures_are_in_the_report(clock: Clock) -> None:
    """
    Every figure that is shown, and every part that names problems, is in C{/stats}.
    """
    stats = dict(make_report(make_core(clock)).stats(True))
    missing = [place for _, place in top_screen._COUNTS if number_at(stats, place) is None]
    missing += [part for part, _ in top_screen._PROBLEMS if part not in stats]
    assert missing == []
