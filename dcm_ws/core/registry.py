"""
The subscriptions of clients, indexed by channel and by client.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Set
from itertools import islice
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)

_NOBODY: frozenset[object] = frozenset()
_NOTHING: dict[str, int] = {}


class ChannelRegistry(Generic[T]):
    """
    Members of channels.  A channel exists while it has a member.

    @param position: returns the last position of the log.
    """

    def __init__(self, position: Callable[[], int] = int) -> None:
        self._position = position
        self._members: dict[str, set[T]] = {}
        self._channels: dict[T, dict[str, int]] = {}

    def __len__(self) -> int:
        """
        How many channels there are.
        """
        return len(self._members)

    def join(self, member: T, channel: str) -> None:
        """
        Make C{member} one of C{channel}; joining twice changes nothing.
        """
        self._members.setdefault(channel, set()).add(member)
        self._channels.setdefault(member, {}).setdefault(channel, self._position())

    def leave(self, member: T, channel: str) -> None:
        """
        Undo L{join}; leaving what was never joined changes nothing.
        """
        channels = self._channels.get(member)
        if channels is None or channel not in channels:
            return
        del channels[channel]
        if not channels:
            del self._channels[member]
        self._forget(member, channel)

    def clear(self) -> None:
        """
        Have all members leave all channels.
        """
        self._members.clear()
        self._channels.clear()

    def begin_anew(self, member: T) -> None:
        """
        Make it as if C{member} joined all its channels just now.
        """
        channels, position = self._channels.get(member, {}), self._position()
        for channel in channels:
            channels[channel] = position

    def drop(self, member: T) -> Set[str]:
        """
        Leave all channels; return them.
        """
        channels = self._channels.pop(member, _NOTHING).keys()
        for channel in channels:
            self._forget(member, channel)
        return channels

    def members(self, channel: str) -> Set[T]:
        """
        The members of a channel: a live view, not to be held across changes.
        """
        return self._members.get(channel, _NOBODY)  # type: ignore[arg-type]

    def channels(self, member: T) -> Set[str]:
        """
        The channels of a member: a live view, not to be held across changes.
        """
        return self._channels.get(member, _NOTHING).keys()

    def since(self, member: T) -> Mapping[str, int]:
        """
        The channels of a member, as in L{channels}, each with the last position of the log when it joined.
        """
        return self._channels.get(member, _NOTHING)

    def sizes(self, most: int) -> Iterator[tuple[str, int]]:
        """
        The number of members of each channel, of C{most} channels at the most.
        """
        for channel, members in islice(self._members.items(), most):
            yield channel, len(members)

    def _forget(self, member: T, channel: str) -> None:
        members = self._members[channel]
        members.remove(member)
        if not members:
            del self._members[channel]
