"""
How far a client is that catches up with the log, and what it gets of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from itertools import islice, takewhile

from msgspec.structs import replace

from dcm_ws.core.entries import Entry
from dcm_ws.core.tracked import Owed

NEVER = 1 << 62
"""
More than any position, and more than any number of deliveries.
"""


EARLY_ACKS_MOST = 1000
"""
Acks of events that a connection has not been sent yet, which other connections of its agent have acknowledged.
"""


class Behind:
    """
    How far a client is that catches up.

    @ivar after: everything up to this position has been sent, or need not be.
    @ivar live: up to this position the client has got the events of its subscriptions directly.
    @ivar resumed: the position that the client has in the channels that it has resumed.
    @ivar missed: the position in each channel after which its agent has missed tracked events.
    @ivar inherited: the channels in which another connection of its agent had not been sent everything when it ended:
        tracked events after the first of these positions, up to the second, are still to be sent.
    @ivar owed: what its agent has not acknowledged, by position, in the order of these.
    @ivar early_acks: ids of events that other connections of its agent have acknowledged, and that it may still get: it
        owes no acks for them.
    @ivar found: what the log has of the first ones of C{owed}, by position: None for what has left it.
    @ivar told: up to this position it knows of the gaps.
    @ivar go_on: it waits until no more than so many deliveries are in flight.
    @ivar page: what has been read in the log, and not been sent yet.
    @ivar upto: the position up to which that is everything; -1 if the log has to be read, or is being read.
    @ivar lost: the last position of what should be in C{page} and is gone.
    @ivar reading: stands for the page that the log is being asked for; None if it is not.
    @ivar finding: the same for C{found}.
    """

    __slots__ = (
        "_ids",
        "after",
        "early_acks",
        "finding",
        "found",
        "go_on",
        "inherited",
        "live",
        "lost",
        "missed",
        "owed",
        "page",
        "reading",
        "resumed",
        "told",
        "upto",
    )

    def __init__(self, live: int) -> None:
        self.after = self.live = live
        self.told = 0
        self.resumed: dict[str, int] = {}
        self.missed: dict[str, int] = {}
        self.inherited: dict[str, tuple[int, int]] = {}
        self.owed: dict[int, Owed] = {}
        self._ids: dict[str, int] = {}
        self.early_acks: dict[str, None] = {}
        self.found: dict[int, Entry | None] = {}
        self.finding: object | None = None
        self.go_on = NEVER
        self.page: deque[Entry] = deque()
        self.upto = -1
        self.lost = 0
        self.reading: object | None = None

    def read_again(self) -> None:
        """
        Forget what has been read, and what is being read.
        """
        self.page.clear()
        self.upto = -1
        self.reading = None

    def move_back(self, subscriptions: Mapping[str, int]) -> None:
        """
        It may be sent older events from now on.  What it has had it must not get again, and what it has left it need
        not.

        @param subscriptions: its channels.
        """
        after = self.after
        self.live = max(self.live, after)
        self.resumed = {name: max(pos, after) for name, pos in self.resumed.items() if name in subscriptions}
        self.missed = {name: max(pos, after) for name, pos in self.missed.items() if name in subscriptions}
        self.inherited = {name: (max(pos, after), upto) for name, (pos, upto) in self.inherited.items() if after < upto}
        self.read_again()

    def inherit(self, spans: Mapping[str, tuple[int, int]]) -> None:
        """
        Have the client get tracked events of some channels, as in C{inherited}.
        """
        for name, (pos, upto) in spans.items():
            after, until = self.inherited.get(name, (pos, upto))
            self.inherited[name] = min(after, pos), max(until, upto)

    def leave(self, channel: str) -> None:
        """
        The client unsubscribes: if it subscribes to the channel again, it gets only what is new there.
        """
        self.resumed.pop(channel, None)
        self.missed.pop(channel, None)
        self.inherited.pop(channel, None)

    def owe(self, owed: Mapping[int, Owed]) -> None:
        """
        Have the client get what its agent has not acknowledged, by position.
        """
        self.owed = dict(sorted((self.owed | dict(owed)).items()))
        self._ids = {one.id: pos for pos, one in self.owed.items()}
        self.found.clear()
        self.finding = None

    def settle(self, event_id: str | None, pos: int) -> list[int]:
        """
        The agent has acknowledged an event, or all up to a position.  That does not hold for what was redriven and has
        not been sent since, nor for what another connection leaves to this one: the agent cannot mean that by a
        position.  It holds for what the agent has missed as far as the service knows: a service that was killed does
        not know what it has sent in its last second.

        @return: the positions of what was owed and is not any more.
        """
        owed = self.owed
        if event_id is not None:
            at = self._ids.get(event_id, 0)
            return [] if owed.pop(at, None) is None else [at]
        settled = [one for one in takewhile(pos.__ge__, owed) if owed[one].event is None]
        for one in settled:
            del owed[one]
        self.missed = {name: max(place, pos) for name, place in self.missed.items()}
        return settled

    def acknowledged_elsewhere(self, event_id: str) -> bool:
        """
        Another connection of the agent has acknowledged an event that this one does not owe, and may still get.

        @return: False if one of more than L{EARLY_ACKS_MOST} had to be forgotten for that: it is owed when it is sent.
        """
        acks = self.early_acks
        acks[event_id] = None
        if len(acks) <= EARLY_ACKS_MOST:
            return True
        del acks[next(iter(acks))]
        return False

    def as_owed(self, entry: Entry) -> Entry:
        """
        An event that is about to be sent, not tracked any more if another connection has acknowledged it.
        """
        if self.early_acks and entry.id in self.early_acks:
            del self.early_acks[entry.id]
            return replace(entry, tracked=False)
        return entry

    def to_find(self, most: int) -> list[int]:
        """
        The positions of the next events that are owed and have to be looked up in the log.
        """
        return [pos for pos, owed in islice(self.owed.items(), most) if owed.event is None]

    def lanes(self, subscriptions: Mapping[str, int], *, resumed: bool = True) -> dict[str, int]:
        """
        The position in each channel after which there may be something for the client.

        @param resumed: also what it has resumed, and not only what its agent has to get.
        """
        live, missed = self.live, self.missed
        asked = self.resumed if resumed else {}
        lanes = {
            name: min(max(live, since), asked.get(name, NEVER), missed.get(name, NEVER))
            for name, since in subscriptions.items()
        }
        for name, (pos, upto) in self.inherited.items():
            if self.after < upto:
                lanes[name] = min(pos, lanes.get(name, pos))
        return lanes

    def inherits(self, entry: Entry, channel: str) -> bool:
        """
        Does the client get C{entry} because another connection was subscribed to C{channel}?
        """
        after, upto = self.inherited.get(channel, (0, 0))
        return entry.tracked and after < entry.pos <= upto

    def wants(self, entry: Entry, channel: str, since: int) -> bool:
        """
        Does the client get C{entry} as a subscriber of C{channel}, which it has been since C{since}?
        """
        pos = entry.pos
        if pos > since:
            if pos > self.live:
                return True
        elif self.resumed.get(channel, NEVER) < pos:
            return True
        # also what came directly before the client authenticated as the agent
        return entry.tracked and self.missed.get(channel, NEVER) < pos
