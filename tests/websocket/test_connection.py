"""
A connection as the peer of its session, and how it ends.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.logger import LogEvent, formatEvent

from dcm_ws.protocol.errors import CloseCode
from tests.websocket.ends import Ground


def test_unread(ground: Ground) -> None:
    """
    A connection knows whether its client has sent something that has not been read.
    """
    end = ground.connect()
    assert not end.connection.has_unread()
    end.socket.unread = b"x"
    assert end.connection.has_unread()


# the end


def test_close_comes_last(ground: Ground) -> None:
    """
    What a client was sent before it is closed goes out first.
    """
    end = ground.connect()
    (session,) = ground.core.clients.sessions
    ground.announce(1)
    ground.core.hub.close(session, CloseCode.RESTART)
    ground.announce(2)
    end.turn()
    frames = end.frames()
    assert [opcode for opcode, _ in frames] == [1, 8]
    assert frames[1][1] == (1012).to_bytes(2) + CloseCode.RESTART.reason.encode()


def test_unanswered_close(ground: Ground) -> None:
    """
    A client that does not answer the close is dropped after two seconds.
    """
    end = ground.connect()
    (session,) = ground.core.clients.sessions
    ground.core.hub.close(session, CloseCode.RESTART)
    end.turn()
    assert len(ground.connections) == 1
    ground.reactor.pump([0.5] * 6)
    assert end.socket.closed
    assert len(ground.connections) == 0


def test_message_after_the_close(ground: Ground) -> None:
    """
    What still comes from a client that has been closed is ignored.
    """
    end = ground.connect()
    (session,) = ground.core.clients.sessions
    ground.core.hub.close(session, CloseCode.RESTART)
    end.say(type="publish", channel="global", event="system.info")
    end.say(type="auth", agent_id="late")
    end.turn()
    assert end.close_code() == 1012
    stats: Any = ground.core.stats.report(names=False)
    assert stats["events"]["client"] == 0
    assert stats["authenticatedClients"] == 0


def test_fault_of_ours(ground: Ground, monkeypatch: pytest.MonkeyPatch, no_logged_failures: list[LogEvent]) -> None:
    """
    If the service itself fails over a message, the failure is logged and that client, alone, closed with 1011.
    """

    def fail(*event: object) -> str:
        raise RuntimeError("a bug")

    end, other = ground.connect(), ground.connect()
    monkeypatch.setattr(ground.core.router, "publish", fail)
    end.say(type="publish", channel="global", event="system.info")
    end.turn()
    other.turn()
    assert end.close_code() == 1011
    assert other.frames() == []
    (event,) = no_logged_failures
    assert "broke its session" in formatEvent(event)
    no_logged_failures.clear()
