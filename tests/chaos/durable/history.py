"""
What is written down while the service is disturbed.  All times are seconds of the system's monotonic clock, which all
processes share.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

DONE, UNDONE, REFUSED, UNKNOWN = "done", "undone", "refused", "unknown"
"""
The outcome of a publication: its transaction was committed, or the service acknowledged it; it was rolled back; the
service answered that it cannot be logged now; its publisher lost the connection before it knew.
"""
NEVER = 1000
Key = tuple[str, int]
"""
A publisher, and the number that it gave to an event.
"""


@dataclass(slots=True)
class Call:
    """
    One attempt to publish an event, as its publisher saw it.  Two attempts with the same number have the same key.

    @ivar via: how it was published: C{sql}, C{trigger}, C{client}, or C{notify}, which promises nothing.
    @ivar stream: a connection, or a session of the database: what is published on one of them keeps its order.
    @ivar key: the key, which makes the publication idempotent.
    @ivar began: when it was called.
    @ivar opened: when its transaction began, with all that it sees; 0 if that does not matter.
    @ivar ended: when the outcome was known.
    @ivar id: what the publisher was told that the event is called.
    @ivar pos: its position, as far as the publisher was told.
    """

    publisher: str
    number: int
    via: str
    stream: str
    channel: str
    event: str
    began: float
    key: str | None = None
    ended: float = 0.0
    outcome: str = UNKNOWN
    id: str | None = None
    pos: int | None = None
    epoch: str | None = None
    opened: float = 0.0

    @property
    def name(self) -> Key:
        """
        What stands for the event in its data.
        """
        return self.publisher, self.number


class Receipt(NamedTuple):
    """
    One event frame as a client got it.

    @ivar connection: counts the client's connections.
    @ivar epoch: the epoch of the connection at that time.
    @ivar intact: its data is what its publisher sent.
    """

    at: float
    connection: int
    epoch: str
    pos: int | None
    channel: str
    event: str
    id: str
    publisher: str
    number: int
    intact: bool


class Gap(NamedTuple):
    """
    A gap that a client was told of: everything after C{since}, in C{since_epoch}, up to C{pos} in C{epoch} may be
    missing.
    """

    at: float
    connection: int
    reason: str
    since_epoch: str
    since: int
    epoch: str
    pos: int


@dataclass(slots=True)
class Follower:
    """
    What a client received that keeps its position and resumes.

    @ivar start: the epoch and the position from which it follows the log.
    @ivar steps: what it received, in order.
    """

    name: str
    channels: frozenset[str]
    start: tuple[str, int] | None = None
    steps: list[Receipt | Gap] = field(default_factory=list)


@dataclass(slots=True)
class SentAck:
    """
    An ack of an agent.

    @ivar upto: it acknowledges everything up to this position, instead of one event.
    @ivar certain: when the service was known to have read it; None if the connection ended before.
    @ivar node: which node it was sent to.
    """

    at: float
    connection: int
    id: str | None
    upto: int | None = None
    epoch: str = ""
    certain: float | None = None
    node: str = ""


@dataclass(slots=True)
class Visit:
    """
    One connection of an agent.

    @ivar number: counts the connections of all agents.
    @ivar client: what the service calls it.
    @ivar authenticated: when the service answered that; None if it did not.
    @ivar pos: up to where the agent had been sent everything then.
    @ivar ended: None if it has not.
    """

    number: int
    node: str
    began: float
    client: str = ""
    authenticated: float | None = None
    pos: int = 0
    ended: float | None = None


@dataclass(slots=True)
class AgentHistory:
    """
    What an agent received and acknowledged over all its connections.

    @ivar several: it has several connections at the same time.
    @ivar since: by channel, the epoch and the position from which it is subscribed.
    @ivar epochs: the epochs in which it authenticated, each with the position at the first time.
    @ivar left_unanswered: events that it left without an ack on purpose, with the number of times that it does;
        L{NEVER} for those that it never acknowledges before the dead letters are redriven.
    @ivar forgotten: when it came back, in which epoch, and a channel that it was not subscribed to again.
    @ivar visits: its connections.
    """

    name: str
    several: bool = False
    since: dict[str, tuple[str, int]] = field(default_factory=dict)
    epochs: dict[str, int] = field(default_factory=dict)
    receipts: list[Receipt] = field(default_factory=list)
    acks: list[SentAck] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    left_unanswered: dict[str, int] = field(default_factory=dict)
    forgotten: list[tuple[float, str, str]] = field(default_factory=list)
    visits: list[Visit] = field(default_factory=list)


class Row(NamedTuple):
    """
    A row of the log.
    """

    pos: int
    id: str
    channel: str
    event: str
    data: str
    mirrored: bool
    key: str | None


class Incident(NamedTuple):
    """
    Something that was done to the service or to its database.

    @ivar kind: C{service}: its process was ended without warning; C{stop}: it was told to stop; C{frozen}: it did not
        run; C{database}: the database, or a connection to it, was not there; C{restore}: the database was replaced by
        an older copy; C{fenced}: a node did not run, or did not reach the database, for so long that the others may
        take it for dead; C{path}: it did not reach its clients or the bus; C{other}: nothing that changes what is
        promised.
    @ivar node: to which node; None for all of them.
    """

    kind: str
    what: str
    began: float
    ended: float
    node: str | None = None


class Moment(NamedTuple):
    """
    Something happened to an agent.
    """

    at: float
    agent: str


class Restore(NamedTuple):
    """
    The database was replaced by an older copy of it.

    @ivar backed_up: when that copy was about to be made.
    """

    backed_up: float
    began: float
    ended: float


@dataclass(slots=True)
class History:
    """
    All that was written down.

    @ivar log: by epoch, the rows of the log by position.
    @ivar floors: by epoch, the oldest position that was kept at the end.
    @ivar restores: each time that the database was replaced by an older copy.
    @ivar is_cluster: the service is several processes.
    @ivar unanswered: each time that a node took an agent without an answer of the node that had it.
    @ivar came_back: each time that a node took an agent back of which it still had connections.
    @ivar left: rows of the inbox that were not numbered at the end.
    @ivar buried: agent and event id of the dead letters before all of them were redriven.
    @ivar redriven_at: when they were.
    @ivar dead: the dead letters at the end.
    @ivar key_seconds: for so long C{dcm_ws.publish} returns the id of an event that has the key; after that, what is
        published again is dropped when it is numbered.
    @ivar attempts: how often one connection is sent an event at most.
    @ivar dead_after: how often an agent is sent an event at most, over all its connections.
    @ivar wrongs: what went wrong in any other way, in words.
    """

    calls: list[Call] = field(default_factory=list)
    log: dict[str, dict[int, Row]] = field(default_factory=dict)
    floors: dict[str, int] = field(default_factory=dict)
    restores: list[Restore] = field(default_factory=list)
    is_cluster: bool = False
    unanswered: list[Moment] = field(default_factory=list)
    came_back: list[Moment] = field(default_factory=list)
    followers: list[Follower] = field(default_factory=list)
    agents: dict[str, AgentHistory] = field(default_factory=dict)
    incidents: list[Incident] = field(default_factory=list)
    left: list[Any] = field(default_factory=list)
    buried: set[tuple[str, str]] = field(default_factory=set)
    redriven_at: float = float("inf")
    dead: set[tuple[str, str]] = field(default_factory=set)
    key_seconds: float = 600.0
    attempts: int = 3
    dead_after: int = 15
    counts: Counter[str] = field(default_factory=Counter)
    wrongs: list[str] = field(default_factory=list)


def is_tracked(event: str) -> bool:
    """
    Must agents acknowledge the event (protocol, section 4)?
    """
    return event.partition(".")[0] in ("task", "subtask", "message")


def is_logged(event: str) -> bool:
    """
    Must the event have a position (protocol, section 10)?
    """
    return event not in ("agent.heartbeat", "agent.connected", "agent.disconnected") and event.partition(".")[
        0
    ] not in ("metric", "system")


def padding(number: int) -> str:
    """
    What event C{number} carries besides its number: text that is not ASCII, characters that JSON escapes, and sizes
    below and above the 8,000 bytes of a NOTIFY.
    """
    if number % 211 == 0:
        return "é" * 40_000
    if number % 53 == 0:
        return '"\\' * 5_000
    return "é" * (number % 7) + "x" * (number % 190)
