"""
What the core needs of the world outside it: clocks, randomness, and the far ends of connections.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from dcm_ws.protocol.errors import CloseCode


@dataclass(frozen=True, slots=True)
class World:
    """
    The clocks, and the source of randomness.

    @ivar now: returns monotonic seconds; all time limits are measured with it.
    @ivar wall_ms: returns ms since the epoch, for messages and tokens.
    @ivar random: returns that many random base-36 characters, from a cryptographic source.
    """

    now: Callable[[], float]
    wall_ms: Callable[[], int]
    random: Callable[[int], str]


class Peer(Protocol):
    """
    The far end of a socket.  None of its methods calls back into the core before it returns.
    """

    def send(self, frame: bytes) -> None:
        """
        Queue one or more whole WebSocket frames.  A peer that has been closed ignores it.
        """

    def offer(self, name: str, frame: bytes) -> None:
        """
        Send an event of which only the latest matters: if the far end is far behind, it receives only the last one of
        that C{name}, once it has caught up.
        """

    def replay(self, frames: Iterator[bytes]) -> None:
        """
        Send C{frames} after all that was sent before taking them one by one
        as fast as the far end reads.  An empty one means that there is nothing for now, and has to be followed by
        another look a little later.
        """

    def has_unread(self) -> bool:
        """
        True if the far end has sent something that has not been read yet.
        """

    def close(self, code: CloseCode) -> None:
        """
        Send what is queued and a close frame, and end the connection.
        """

    def trust(self) -> None:
        """
        The client has authenticated: it may send messages of full length.
        """
