"""
Connections as the network has them: what is sent arrives when the far end reads, or never.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from msgspec.json import decode

from dcm_ws.core.session import Session
from dcm_ws.protocol.errors import CloseCode
from tests.core.promises.ledger import Event
from tests.fakes import split_frames

# a replay yields None to let others have their turn
_END = b"end"


class Arrival(NamedTuple):
    """
    A message on its way to a client.

    @ivar lost: the events that had left the log when it was sent, if it tells of a gap.
    """

    message: dict[str, Any]
    lost: frozenset[Event] = frozenset()


class Connection:
    """
    One connection: the peer of a session, and the far end's view of it.

    @param sent: called with every message that the core sends, and its bytes.
    @param eager: frames of a replay that are taken at once.

    @ivar wire: what has been sent and not been read.
    @ivar is_cut: nothing arrives any more in either direction, and the server does not know.
    @ivar ended: the server has disconnected it.
    @ivar settled: the client has authenticated or resumed, or will do neither.
    @ivar due: logged events that the server has to send, by position and channel.
    @ivar shown: events that it was sent, with the channel.
    @ivar sends: how often, since it authenticated.
    @ivar last: the position on each channel that was sent last, since it authenticated or resumed.
    @ivar resumed: the position after which it resumed each channel.
    @ivar gap: the gap that the answer to its resume has to tell of.
    @ivar told: events that it knows to have left the log.
    @ivar told_upto: the last position of those.
    @ivar alone: its agent had no other connection during its time.
    @ivar inherited: what its agent had to get when it authenticated, and what may come from other connections.
    @ivar floor: everything up to this position was sent to its agent before.
    """

    def __init__(
        self, number: int, sent: Callable[[Connection, dict[str, Any], bytes], Arrival], eager: int = 0
    ) -> None:
        self.number = number
        self._sent = sent
        self._eager = eager
        self.session: Session | None = None
        self.wire: deque[Arrival] = deque()
        self.closed: CloseCode | None = None
        self.is_cut = False
        self.ended = False
        self.settled = False
        self.due: dict[tuple[int, str], Event] = {}
        self.shown: set[tuple[Event, str]] = set()
        self.sends: Counter[tuple[Event, str]] = Counter()
        self.last: dict[str, int] = {}
        self.resumed: dict[str, int] = {}
        self.gap: tuple[str, int] | None = None
        self.told: set[Event] = set()
        self.told_upto = 0
        self.alone = True
        self.floor = 1 << 62
        self.inherited: set[Event] = set()
        self._replaying: Iterator[bytes | None] | None = None

    @property
    def agent(self) -> str | None:
        """
        The agent that is present by it.
        """
        return None if self.session is None else self.session.present

    @property
    def owner(self) -> str:
        """
        Who acknowledges what it receives.
        """
        return self.agent or f" {self.number}"

    # the peer of the session

    def send(self, frame: bytes) -> None:
        if self.closed is None:
            for text, message in _messages(frame):
                self.wire.append(self._sent(self, message, text))

    def offer(self, name: str, frame: bytes) -> None:
        self.send(frame)

    def replay(self, frames: Iterator[bytes | None]) -> None:
        self._replaying = frames
        self.pump(self._eager)

    def go_on(self) -> None:
        pass

    def has_unsent(self) -> bool:
        return False

    def has_unread(self) -> bool:
        return False

    def close(self, code: CloseCode) -> None:
        self.closed = code
        self._replaying = None

    def stop_reading(self) -> None:
        raise AssertionError("there are no other nodes")

    def read_on(self) -> None:
        raise AssertionError("there are no other nodes")

    def trust(self) -> None:
        pass

    # the network

    def pump(self, most: int) -> bool:
        """
        Take frames of a replay, C{most} at most, as there is room for them.  Returns if there was any.
        """
        some = False
        for _ in range(most):
            if self._replaying is None:
                break
            frame = next(self._replaying, _END)
            if frame is _END:
                self._replaying = None
            elif frame is not None:
                if not frame:
                    break
                some = True
                self.send(frame)
        return some


@lru_cache(maxsize=256)
def _messages(frame: bytes) -> list[tuple[bytes, dict[str, Any]]]:
    return [(payload, decode(payload)) for opcode, payload in split_frames(frame) if opcode == 1]
