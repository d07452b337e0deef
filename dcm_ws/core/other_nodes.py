"""
What the connections of an agent leave behind that another node has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from dcm_ws.core.clients import Clients
from dcm_ws.core.counts import Counts
from dcm_ws.core.ports import Owners
from dcm_ws.core.tracked import Tracked
from dcm_ws.protocol.frames import header_size


class _Event(msgspec.Struct):
    channel: str


_decode = msgspec.json.Decoder(_Event).decode


class OtherNodes:
    """
    Passes to other nodes what their agents get there.

    @param owners: None if there are no other nodes.
    """

    def __init__(self, counts: Counts, *, clients: Clients, owners: Owners | None) -> None:
        self._counts = counts.owners
        self._elsewhere = clients.elsewhere
        self._owners = owners

    def acknowledged(self, agent: str, event_id: str | None, pos: int | None) -> None:
        """
        A connection of an agent that another node has has acknowledged an event, or all up to a position.
        """
        assert self._owners is not None
        self._owners.acknowledged(agent, event_id or "", pos or 0)

    def subscribed(self, agent: str, places: Mapping[str, int]) -> None:
        """
        A connection of an agent that another node has has subscribed to some channels, each with the position from
        which on it gets what is published there.
        """
        there = self._elsewhere[agent]
        unknown = {name: pos for name, pos in places.items() if name not in there.places}
        if unknown:
            assert self._owners is not None
            self._owners.merge(agent, unknown, stays=True)

    def left(self, agent: str, events: Iterable[Tracked], places: Mapping[str, int]) -> None:
        """
        The last connection here of an agent that another node has is not one any more.

        That node sees to all channels that the connection was subscribed to when it took the agent; it cannot know of
        those that came later.

        @param events: what the connection owed acks for.
        @param places: the position in each of its channels after which it has not been sent everything.
        """
        there = self._elsewhere.pop(agent)
        unknown = {name: pos for name, pos in places.items() if name not in there.places}
        if not unknown:
            return
        for event in events:
            if event.seq > there.head:
                for name in channels_of(event) & unknown.keys():
                    unknown[name] = min(unknown[name], event.seq - 1)
        self._counts.merged += 1
        assert self._owners is not None
        self._owners.merge(agent, unknown)


def channels_of(event: Tracked) -> set[str]:
    """
    The channels on which an event was sent.
    """
    return {_decode(frame[header_size(frame) :]).channel for frame in event.frames}
