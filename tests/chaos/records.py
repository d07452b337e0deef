"""
What is written down while the service is disturbed.  All times in seconds since the epoch: the service's timestamps are
compared with them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple

_NOT_LOGGED = ("agent.heartbeat", "agent.connected", "agent.disconnected")


@dataclass(slots=True)
class Publication:
    """
    One event as its publisher saw it.

    @ivar number: counts the publisher's events, from 1.
    @ivar began: when it was sent.
    @ivar ended: when it was known to be published (a client's ack, a transaction's commit); None where it never was.
    @ivar id: what the service called it, as far as the publisher was told.
    @ivar pos: its position in the log, as far as the publisher was told.
    """

    publisher: str
    number: int
    channel: str
    event: str
    from_database: bool
    began: float
    ended: float | None = None
    id: str | None = None
    pos: int | None = None


class Receipt(NamedTuple):
    """
    One event frame as an agent got it.

    @ivar intact: it says what its publisher said.
    @ivar pos: its position in the log; None if it has none.
    """

    agent: str
    channel: str
    event: str
    id: str
    publisher: str
    number: int
    intact: bool
    pos: int | None = None


@dataclass(slots=True)
class Reading:
    """
    What a reader that resumes has read.

    @ivar channels: those that it reads, from before the first event to the end.
    @ivar counts: how often each event came, by publisher and number.
    @ivar gaps: the positions of which it was told that they may be missing.
    """

    channels: Collection[str]
    counts: Counter[tuple[str, int]] = field(default_factory=Counter)
    gaps: list[range] = field(default_factory=list)


@dataclass(slots=True)
class Stay:
    """
    An agent's time on one connection, from the ack of its authentication.

    @ivar ended: None while it lasts.
    """

    agent: str
    began: float
    ended: float | None = None


@dataclass(slots=True)
class Records:
    """
    All that was written down, each list in the order in which it happened.

    @ivar wanted: the channels that each agent listens to, from before the first event to the end.
    @ivar cuts: when a connection that the service LISTENs on was about to be cut.
    @ivar database: what the service said of it: when, and whether it is up.
    @ivar disturbances: how often each was done.
    @ivar unanswered: the tracked events that agents left without an ack on purpose and have not been sent again since:
        the channel of the first frame, by agent and event id.
    @ivar several: the agents that have several connections at once, and so get events in no order.
    @ivar readings: what each reader has read.
    @ivar early: frames that came to a connection before it had authenticated: those are an anonymous client's.
    @ivar wrongs: what went wrong in any other way, in words.
    """

    wanted: dict[str, Collection[str]] = field(default_factory=dict)
    publications: list[Publication] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)
    stays: list[Stay] = field(default_factory=list)
    cuts: list[float] = field(default_factory=list)
    database: list[tuple[float, bool]] = field(default_factory=list)
    disturbances: Counter[str] = field(default_factory=Counter)
    unanswered: dict[tuple[str, str], str] = field(default_factory=dict)
    several: set[str] = field(default_factory=set)
    readings: dict[str, Reading] = field(default_factory=dict)
    early: int = 0
    wrongs: list[str] = field(default_factory=list)


def is_tracked(event: str) -> bool:
    """
    Must the service send the event again until it is acknowledged (protocol, section 4)?  Written down here a second
    time, so that the judge does not rely on the code that it judges.
    """
    return event.partition(".")[0] in ("task", "subtask", "message")


def is_logged(event: str) -> bool:
    """
    Must the event have a position (protocol, section 10)?
    """
    return event.partition(".")[0] not in ("metric", "system") and event not in _NOT_LOGGED


def padding(number: int) -> str:
    """
    What event C{number} carries besides its number: all sizes of frame header, and text that is not ASCII.
    """
    return "é" * (number % 7) + "x" * (3000 if number % 50 == 0 else number % 90)
