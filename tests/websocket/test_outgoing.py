"""
The queue of a connection: when it is written, and what happens if the client reads slowly or not at all.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Protocol
from twisted.internet.tcp import Server
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from dcm_ws.protocol.errors import CloseCode
from dcm_ws.protocol.frames import text_frame
from tests.fakes import Client
from tests.websocket.ends import HANDSHAKE, SEND_BUFFER, End, Ground, KernelSocket, data_of

# the queue


def test_one_write_a_turn(ground: Ground) -> None:
    """
    All that a client is sent in one turn of the reactor goes out in one system call, in order.
    """
    end = ground.connect()
    for number in range(10):
        ground.announce(number)
    assert end.socket.sent == []
    end.turn()
    assert len(end.socket.sent) == 1
    assert data_of(end.take()) == list(range(10))


def test_answers_and_events_keep_their_order(ground: Ground) -> None:
    """
    Answers and events come in the order in which they were made.
    """
    end = ground.connect()
    ground.announce(1)
    end.say(type="ping")
    ground.announce(2)
    end.say(type="subscribe", channel="metrics", id="s")
    end.turn()
    assert [message.get("type", message.get("data")) for message in end.take()] == [1, "pong", 2, "ack"]


def test_much_in_one_turn(ground: Ground) -> None:
    """
    A large queue is not kept until the end of the turn.
    """
    end = ground.connect()
    for number in range(3):
        ground.announce([number, "x" * 40_000])
    assert len(end.socket.sent) == 1
    end.turn()
    assert [number for number, _ in data_of(end.take())] == [0, 1, 2]


@pytest.mark.parametrize("room", [0, 1, 100, 10_000])
def test_full_socket(ground: Ground, room: int) -> None:
    """
    What the kernel does not take at once goes out when it can, before all that comes later.
    """
    end = ground.connect()
    end.socket.room = room
    for number in range(200):
        ground.announce([number, "x" * 100])
        if number % 10 == 0:
            end.turn()
    assert sum(map(len, end.socket.sent)) == room
    end.turn()
    end.socket.room = 5000
    end.turn()
    ground.announce([200, ""])
    end.turn()
    end.socket.room = 1 << 40
    end.turn()
    ground.announce([201, ""])
    end.turn()
    assert [number for number, _ in data_of(end.take())] == list(range(202))


def test_what_waits_is_kept_together(ground: Ground) -> None:
    """
    What waits for a client that does not read lies in few pieces, and is still what was sent, in order.
    """
    end = ground.connect()
    end.socket.room = 0
    for number in range(200):
        ground.announce([number, "x" * 100])
        end.turn()
    assert len(end.transport._tempDataBuffer) < 60
    end.socket.room = 1 << 40
    end.turn()
    assert [number for number, _ in data_of(end.take())] == list(range(200))


def test_broken_socket(ground: Ground) -> None:
    """
    A connection that turns out to be broken while it is written to ends quietly.
    """
    end = ground.connect()
    end.socket.broken = True
    ground.announce(1)
    end.turn()
    assert end.socket.closed
    assert ground.core.clients.sessions == set()
    assert len(ground.connections) == 0
    ground.announce(2)
    ground.reactor.advance(60)


def test_gone_within_the_turn(ground: Ground) -> None:
    """
    A client that is gone before its queue was written is left alone.
    """
    end = ground.connect()
    ground.announce(1)
    end.transport.connectionLost(Failure(ConnectionDone()))
    ground.reactor.advance(0)
    assert end.socket.sent == []


# too slow


def test_too_slow(ground: Ground) -> None:
    """
    A client for which more than the send buffer waits is closed with 4008; what already waits, it may still read.
    """
    end, other = ground.connect(), ground.connect()
    end.socket.room = 0
    sent = 0
    while not ground.core.stats.report(names=False)["closes"]:
        ground.announce([sent, "x" * 10_000])
        sent += 1
        end.turn()
        other.turn()
        assert sent < 50
    assert sent == 30
    assert len(ground.core.clients.sessions) == 1
    assert [number for number, _ in data_of(other.take())] == list(range(sent))
    end.socket.room = 1 << 40
    end.turn()
    assert end.close_code() == CloseCode.TOO_SLOW


def test_too_slow_within_one_turn(ground: Ground) -> None:
    """
    A burst that a client cannot take closes it just as well, and what was queued is given up.
    """
    end = ground.connect()
    end.socket.room = 0
    for number in range(50):
        ground.announce([number, "x" * 10_000])
    end.turn()
    assert ground.core.stats.report(names=False)["closes"] == {"4008": 1}
    assert ground.core.clients.sessions == set()


@pytest.mark.parametrize("size", [70_000, 1_000_000])
def test_too_slow_for_large_events(ground: Ground, size: int) -> None:
    """
    Events that are written at once, for their size, count as well where the kernel does not take them.
    """
    end = ground.connect()
    end.socket.room = 0
    for _ in range(SEND_BUFFER // size + 1):
        assert ground.core.stats.report(names=False)["closes"] == {}
        ground.announce("x" * size)
        end.turn()
    assert ground.core.stats.report(names=False)["closes"] == {"4008": 1}


def test_slow_but_not_too_slow(ground: Ground) -> None:
    """
    A client that lags behind but reads on is not closed.
    """
    end = ground.connect()
    numbers = []
    for number in range(500):
        end.socket.room = 10_000
        ground.announce([number, "x" * 9000])
        end.turn()
        numbers += end.socket.sent
        end.socket.sent.clear()
    end.socket.room = 1 << 40
    end.turn()
    end.socket.sent[:0] = numbers
    assert [number for number, _ in data_of(end.take())] == list(range(500))


def test_latest_are_bounded(ground: Ground) -> None:
    """
    What waits of such events counts against the send buffer: the oldest are dropped, and one that is too large itself.
    """
    end = ground.connect()
    end.socket.room = 0
    while not end.connection.behind:
        end.connection.offer("fill", text_frame(b'"%b"' % (b"x" * 20_000)))
        end.turn()
    for number in range(100):
        end.connection.offer(f"a{number}", text_frame(b'"%03d%b"' % (number, b"y" * 20_000)))
        end.connection.offer(f"a{number}", text_frame(b'"%03d%b"' % (number, b"z" * 20_000)))
    end.connection.offer("giant", text_frame(b'"%b"' % (b"g" * SEND_BUFFER)))
    assert end.connection._latest == {}
    assert end.connection._latest_size == 0
    for number in range(100):
        end.connection.offer(f"b{number}", text_frame(b'"%03d%b"' % (number, b"z" * 20_000)))
    waiting = end.connection._latest
    assert waiting is not None and sum(map(len, waiting.values())) == end.connection._latest_size
    assert 150_000 < end.connection._latest_size < SEND_BUFFER
    assert ground.core.counts.limits.latest_dropped.value > 150
    kept = len(waiting)
    end.take()
    end.socket.room = 1 << 40
    end.turns()
    heard = [message for message in end.take() if message[0] in "0123456789"]
    assert [message[:3] for message in heard] == [f"{number:03}" for number in range(100 - kept, 100)]


def test_latest_only(ground: Ground) -> None:
    """
    Of what only the latest matters, a client that is far behind gets the last of each name, once it has caught up.
    """
    roomy = Ground(ground.reactor, 4 << 20)
    end = roomy.connect()
    end.connection.offer("a", text_frame(b'"first"'))
    end.turn()
    assert end.take() == ["first"]
    end.socket.room = 0
    roomy.announce("x" * (2 << 20))
    end.turns(0.1)
    for number in range(100):
        end.connection.offer("a", text_frame(b'"a%d"' % number))
        end.connection.offer("b", text_frame(b'"b%d"' % number))
        end.turns(0.1)
    assert len(roomy.core.clients.sessions) == 1
    end.socket.room = 1 << 40
    end.turns(0.2)
    assert end.take()[1:] == ["a99", "b99"]
    end.connection.offer("a", text_frame(b'"last"'))
    end.turn()
    assert end.take() == ["last"]


def test_buffers_of_wrappers_count(ground: Ground) -> None:
    """
    Through TLS, what its layers hold for a client that does not read counts too.
    """

    class Layer(StringTransport):
        """
        Holds the application's bytes, as TLS does until it may write.
        """

        def __init__(self, below: object) -> None:
            super().__init__()
            self.transport = below
            self._appSendBuffer: list[bytes] = []

        def write(self, data: bytes) -> None:
            self._appSendBuffer.append(data)

    below = Server(KernelSocket(), Protocol(), ("192.0.2.1", 1), None, 1, ground.reactor)  # type: ignore[arg-type]
    layer = Layer(below)
    connection: Any = ground.connections.buildProtocol(None)
    connection.makeConnection(layer)
    connection.dataReceived(HANDSHAKE)
    ground.reactor.advance(0)
    below.write(b"x" * 200_000)
    ground.announce("x" * 70_000)
    ground.reactor.advance(0)
    assert len(ground.core.clients.sessions) == 1
    ground.announce("x" * 70_000)
    ground.reactor.advance(0)
    assert ground.core.stats.report(names=False)["closes"] == {"4008": 1}


# coming back


def away(ground: Ground, missed: int, size: int = 1000) -> None:
    """
    An agent was here, and missed so many events.
    """
    client = Client(ground.core)
    client.auth("lara")
    client.leave()
    for number in range(missed):
        ground.announce([number, "x" * size], "task.created")


def returned(ground: Ground, event: str) -> End:
    """
    An agent that missed 1,000 events is back and reads nothing, while 40 large events are published.
    """
    away(ground, 1000)
    end = ground.connect()
    end.socket.room = 0
    end.say(type="auth", agent_id="lara")
    end.turn()
    for number in range(1000, 1040):
        ground.announce([number, "x" * 10_000], event)
    end.turns(0.1)
    return end


def test_replay_goes_in_parts(ground: Ground) -> None:
    """
    What an agent missed is sent as fast as it reads, not all at once, however much there is.
    """
    away(ground, 2000)
    end = ground.connect()
    end.socket.room = 0
    end.say(type="auth", agent_id="lara")
    end.turns()
    assert 0 < ground.core.deliveries.pending < 500
    assert len(ground.core.clients.sessions) == 1
    end.socket.room = 1 << 40
    end.turns()
    messages = end.take()
    assert messages[0]["type"] == "ack"
    tasks = [message for message in messages if message.get("event") == "task.created"]
    assert [number for number, _ in data_of(tasks)] == list(range(2000))
    assert ground.core.deliveries.pending == 2000


def test_replay_goes_on_when_there_is_more(ground: Ground) -> None:
    """
    A replay that has nothing for now goes on in the next turn when the connection is told of more.
    """
    end = ground.connect()
    log: list[bytes] = []
    end.connection.replay(iter(lambda: log.pop() if log else b"", None))
    end.turns()
    end.take()
    log.append(text_frame(b'"late"'))
    end.connection.go_on()
    end.reactor.advance(0)
    assert end.take() == ["late"]


def test_news_wait_for_the_replay(ground: Ground) -> None:
    """
    What is published while an agent catches up comes after all that it missed; replies come at once.
    """
    away(ground, 1000)
    end = ground.connect()
    end.socket.room = 0
    end.say(type="auth", agent_id="lara")
    for number in range(1000, 1010):
        ground.announce([number, ""], "task.created")
        end.say(type="ping")
        end.turns(0.1)
    end.socket.room = 1 << 40
    end.turns()
    messages = end.take()
    tasks = [message["data"][0] for message in messages if message.get("event") == "task.created"]
    assert tasks == list(range(1010))
    assert messages[-1]["data"][0] == 1009
    assert [message.get("type") for message in messages].count("pong") == 10


def test_what_is_sent_again_does_not_make_a_client_too_slow(ground: Ground) -> None:
    """
    A client that owes acks for more than may wait for it gets that again as fast as it reads.
    """
    end = ground.connect()
    end.say(type="auth", agent_id="lara", durable=True)
    for number in range(10):
        ground.announce([number, "x" * (SEND_BUFFER // 5)], "task.created")
        end.turn()
    assert len(data_of(end.take())) == 10 + 1
    ground.reactor.advance(5)
    end.socket.room = 0
    assert len(list(ground.core.retrying.sweep())) == 10
    end.turn()
    assert ground.core.stats.report(names=False)["closes"] == {}
    assert ground.core.counts.deliveries.retried == 1
    end.socket.room = 1 << 40
    end.turn()
    assert [number for number, _ in data_of(end.take())] == [0]
    ground.reactor.advance(4.9)
    assert list(ground.core.retrying.sweep()) == []
    ground.reactor.advance(0.1)
    list(ground.core.retrying.sweep())
    end.turn()
    assert sorted(number for number, _ in data_of(end.take())) == list(range(10))
    assert ground.core.counts.deliveries.given_up == 0


def test_catching_up_is_not_too_slow(ground: Ground) -> None:
    """
    New logged events wait in the log for an agent that does not read while it catches up, and not in its queue.
    """
    end = returned(ground, "task.created")
    assert ground.core.stats.report(names=False)["closes"] == {}
    end.socket.room = 1 << 40
    end.turns()
    tasks = [message["data"][0] for message in end.take() if message.get("event") == "task.created"]
    assert tasks == list(range(1040))


def test_too_slow_for_what_comes_beside_the_replay(ground: Ground) -> None:
    """
    An agent that does not read while it catches up is closed when too much that is not logged waits for it, and loses
    nothing tracked.
    """
    end = returned(ground, "system.info")
    assert ground.core.stats.report(names=False)["closes"] == {"4008": 1}
    end.socket.room = 1 << 40
    end.turn()
    assert end.close_code() == CloseCode.TOO_SLOW
    end.transport.connectionLost(Failure(ConnectionDone()))
    again = ground.connect()
    again.say(type="auth", agent_id="lara")
    again.turns()
    tasks = [message["data"][0] for message in again.take() if message.get("event") == "task.created"]
    assert tasks == list(range(1000))


def test_gone_during_the_replay(ground: Ground) -> None:
    """
    An agent that goes away while it catches up catches up the next time.
    """
    away(ground, 1000)
    end = ground.connect()
    end.socket.room = 0
    end.say(type="auth", agent_id="lara")
    end.turn()
    end.transport.connectionLost(Failure(ConnectionDone()))
    assert ground.core.deliveries.pending == 0
    again = ground.connect()
    again.say(type="auth", agent_id="lara")
    again.turns()
    tasks = [message["data"][0] for message in again.take() if message.get("event") == "task.created"]
    assert tasks == list(range(1000))


def test_nothing_missed(ground: Ground) -> None:
    """
    An agent that missed nothing gets its ack and goes on.
    """
    away(ground, 0)
    end = ground.connect()
    end.say(type="auth", agent_id="lara")
    end.say(type="ping")
    end.turn()
    end.turn()
    assert [message.get("type", message.get("event")) for message in end.take()] == ["ack", "agent.connected", "pong"]
