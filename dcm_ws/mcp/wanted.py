"""
Which events an agent wants to read.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase

from dcm_ws.mcp.rendering import Label


@dataclass(frozen=True, slots=True)
class Wanted:
    """
    Conditions that an event has to meet, all of them.

    @ivar channels: channels, of which C{global} has the events of all but C{metrics}; none for all.
    @ivar events: patterns of event names; none for all.
    @ivar senders: agents; none for all.
    @ivar unnamed: events without a sender are wanted although C{senders} are named.
    """

    channels: Collection[str] = ()
    events: Collection[str] = ()
    senders: Collection[str] = ()
    unnamed: bool = False

    def matches(self, label: Label) -> bool:
        """
        Whether an event is wanted.
        """
        return (
            (not self.channels or not channels_of(label).isdisjoint(self.channels))
            and (not self.events or any(fnmatchcase(label.event, pattern) for pattern in self.events))
            and self._trusts(label.sender)
        )

    def _trusts(self, sender: str | None) -> bool:
        if not self.senders:
            return True
        return self.unnamed if sender is None else sender in self.senders


def channels_of(label: Label) -> set[str]:
    """
    The channels that have an event: the one to which it was published, and C{global}.
    """
    return {label.channel} if label.channel == "metrics" else {label.channel, "global"}


EVERYTHING = Wanted()
