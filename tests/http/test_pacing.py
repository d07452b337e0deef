"""
Work that is done a little per turn of the reactor.
"""

from __future__ import annotations

import pytest
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure

from dcm_ws.http import pacing
from dcm_ws.http.pacing import CLOSE_GRACE, Pacing
from tests.websocket.ends import Ground


def test_many_leave_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    If very many connections are lost in one turn, most are cleaned up in the turns after it, and all are.
    """
    monkeypatch.setattr(pacing, "RELEASES_A_TURN", 3)
    ground = Ground(MemoryReactorClock(), max_connections=20)
    ends = [ground.connect() for _ in range(10)]
    for end in ends:
        end.transport.connectionLost(Failure(ConnectionDone()))
    assert len(ground.connections) == 0
    assert len(ground.core.clients.sessions) == 7
    ground.reactor.advance(0)
    assert not ground.core.clients.sessions
    # and the next one at once
    last = ground.connect()
    ground.reactor.advance(0)
    last.transport.connectionLost(Failure(ConnectionDone()))
    assert not ground.core.clients.sessions


class Connection:
    """
    A connection that notes what is asked of it.

    @ivar behind: parts that the client has still to read.
    """

    def __init__(self, left: int = 0) -> None:
        self.left = left
        self.flushed = 0

    @property
    def behind(self) -> bool:
        return self.left > 0

    def catch_up(self) -> None:
        self.left -= 1

    def flush(self) -> None:
        self.flushed += 1


class Transport(StringTransport):
    """
    A transport that notes when it was aborted.
    """

    def __init__(self, clock: MemoryReactorClock) -> None:
        super().__init__()
        self.clock = clock
        self.connected = True
        self.aborted_at: float | None = None

    def abortConnection(self) -> None:
        self.aborted_at = self.clock.seconds()
        self.connected = False


def test_flushed_once_a_turn() -> None:
    """
    Connections that are touched are flushed at the end of the turn, and not again in the next one.
    """
    clock = MemoryReactorClock()
    pace = Pacing(clock)
    one, two = Connection(), Connection()
    pace.touch(one)
    pace.touch(two)
    assert (one.flushed, two.flushed) == (0, 0)
    clock.advance(0)
    assert (one.flushed, two.flushed) == (1, 1)
    pace.touch(two)
    clock.advance(0)
    assert (one.flushed, two.flushed) == (1, 2)
    assert clock.getDelayedCalls() == []


def test_flushed_after_a_step() -> None:
    """
    What one step touches is flushed after it and not again at the end of the turn, also if the step fails.
    """
    clock = MemoryReactorClock()
    pace = Pacing(clock)
    one, two = Connection(), Connection()

    def step() -> None:
        pace.touch(one)
        pace.touch(two)
        assert (one.flushed, two.flushed) == (0, 0)

    def failing() -> None:
        pace.touch(two)
        raise ValueError

    pace.together(step)
    assert (one.flushed, two.flushed) == (1, 1)
    with pytest.raises(ValueError):
        pace.together(failing)
    assert (one.flushed, two.flushed) == (1, 2)
    assert clock.getDelayedCalls() == []
    pace.touch(one)
    clock.advance(0)
    assert one.flushed == 2


def test_looked_after_while_behind() -> None:
    """
    Connections that are behind catch up every 50 ms until they have, or are lost.
    """
    clock = MemoryReactorClock()
    pace = Pacing(clock)
    short, long, lost = Connection(2), Connection(4), Connection(9)
    for connection in (short, long, lost):
        pace.look_after(connection)
    clock.pump([0.051] * 3)
    pace.forget(lost)
    clock.pump([0.051] * 3)
    assert (short.left, long.left, lost.left) == (0, 0, 6)
    assert clock.getDelayedCalls() == []


def test_those_that_go_on_take_turns() -> None:
    """
    If very many connections can go on, each gets one part after the other, some in each turn, and what is lost none.
    """
    clock = MemoryReactorClock()
    pace = Pacing(clock)
    connections = [Connection(1) for _ in range(40)]
    for connection in connections:
        pace.go_on(connection)
        pace.go_on(connection)
    pace.forget(connections[0])
    # what another client wants in the same turn
    clock.callLater(0, lambda: seen.extend(connection.left for connection in connections))
    seen: list[int] = []
    clock.advance(0)
    assert seen == [1] + [0] * 32 + [1] * 7
    assert [connection.left for connection in connections] == [1] + [0] * 39
    assert clock.getDelayedCalls() == []


def test_those_that_go_on_do_not_take_long() -> None:
    """
    A part that takes long is the last one of its turn; those that remain may be lost meanwhile.
    """
    clock = MemoryReactorClock()
    pace = Pacing(clock)
    slow, lost = Connection(1), Connection(1)

    def catch_up() -> None:
        clock.rightNow += 0.01
        pace.forget(lost)
        slow.left -= 1

    slow.catch_up = catch_up  # type: ignore[method-assign]
    quick = Connection(1)
    for connection in (slow, lost, quick):
        pace.go_on(connection)
    seen: list[int] = []
    clock.callLater(0, lambda: seen.append(quick.left))
    clock.advance(0)
    assert seen == [1]
    assert (slow.left, lost.left, quick.left) == (0, 1, 0)


def test_aborted_one_after_the_other() -> None:
    """
    Connections that do not read are aborted 20 ms apart, and those that have ended by then are left out.
    """
    clock = MemoryReactorClock()
    pace = Pacing(clock)
    transports = [Transport(clock) for _ in range(4)]
    for transport in transports:
        pace.abort_in_turn(transport)
    transports[2].connected = False
    clock.advance(0)
    clock.pump([0.02] * 4)
    assert [transport.aborted_at for transport in transports] == [0, 0.02, None, 0.06]
    assert clock.getDelayedCalls() == []


def test_aborted_if_it_does_not_end() -> None:
    """
    A connection that has been closed has two seconds to end.
    """
    clock = MemoryReactorClock()
    pace = Pacing(clock)
    transport = Transport(clock)
    pace.abort_later(transport)
    clock.pump([CLOSE_GRACE - 0.1, 0.1, 0])
    assert transport.aborted_at == CLOSE_GRACE


def test_most_end_by_themselves() -> None:
    """
    However many connections have been closed, there is one timer for them, and those that have ended by themselves do
    not delay the abort of another one.
    """
    clock = MemoryReactorClock()
    pace = Pacing(clock)
    transports = [Transport(clock) for _ in range(1000)]
    for transport in transports:
        pace.abort_later(transport)
    assert len(clock.getDelayedCalls()) == 1
    for transport in transports[:-1]:
        transport.connected = False
    clock.pump([CLOSE_GRACE, 0])
    assert [transport.aborted_at for transport in transports] == [None] * 999 + [CLOSE_GRACE]
    assert clock.getDelayedCalls() == []


def test_abort_all() -> None:
    """
    When the service stops, those that wait to be aborted are aborted at once.
    """
    clock = MemoryReactorClock()
    pace = Pacing(clock)
    transports = [Transport(clock) for _ in range(3)]
    for transport in transports:
        pace.abort_in_turn(transport)
    pace.abort_all()
    assert [transport.aborted_at for transport in transports] == [0, 0, 0]
