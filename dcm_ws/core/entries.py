"""
What is published, what the log makes of it, and what it returns to readers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from msgspec import Struct

from dcm_ws.protocol.channels import Channel
from dcm_ws.protocol.replies import mirror_frame, to_json


class Draft(Struct, frozen=True, gc=False):
    """
    An event that has no position yet.

    @ivar data: JSON, UTF-8.
    @ivar timestamp: ms since the epoch.
    @ivar sender: the field that names the agent that publishes it; may be empty.
    @ivar named: the channel's name as it was given; if that is private, strangers do not receive the event.
    @ivar category: what L{traits_of} returns for C{event}, as is C{tracked}.
    @ivar mirrored: the subscribers of C{global} get it, too.
    @ivar publisher: who pays for its room in the log: an agent, or what stands for a source such as the database.
    @ivar key: stands for the publisher and the key under which it is published; empty without one.
    """

    id: str
    channel: Channel
    event: str
    data: bytes
    timestamp: int
    sender: bytes
    named: str
    category: str
    tracked: bool
    mirrored: bool
    publisher: str
    key: str = ""


class Published(Struct, gc=False):
    """
    What became of a publish.

    The garbage collector does not track it: what it refers to is forgotten when the log answers.

    @ivar id: the event's; while the log has not answered, it may still become that of an event with the same key.
    @ivar pos: the event's position in the log; 0 if it has none, or not yet; None if it is not in the log and was not
        published.
    @ivar duplicate: it was published before, with the same key.
    @ivar waiting: the log has not answered yet.
    """

    id: str
    pos: int | None = 0
    duplicate: bool = False
    waiting: bool = False
    _then: tuple[Callable[[], object], ...] = ()

    def then(self, answered: Callable[[], object]) -> None:
        """
        Have C{answered} called when the log answers.  Only while it is C{waiting}.
        """
        self._then += (answered,)

    def answer(self, pos: int | None) -> None:
        """
        The log, which has let the publisher wait, answers.  If it has found an event with the same key, it has set
        C{id} and C{duplicate} before.

        @param pos: as in L{Published}.
        """
        self.pos = pos
        self.waiting = False
        then, self._then = self._then, ()
        for answered in then:
            answered()


class Entry(Struct, gc=False):
    """
    One event in the log.

    The garbage collector does not track it: it refers to nothing that refers back, and a full collection would visit
    100,000 entries.

    @ivar pos: its position, from 1.
    @ivar channel: the channel that it was published to.
    @ivar named: as in L{Draft}.
    @ivar frame: the event as the subscribers of that channel get it; empty once it has left the log.
    @ivar mirrored: the subscribers of C{global} get it, too.
    @ivar tracked: clients acknowledge it.
    @ivar publisher: who pays for its room: an agent, or what stands for a source such as the database.
    @ivar logged_at: monotonic seconds.
    """

    pos: int
    id: str
    channel: str
    named: str
    frame: bytes
    mirrored: bool
    tracked: bool
    publisher: str
    logged_at: float

    @property
    def mirror(self) -> bytes:
        """
        The event as the subscribers of C{global} get it; made each time, since few ask for it and it would take as much
        room as the frame.  Empty if it is not mirrored, or has left the log.
        """
        return mirror_frame(self.frame, self.id, to_json(self.channel)) if self.mirrored and self.frame else b""


class Page(NamedTuple):
    """
    What a reader of certain channels gets next.

    @ivar entries: in the order of the log.
    @ivar upto: the reader has everything up to this position when it has these.
    @ivar lost: the last position of the events that it would get and that are gone; 0 if none is.
    """

    entries: list[Entry]
    upto: int
    lost: int
