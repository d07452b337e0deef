"""
Log lines once a minute.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher

from dcm_ws.app.summary import Summary
from dcm_ws.core.assembly import Core
from dcm_ws.http.origins import Target
from dcm_ws.protocol.errors import ProtocolError
from tests.fakes import make_core


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    """
    The warnings that are logged.
    """
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        if event.get("log_level") is LogLevel.warn:
            lines.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


def notify_badly(core: Core, summary: Summary) -> None:
    with pytest.raises(ProtocolError) as raised:
        core.router.notified("nonsense")
    summary.bad_notification(raised.value.reason)


def test_bad_notifications(clock: Clock, warnings: list[str]) -> None:
    """
    Bad notifications are one line in the next minute, with the reason of the last one; without any there is no line.
    """
    core = make_core(clock)
    summary = Summary(core.counts, clock.seconds)
    summary.write()
    assert warnings == []
    notify_badly(core, summary)
    notify_badly(core, summary)
    summary.write()
    assert len(warnings) == 1
    assert warnings[0].startswith("2 bad notifications in the last minute; the last one: '")
    summary.write()
    assert len(warnings) == 1


def test_refused_pages(clock: Clock, warnings: list[str]) -> None:
    """
    The first refused page of a minute is logged, with the number of those before it that were not.
    """
    summary = Summary(make_core(clock).counts, clock.seconds)
    for _ in range(3):
        summary.page_refused("https://evil.example", Target("a.com"))
    assert len(warnings) == 1
    assert "'https://evil.example'" in warnings[0]
    assert "'a.com'" in warnings[0]
    assert warnings[0].endswith("(0 more in the last minute)")
    clock.advance(60)
    summary.page_refused("https://evil.example", Target("a.com"))
    assert warnings[1].endswith("(2 more in the last minute)")
