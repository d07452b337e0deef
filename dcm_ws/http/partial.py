"""
The bytes of incomplete messages and bodies, over all connections.
"""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from dcm_ws.core.counters import Count

T = TypeVar("T")

STRANGERS_SHARE = 8
"""
Clients that have to authenticate and have not may together hold one part in this many of the limit.
"""


class Holder(Protocol):
    """
    What holds bytes of an incomplete message.
    """

    def close_partial_message(self) -> None:
        """
        Release them, because they take too much room.
        """


class PartialMessages(Generic[T]):
    """
    Counts the bytes of incomplete messages that each connection holds, and limits them.

    @param most: the limit for all connections together, in bytes.
    @param crowded_out: counts the connections that had to be closed.

    @ivar total: bytes that are held now.
    """

    def __init__(self, most: int, crowded_out: Count) -> None:
        self._most = most
        self._crowded_out = crowded_out
        self._sizes: dict[T, int] = {}
        self._strangers: dict[T, int] = {}
        self._strangers_total = 0
        self.total = 0

    def hold(self, owner: T, size: int, *, stranger: bool) -> T | None:
        """
        Note that C{owner} holds C{size} bytes now.

        @param stranger: C{owner} has to authenticate and has not.
        @return: the connection that has to be closed, and to release what it holds, because the limit is exceeded: the
            one that holds most, and of several the one that was the first to hold anything.
        """
        self.total += size - self._sizes.get(owner, 0)
        if size:
            self._sizes[owner] = size
        else:
            self._sizes.pop(owner, None)
        self._strangers_total -= self._strangers.pop(owner, 0)
        if stranger and size:
            self._strangers[owner] = size
            self._strangers_total += size
        if stranger and self._strangers_total > self._most // STRANGERS_SHARE:
            crowd = self._strangers
        elif self.total > self._most:
            crowd = self._sizes
        else:
            return None
        self._crowded_out.add()
        return max(crowd, key=crowd.__getitem__)
