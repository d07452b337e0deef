"""
What was published, and what each agent still has a right to.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.core.promises.far_end import Connection


class BrokenPromiseError(AssertionError):
    """
    The core did something that the protocol rules out.
    """


def promise(kept: object, text: str) -> None:
    """
    @raise BrokenPromiseError: the promise that C{text} names was not kept.
    """
    if not kept:
        raise BrokenPromiseError(text)


@dataclass(eq=False, slots=True)
class Event:
    """
    One event.

    @ivar number: its data, which no other event has.
    @ivar lanes: the channels whose subscribers receive it: its own, and C{global} if it is mirrored.
    @ivar pos: its position; 0 if it is not logged.
    @ivar is_gone: it has left the log.
    @ivar audience: connections that were subscribed when it was published, each with the channel.
    @ivar agents: agents that it is kept for, each with the channel.
    @ivar acked: the agents, and connections without an agent, that have acknowledged it.
    @ivar texts: its frame on each channel.
    """

    number: int
    channel: str
    name: str
    lanes: tuple[str, ...]
    tracked: bool
    pos: int
    id: str = ""
    is_gone: bool = False
    audience: set[tuple[int, str]] = field(default_factory=set)
    agents: set[tuple[str, str]] = field(default_factory=set)
    acked: set[str] = field(default_factory=set)
    texts: dict[str, bytes] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"event {self.number} ({self.name} on {self.channel}, pos {self.pos})"


@dataclass(eq=False, slots=True)
class Agent:
    """
    One agent.

    @ivar connections: those by which it is present.
    @ivar owed: tracked events that it must get until it has acknowledged them.
    @ivar sent: tracked events that it was sent.
    @ivar waiting: those that connections had not been sent when they ended.
    @ivar exhausted: those that one connection was sent as often as it may be.
    @ivar left_at: when its last connection ended; None while it has one, and before the first.
    @ivar channels: what its last connection was subscribed to when that ended.
    @ivar floor: everything up to this position was sent to the connection that ended last.
    @ivar told_upto: the last position that it was told to have left the log.
    """

    name: str
    connections: set[Connection] = field(default_factory=set)
    owed: dict[Event, None] = field(default_factory=dict)
    sent: set[Event] = field(default_factory=set)
    waiting: set[Event] = field(default_factory=set)
    exhausted: set[Event] = field(default_factory=set)
    left_at: float | None = None
    channels: frozenset[str] = frozenset()
    floor: int = 0
    told_upto: int = 0
