"""
The bodies of requests, for the pages that take one, and how large they may be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import NamedTuple

from twisted.web.server import Request

from dcm_ws.core.counters import Count
from dcm_ws.core.counts import LimitCounts
from dcm_ws.http.partial import Holder, PartialMessages


class BodyState(Enum):
    """
    What became of a body.
    """

    #: it is kept, and complete when the page is asked
    KEPT = "kept"
    #: it was longer than it may be, and was dropped
    TOO_LARGE = "too large"
    #: it was dropped because all incomplete bodies and messages together took too much room
    CROWDED_OUT = "crowded out"


class Body(Holder):
    """
    One body, while it arrives and until the page has taken it.

    @param most: its bytes, at most.
    @param crossed: counts the bodies that are longer.
    @param partial: counts its bytes, with those of all others.
    @param stranger: its sender has to authenticate, and has not as far as is known.

    @ivar size: bytes that have arrived.
    @ivar most: as given.
    """

    def __init__(self, most: int, crossed: Count, partial: PartialMessages[Holder], *, stranger: bool) -> None:
        self.most = most
        self._crossed = crossed
        self._partial = partial
        self._stranger = stranger
        self._pieces: list[bytes] = []
        self._held = 0
        self.size = 0
        self.state = BodyState.KEPT

    def declare(self, size: int) -> None:
        """
        The request says how long its body is.
        """
        if size > self.most:
            self._drop(BodyState.TOO_LARGE)

    def receive(self, piece: bytes) -> None:
        """
        A piece of it has arrived.  What is not kept is dropped, and the client may send on.
        """
        self.size += len(piece)
        if self.state is not BodyState.KEPT:
            return
        if self.size > self.most:
            self._drop(BodyState.TOO_LARGE)
            return
        self._pieces.append(piece)
        self._hold(self.size)

    def close_partial_message(self) -> None:
        self._drop(BodyState.CROWDED_OUT)

    def complete(self) -> None:
        """
        No more of it comes.
        """
        self._hold(0)

    def take(self) -> bytes:
        """
        Return it, once.
        """
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)

    def _hold(self, size: int) -> None:
        if size != self._held:
            self._held = size
            crowded_out = self._partial.hold(self, size, stranger=self._stranger)
            if crowded_out is not None:
                crowded_out.close_partial_message()

    def _drop(self, state: BodyState) -> None:
        if state is BodyState.TOO_LARGE:
            self._crossed.add()
        self.state = state
        self._pieces.clear()
        self._hold(0)


class Bodies(NamedTuple):
    """
    Which pages take bodies.

    @ivar limits: the bytes of a body, at most, by the path of the page.
    @ivar counts: where longer ones are counted.
    @ivar partial: counts the bytes of all that are incomplete.
    @ivar stranger: the bytes of a body of a client that has to authenticate, at most; 0 if clients need not.
    @ivar knows: given a request and its path with the query, whether its token is valid.
    """

    limits: Mapping[bytes, int]
    counts: LimitCounts
    partial: PartialMessages[Holder]
    stranger: int = 0
    knows: Callable[[Request, bytes], bool] = lambda request, target: True

    def begin(self, request: Request, target: bytes, declared: int | None) -> Body | None:
        """
        A request with its headers has arrived, and maybe a body follows.

        @param target: its path with the query.
        @param declared: bytes of the body; None if the request does not say it.
        @return: None if no page takes the body.
        """
        most = self.limits.get(target.partition(b"?")[0].lstrip(b"/"))
        if most is None or declared == 0:
            return None
        crossed, stranger = self.counts.max_batch_size, bool(self.stranger)
        if stranger and (declared is None or declared > self.stranger):
            # a token is verified twice only for what is long
            if self.knows(request, target):
                stranger = False
            else:
                most, crossed = min(most, self.stranger), self.counts.max_stranger_message
        body = Body(most, crossed, self.partial, stranger=stranger)
        if declared is not None:
            body.declare(declared)
        return body
