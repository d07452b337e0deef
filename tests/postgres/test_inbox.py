"""
The inbox of the listener, without a database.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

from twisted.internet.task import Clock
from twisted.logger import LogEvent

from dcm_ws.postgres.inbox import INBOX_MAX, Inbox


@dataclass
class Source:
    """
    A connection that can be paused.

    @ivar waiting: how many notifications waited each time it was resumed.
    """

    inbox: Inbox
    paused: bool = False
    waiting: list[int] = field(default_factory=list)

    def resume(self) -> None:
        self.paused = False
        self.waiting.append(len(self.inbox))


@dataclass
class Hub:
    """
    Receives the payloads; C{bad} raises an exception.

    @ivar flushed: how many of them have been written to clients.
    """

    payloads: list[str] = field(default_factory=list)
    flushed: int = 0
    written: list[tuple[float, int]] = field(default_factory=list)

    def heard(self, payload: str) -> None:
        if payload == "bad":
            raise ValueError(payload)
        self.payloads.append(payload)

    def together(self, step: Callable[[], object]) -> None:
        step()
        self.flushed = len(self.payloads)


def test_order_and_time(clock: Clock) -> None:
    """
    Payloads are published in order and written at once; then the time and the number are reported.
    """
    hub = Hub()

    def written(seconds: float, count: int) -> None:
        assert hub.flushed == len(hub.payloads)
        hub.written.append((seconds, count))

    def heard(payload: str) -> None:
        clock.advance(0.25)
        hub.heard(payload)

    inbox = Inbox(clock, heard=heard, together=hub.together, written=written, now=clock.seconds)
    inbox.receive(["1"])
    inbox.receive(["2"])
    assert hub.payloads == ["1", "2"]
    assert (inbox.received, len(inbox), hub.written) == (2, 0, [(0.25, 1), (0.25, 1)])
    assert clock.getDelayedCalls() == []


def test_slices_are_reported_together(clock: Clock) -> None:
    """
    What takes several turns of the reactor is reported once, when all of it has been written.
    """
    hub = Hub()
    seconds = itertools.count()
    inbox = Inbox(
        clock,
        heard=hub.heard,
        together=hub.together,
        written=lambda _, count: hub.written.append((0, count)),
        now=lambda: float(next(seconds)),
    )
    inbox.receive([str(number) for number in range(20)])
    assert 0 < hub.flushed < 20
    assert hub.written == []
    clock.advance(0)
    assert (hub.flushed, hub.written) == (20, [(0, 20)])


def test_an_error_does_not_stop_the_rest(clock: Clock, no_logged_failures: list[LogEvent]) -> None:
    """
    A payload that cannot be published is logged, and the next ones are published.
    """
    hub = Hub()
    inbox = Inbox(clock, heard=hub.heard, together=hub.together, written=lambda *said: None, now=clock.seconds)
    inbox.receive(["1", "bad", "2"])
    assert hub.payloads == ["1", "2"]
    (event,) = no_logged_failures
    assert event["log_namespace"] == "dcm_ws.listener.NotifyListener"
    no_logged_failures.clear()


def test_too_many_pause_the_connection(clock: Clock) -> None:
    """
    Beyond the limit the connection is paused; it is resumed when most notifications have been published, in slices.
    """
    hub = Hub()
    seconds = itertools.count()
    # each look at the clock takes a second, so a slice ends at its first look
    inbox = Inbox(
        clock, heard=hub.heard, together=hub.together, written=lambda *said: None, now=lambda: float(next(seconds))
    )
    inbox.source = source = Source(inbox)  # type: ignore[assignment]
    inbox.receive([str(number) for number in range(INBOX_MAX + 1)])
    assert source.paused and inbox.pauses == 1
    assert 0 < len(hub.payloads) < 100
    clock.advance(0)
    (waiting,) = source.waiting
    assert INBOX_MAX / 10 - 100 < waiting <= INBOX_MAX / 10
    assert hub.payloads == [str(number) for number in range(INBOX_MAX + 1)]
