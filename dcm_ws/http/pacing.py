"""
Work on connections that is done a little per turn of the reactor: writing, catching up, cleaning up and aborting.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.interfaces import IReactorTime

from dcm_ws.core.deadlines import Deadlines
from dcm_ws.http.transport import abort
from dcm_ws.http.turns import Turns

CLOSE_GRACE = 2.0
"""
Seconds that a client has to answer a close frame, and to read what was sent before it.
"""

RELEASES_A_TURN = 64
"""
Lost connections whose sessions are released in one turn of the reactor.
"""

_CATCH_UP_INTERVAL = 0.05
_PARTS_A_TURN = 32
_PARTS_SECONDS = 0.004
_ABORT_INTERVAL = 0.02


class Paced(Protocol):
    """
    What L{Pacing} needs of a connection.
    """

    def flush(self) -> None:
        """
        Write what is queued.
        """

    def catch_up(self) -> None:
        """
        Send the next part of what waits until the far end has read the rest.
        """

    @property
    def behind(self) -> bool:
        """
        Does something wait until the far end has read the rest?
        """


class Pacing:
    """
    Spreads the work of all connections over the reactor's turns.

    @ivar releases: cleans up after lost connections: if very many are lost at once, other clients do not wait for it.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._call_later: Callable[..., object] = reactor.callLater
        self.releases = Turns(reactor, RELEASES_A_TURN)
        self._touched: list[Paced] = []
        self._together = False
        self._behind: set[Paced] = set()
        self._seconds = reactor.seconds
        # in the order of their turns
        self._ready: dict[Paced, None] = {}
        self._goes_on = False
        self._ending: Deadlines[Any] = Deadlines(reactor.callLater, reactor.seconds, self._abort_late)
        self._doomed: deque[Any] = deque()

    def later(self, job: Callable[[], object]) -> None:
        """
        Call C{job} in a turn of its own.
        """
        self._call_later(0, job)

    def touch(self, connection: Paced) -> None:
        """
        Flush C{connection} at the end of this turn.
        """
        if not self._touched and not self._together:
            self._call_later(0, self._flush)
        self._touched.append(connection)

    def together(self, step: Callable[[], object]) -> None:
        """
        Call C{step}, and flush at once what it touched: that is cheaper than the end of the turn if few events arrive.
        """
        self._together = True
        try:
            step()
        finally:
            self._together = False
            self._flush()

    def _flush(self) -> None:
        touched, self._touched = self._touched, []
        for connection in touched:
            connection.flush()

    def look_after(self, connection: Paced) -> None:
        """
        Call C{catch_up()} of C{connection} every 50 ms while it is behind.
        """
        if not self._behind:
            self._call_later(_CATCH_UP_INTERVAL, self._catch_up)
        self._behind.add(connection)

    def forget(self, connection: Paced) -> None:
        """
        C{connection} is lost: it has nothing more to catch up with.
        """
        self._behind.discard(connection)
        self._ready.pop(connection, None)

    def _catch_up(self) -> None:
        self._behind = {connection for connection in self._behind if connection.behind}
        for connection in self._behind:
            self.go_on(connection)
        if self._behind:
            self._call_later(_CATCH_UP_INTERVAL, self._catch_up)

    def go_on(self, connection: Paced) -> None:
        """
        Call C{catch_up()} of C{connection} when those that asked before have had their turn: a thousand may be behind,
        and other clients do not wait until each of them has got its next part.
        """
        self._ready[connection] = None
        if not self._goes_on:
            self._goes_on = True
            self._call_later(0, self._go_on)

    def _go_on(self) -> None:
        end = self._seconds() + _PARTS_SECONDS
        for _ in range(min(_PARTS_A_TURN, len(self._ready))):
            # one of them may be closed for being too slow, and the event of that may put others behind
            connection = next(iter(self._ready), None)
            if connection is None or self._seconds() > end:
                break
            del self._ready[connection]
            connection.catch_up()
        self._goes_on = bool(self._ready)
        if self._goes_on:
            self._call_later(0, self._go_on)

    def abort_later(self, transport: Any) -> None:
        """
        Abort C{transport} if it has not ended by itself within L{CLOSE_GRACE}.
        """
        self._ending.put(transport, CLOSE_GRACE)

    def _abort_late(self, transport: Any) -> None:
        if transport.connected:
            self.abort_in_turn(transport)

    def abort_in_turn(self, transport: Any) -> None:
        """
        Abort the connection of a client that does not read, 20 ms after the last such one.  The kernel takes about 2 ms
        to throw away what it holds for one, and clients that do not read are usually found out together.
        """
        if not self._doomed:
            self._call_later(0, self._abort_next)
        self._doomed.append(transport)

    def _abort_next(self) -> None:
        if self._doomed:
            abort(self._doomed.popleft())
        if self._doomed:
            self._call_later(_ABORT_INTERVAL, self._abort_next)

    def abort_all(self) -> None:
        """
        Abort at once all connections that wait for it.
        """
        while self._doomed:
            self._abort_next()
