"""
Streams as server-sent events: for Durable Streams clients (1.0, section 5.8), and for a plain C{EventSource}.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from dcm_ws.http import event_stream
from dcm_ws.http.encodings import Encoding
from dcm_ws.http.event_stream import EventStream
from dcm_ws.protocol.channels import parse_channel
from dcm_ws.protocol.errors import CloseCode, ErrorCode
from dcm_ws.protocol.offsets import Offset
from dcm_ws.protocol.tokens import sign
from tests.core.latelog import LateLog
from tests.fakes import SECRET, WALL_MS
from tests.http.streaming import Far, Ground, events_of

PLAIN = {"Accept": "text/event-stream"}


def at(pos: int, epoch: str = "epoch") -> str:
    return str(Offset(epoch, pos))


@pytest.fixture
def ground() -> Ground:
    return Ground()


def read(far: Far) -> list[Any]:
    """
    What a Durable Streams client gets: lists of data, and between them how far it is.
    """
    found: list[Any] = []
    for event in far.events():
        if event.get("event") == "data":
            found.append([message["data"] for message in json.loads(event["data"])])
        elif event.get("event") == "control":
            control = json.loads(event["data"])
            assert control["streamCursor"].isdigit()
            assert event["id"] == control["streamNextOffset"]
            found.append((control["streamNextOffset"], control.get("upToDate", False)))
    return found


def messages(far: Far) -> list[tuple[Any, str]]:
    """
    What an C{EventSource} gives to its page: data, and the id.
    """
    return [(json.loads(event["data"])["data"], event["id"]) for event in far.events() if "data" in event]


def test_head_of_the_response(ground: Ground) -> None:
    """
    The response is one that proxies pass on as it comes.
    """
    far = ground.connect()
    far.ask("topics/a?offset=-1&live=sse")
    status, headers, _ = far.response()
    assert status == 200
    assert headers["content-type"] == "text/event-stream"
    assert headers["transfer-encoding"] == "chunked"
    assert headers["connection"] == "close"
    assert "no-cache" in headers["cache-control"]
    assert headers["x-accel-buffering"] == "no"
    assert headers["x-content-type-options"] == "nosniff"
    assert "content-length" not in headers


def test_catch_up_and_then_live(ground: Ground) -> None:
    """
    A client gets what the log has, learns that this is all, and then gets each event as it comes.
    """
    ground.publish(1, 2)
    far = ground.connect()
    far.ask(f"topics/a?offset={at(0)}&live=sse")
    assert read(far) == [[1, 2], (at(2), True)]
    ground.publish(3)
    ground.publish("other", channel="topics/b")
    ground.publish("not logged", event="agent.heartbeat")
    ground.publish("latest", event="metric.update")
    far.turn()
    assert read(far) == [[3], (at(3), True)]


def test_empty_stream(ground: Ground) -> None:
    """
    The first thing that a client learns of an empty stream is where it ends.
    """
    for offset in ("-1", "now"):
        far = ground.connect()
        far.ask(f"topics/a?offset={offset}&live=sse")
        assert read(far) == [(at(0), True)]


def test_long_catch_up(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Much that is missed comes in several events, each with its place, and only the last one is up to date.
    """
    monkeypatch.setattr(event_stream, "BATCH_MESSAGES", 3)
    ground.publish(*range(7))
    far = ground.connect()
    far.ask("topics/a?offset=-1&live=sse")
    far.turns()
    assert read(far) == [[0, 1, 2], (at(3), False), [3, 4, 5], (at(6), False), [6], (at(7), True)]


def test_seam(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What is published while a client catches up comes once, and in order.
    """
    monkeypatch.setattr(event_stream, "BATCH_BYTES", 1)
    ground.publish(*("x" * 50_000 for _ in range(10)))
    far = ground.connect()
    far.socket.room = 60_000
    far.ask("topics/a?offset=-1&live=sse")
    numbers = iter(range(1000))
    for _ in range(30):
        ground.publish(next(numbers))
        far.socket.room += 40_000
        far.turns(6)
    far.socket.room = 1 << 40
    far.turns()
    ground.publish("end")
    far.turns()
    got = read(far)
    data = [one for part in got if isinstance(part, list) for one in part]
    assert data == ["x" * 50_000] * 10 + list(range(30)) + ["end"]
    places = [part[0] for part in got if isinstance(part, tuple)]
    assert places == sorted(places)
    assert got[-1] == (at(41), True)


def test_plain_event_source(ground: Ground) -> None:
    """
    An C{EventSource} without any parameter gets each new event as a message, with an id.
    """
    ground.publish("old")
    far = ground.connect()
    far.ask("topics/a", **PLAIN)
    ground.publish(1, 2)
    far.turn()
    assert messages(far) == [(1, at(2)), (2, at(3))]
    far.ask("ignored")
    far.turn()
    assert far.take() == b""


def test_event_source_that_reconnects(ground: Ground) -> None:
    """
    A browser that reconnects gets what it has missed, whatever offset its URL has.
    """
    ground.publish(1, 2, 3)
    for query in ("", "?offset=now", "?offset=-1"):
        far = ground.connect()
        far.ask(f"topics/a{query}", **PLAIN, Last_Event_ID=at(1))
        assert messages(far) == [(2, at(2)), (3, at(3))]
    far = ground.connect()
    far.ask("topics/a?offset=now&live=sse", Last_Event_ID=at(2))
    assert read(far) == [[3], (at(3), True)]
    far = ground.connect()
    far.ask("topics/a?offset=-1", **PLAIN)
    assert messages(far) == [(1, at(1)), (2, at(2)), (3, at(3))]


def test_event_source_learns_of_a_gap(ground: Ground) -> None:
    """
    A browser whose place is gone is told so by an event, since it would not come back after an error; it goes on with
    what there is.
    """
    ground.publish(1)
    far = ground.connect()
    far.ask("topics/a", **PLAIN, Last_Event_ID=at(7, "other"))
    gap, *rest = [event for event in far.events() if "data" in event]
    assert (gap["event"], json.loads(gap["data"])) == ("gap", {"reason": "epoch", "offset": at(0)})
    assert [json.loads(event["data"])["data"] for event in rest] == [1]
    # a page that opens another one gives the place in the URL
    far = ground.connect()
    far.ask(f"topics/a?offset={at(7, 'other')}", **PLAIN)
    assert next(event for event in far.events() if "data" in event) == gap
    assert ground.connect().get("topics/a", **PLAIN, Last_Event_ID="nonsense")[0] == 400
    assert ground.connect().get("topics/a?offset=-1&live=sse", Last_Event_ID=at(7, "other"))[0] == 410


def test_event_source_before_the_log_is_known(ground: Ground) -> None:
    """
    A browser that reconnects while the service starts is sent back, since it would give up at an error; other clients
    get the error.
    """
    ground.publish(1)
    log: Any = ground.core.log
    log.is_known = False
    for query in ("", "?offset=-1&live=sse"):
        status, headers, body = ground.connect().get(f"topics/a{query}", **PLAIN, Last_Event_ID=at(0))
        assert (status, headers["content-type"]) == (200, "text/event-stream")
        assert body.startswith(b": NOT_AVAILABLE: ") and body.endswith(b"\nretry:1000\n\n")
    status, headers, _ = ground.connect().get("topics/a?offset=-1&live=sse")
    assert (status, headers["retry-after"]) == (503, "1")
    log.is_known = True
    far = ground.connect()
    far.ask("topics/a", **PLAIN, Last_Event_ID=at(0))
    assert messages(far) == [(1, at(1))]


def test_event_source_beyond_a_limit() -> None:
    """
    A browser that is refused because of a limit comes back when the error may have passed; other clients get the error.
    """
    ground = Ground(production=True, rate_limit=0.5, rate_burst=2, per_address=1)
    good = {"Authorization": f"Bearer {sign(SECRET, 'ann', None, WALL_MS)}"}
    first = ground.connect()
    first.ask("topics/a", **PLAIN, **good)
    assert first.response()[0] == 200
    status, headers, body = ground.connect().get("topics/a", **PLAIN, **good)
    assert (status, headers["content-type"], headers["cache-control"]) == (200, "text/event-stream", "no-store")
    assert body.startswith(b": TOO_MANY_CONNECTIONS: ") and body.endswith(b"\nretry:3000\n\n")
    status, _, body = ground.connect().get("topics/a", **PLAIN, **good)
    assert (status, body.splitlines()[0][:15], body.splitlines()[1]) == (200, b": RATE_LIMITED:", b"retry:2000")
    assert ground.core.counts.refusals[ErrorCode.RATE_LIMITED] == 1
    # at once is too soon for a browser
    ground.reactor.advance(1.9)
    assert ground.connect().get("topics/a", **PLAIN, **good)[2].splitlines()[1] == b"retry:1000"
    # what does not pass is an error
    assert ground.connect().get("topics/a", **PLAIN)[0] == 401
    for target, accept in (("topics/a?offset=-1&live=sse", {}), ("topics/a?offset=-1&live=long-poll", PLAIN)):
        assert ground.connect().get(target, **accept, **good)[0] == 429
    far = ground.connect()
    far.ask("topics/a", method="HEAD", **PLAIN, **good)
    assert far.take().startswith(b"HTTP/1.1 429 ")


def test_http_1_0(ground: Ground) -> None:
    """
    A proxy that speaks HTTP/1.0 gets the same without chunks, until the connection ends.
    """
    ground.publish(1)
    far = ground.connect()
    far.ask("topics/a?offset=-1", version="1.0", **PLAIN)
    head, _, body = far.take().partition(b"\r\n\r\n")
    assert b"chunked" not in head
    ground.publish(2)
    (session,) = ground.core.clients.sessions
    ground.core.hub.close(session, CloseCode.RESTART)
    far.turn()
    body += far.take()
    assert [json.loads(event["data"])["data"] for event in events_of(body) if "data" in event] == [1, 2]
    assert far.socket.closed


def test_hostile_data(ground: Ground) -> None:
    """
    A publisher cannot end an event, or begin another one, with line breaks in its JSON.
    """
    far, plain = ground.connect(), ground.connect()
    far.ask("topics/a?offset=now&live=sse")
    plain.ask("topics/a", **PLAIN)
    ground.core.application_hub.publish(parse_channel("topics/a"), "session.created", b'{"a":\r\n\r\n\n\n1}')
    far.turn()
    assert read(far) == [(at(0), True), [{"a": 1}], (at(1), True)]
    assert messages(plain) == [({"a": 1}, at(1))]


def test_one_encoding_for_all(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    An event is encoded once for all clients of a kind, and written once per client and turn of the reactor.
    """
    ends = [ground.connect() for _ in range(20)]
    for number, far in enumerate(ends):
        far.ask("topics/a?offset=now&live=sse" if number % 2 else "topics/a", **({} if number % 2 else PLAIN))
        far.take()
    encoded: list[bytes] = []
    encode = Encoding.encode

    def count(self: Encoding, frame: bytes, *, up_to_date: bool) -> bytes:
        encoded.append(frame)
        return encode(self, frame, up_to_date=up_to_date)

    monkeypatch.setattr(Encoding, "encode", count)
    ground.publish(1, 2, 3)
    ground.reactor.advance(0)
    assert len(encoded) == 6
    assert [len(far.socket.sent) for far in ends] == [1] * 20


def test_cursors(ground: Ground) -> None:
    """
    A client whose cursor is not in the past gets greater ones, until time has caught up.
    """
    # cursors begin in October 2024
    ground.reactor.advance(30_000_000)
    far = ground.connect()
    far.ask("topics/a?offset=now&live=sse")
    (cursor,) = [json.loads(event["data"])["streamCursor"] for event in far.events() if "data" in event]
    later = ground.connect()
    later.ask(f"topics/a?offset=now&live=sse&cursor={cursor}")
    ground.publish(1)
    later.turn()
    cursors = [json.loads(e["data"])["streamCursor"] for e in later.events() if e.get("event") == "control"]
    assert len(cursors) == 2
    assert all(int(one) > int(cursor) for one in cursors)
    ground.reactor.advance(7200)
    ground.publish(2)
    later.turn()
    (last,) = [json.loads(e["data"])["streamCursor"] for e in later.events() if e.get("event") == "control"]
    assert int(last) == int(cursor) + 360


def test_slow_client(ground: Ground) -> None:
    """
    A client that does not read is closed when too much waits for it, like a WebSocket.
    """
    far = ground.connect()
    far.ask("topics/a?offset=now&live=sse")
    far.take()
    far.socket.room = 10_000
    for number in range(60):
        ground.publish([number, "x" * 10_000])
        ground.reactor.advance(0)
    assert ground.core.clients.sessions == set()
    assert ground.core.counts.limits.max_send_buffer.value == 1
    assert ground.core.counts.closes[CloseCode.TOO_SLOW] == 1
    far.turns(300)
    assert far.socket.closed
    assert (len(ground.streams), len(ground.share)) == (0, 0)


def test_client_that_catches_up_slowly(ground: Ground) -> None:
    """
    A client that reads slowly what the log has is not closed: no more is read for it than it takes.
    """
    ground.publish(*([number, "x" * 10_000] for number in range(60)))
    far = ground.connect()
    far.socket.room = 10_000
    far.ask("topics/a?offset=-1&live=sse")
    far.turns(100)
    assert len(ground.core.clients.sessions) == 1
    for _ in range(100):
        far.socket.room += 10_000
        far.turns(6)
    data = [one[0] for part in read(far) if isinstance(part, list) for one in part]
    assert data == list(range(60))


def test_events_lost_meanwhile() -> None:
    """
    If events leave the log before a client has read them, its stream ends; it is told of the gap when it comes back.
    """
    ground = Ground(max_events=300)
    ground.publish(*([number, "x" * 5_000] for number in range(300)))
    far = ground.connect()
    far.socket.room = 10_000
    far.ask("topics/a?offset=-1&live=sse")
    ground.publish(*([number, "x" * 5_000] for number in range(300)))
    far.socket.room = 1 << 40
    far.turns(100)
    parts = read_until_end(far)
    place = [part[0] for part in parts if isinstance(part, tuple)][-1]
    assert far.socket.closed
    assert ground.connect().get(f"topics/a?offset={place}&live=sse")[0] == 410
    assert ground.core.clients.sessions == set()


def read_until_end(far: Far) -> list[Any]:
    """
    The same as L{read}, of a stream that has ended in order.
    """
    data = b"".join(far.socket.sent)
    assert data.endswith(b"\r\n0\r\n\r\n")
    far.socket.sent = [data.removesuffix(b"0\r\n\r\n")]
    return read(far)


def test_end_of_the_service(ground: Ground) -> None:
    """
    When the service stops, a stream ends after what was queued, and says when to come back: not all at once.
    """
    waits = set()
    for _ in range(5):
        far = ground.connect()
        far.ask("topics/a?offset=now&live=sse")
        ground.publish(1)
        (session,) = ground.core.clients.sessions
        ground.core.hub.close(session, CloseCode.RESTART)
        far.turn()
        data = b"".join(far.socket.sent)
        assert b'"data":1' in data
        assert data.endswith(b"\r\n0\r\n\r\n")
        far.socket.sent = [data.removesuffix(b"0\r\n\r\n")]
        waits.add(far.events()[-1]["retry"])
        assert far.socket.closed
    assert len(waits) > 1
    assert all(500 <= int(wait) < 3500 for wait in waits)
    assert (len(ground.streams), len(ground.share)) == (0, 0)


def test_another_log(ground: Ground) -> None:
    """
    When the log becomes another one, streams end.
    """
    far = ground.connect()
    far.ask("topics/a?offset=now&live=sse")
    ground.core.hub.reset()
    list(ground.core.hub.sweep())
    far.turn()
    assert far.socket.closed


def test_heartbeats() -> None:
    """
    A stream on which nothing happens has a comment from time to time, and the place of the client.
    """
    ground = Ground(heartbeat_interval=30.0, heartbeat_timeout=60.0)
    far, plain = ground.connect(), ground.connect()
    far.ask("topics/a?offset=now&live=sse")
    plain.ask("topics/a", **PLAIN)
    far.take()
    plain.take()
    ground.publish(1, channel="topics/b")
    for _ in range(35):
        ground.reactor.advance(1)
        list(ground.core.hub.sweep())
    far.turn()
    data = far.take()
    assert b": heartbeat\n" in data
    far.socket.sent = [data]
    assert read(far) == [(at(1), True)]
    assert [event for event in plain.events() if "id" in event] == [{"": "heartbeat", "id": at(1)}]


def test_heartbeat_of_a_client_that_catches_up() -> None:
    """
    The heartbeat of a client that is behind says how far it is.
    """
    ground = Ground(log=LateLog, heartbeat_interval=30.0, heartbeat_timeout=60.0)
    log: Any = ground.core.log
    for number in range(2):
        ground.publish(number)
        log.settle()
    far = ground.connect()
    far.ask("topics/a?offset=-1&live=sse")
    for _ in range(35):
        ground.reactor.advance(1)
        list(ground.core.hub.sweep())
    far.turn()
    assert read(far) == [(at(0), False)]
    log.read()
    far.turns()
    assert read(far) == [[0, 1], (at(2), True)]


def test_silent_clients() -> None:
    """
    A client says nothing, and stays as long as its system takes what it is sent; otherwise it is dead.
    """
    ground = Ground(heartbeat_interval=30.0, heartbeat_timeout=60.0)
    alive, dead = ground.connect(), ground.connect()
    for far in (alive, dead):
        far.ask("topics/a?offset=now&live=sse")
    dead.socket.room = 0
    for _ in range(200):
        ground.reactor.advance(1)
        list(ground.core.hub.sweep())
        alive.write()
    assert len(ground.core.clients.sessions) == 1
    assert ground.core.counts.limits.heartbeat_timeout.value == 1
    assert not alive.socket.closed
    dead.turns(300)
    assert dead.socket.closed


def test_token_that_expires() -> None:
    """
    With enforced expiry, a stream ends when its token expires.
    """
    ground = Ground(enforce_expiry=True, production=True)
    token = sign(SECRET, "one", None, WALL_MS, ttl_ms=5000)
    far = ground.connect()
    far.ask("topics/a?offset=now&live=sse", Authorization=f"Bearer {token}")
    for _ in range(4):
        ground.reactor.advance(1)
        list(ground.core.hub.sweep())
    assert not far.socket.closed
    for _ in range(3):
        ground.reactor.advance(1)
        list(ground.core.hub.sweep())
    far.turn()
    assert far.socket.closed
    assert ground.core.counts.closes[CloseCode.AUTHENTICATION_REQUIRED] == 1


def test_client_that_sends_more(ground: Ground) -> None:
    """
    A client has nothing to say after its request: one that goes on sending is dropped.
    """
    far = ground.connect()
    far.ask("topics/a?offset=now&live=sse")
    far.transport._dataReceived(b"x" * event_stream.IGNORED_BYTES)
    far.turn()
    assert not far.socket.closed
    far.transport._dataReceived(b"x")
    far.turn()
    assert far.socket.closed
    assert ground.core.clients.sessions == set()
    assert ground.core.counts.limits.max_ignored.value == 1
    assert ground.core.counts.closes[CloseCode.TOO_BIG] == 1


def test_limit_per_address() -> None:
    """
    Streams and WebSockets of one address have one limit.
    """
    ground = Ground(per_address=2)
    ends = [ground.connect() for _ in range(2)]
    for far in ends:
        far.ask("topics/a?offset=now&live=sse")
    status, _, body = ground.connect().get("topics/a?offset=now&live=sse")
    assert (status, json.loads(body)["code"]) == (503, "TOO_MANY_CONNECTIONS")
    other = ground.connect("192.0.2.2")
    other.ask("topics/a?offset=now&live=sse")
    assert other.take().startswith(b"HTTP/1.1 200 ")
    ends[0].lose()
    again = ground.connect()
    again.ask("topics/a?offset=now&live=sse")
    assert again.take().startswith(b"HTTP/1.1 200 ")


def test_client_that_goes(ground: Ground) -> None:
    """
    Nothing is left of a client that is gone, also if very many go at once.
    """
    ends = [ground.connect() for _ in range(100)]
    for far in ends:
        far.ask("topics/a?offset=now&live=sse")
    assert (len(ground.streams), len(ground.share)) == (100, 100)
    for far in ends:
        far.lose()
    assert (len(ground.streams), len(ground.share)) == (0, 0)
    ground.reactor.advance(1)
    assert (ground.core.clients.sessions, len(ground.core.registry)) == (set(), 0)


def test_service_that_does_not_wait(ground: Ground) -> None:
    """
    What is still open at the end is dropped.
    """
    far = ground.connect()
    far.ask("topics/a?offset=now&live=sse")
    ground.streams.abort()
    far.turn()
    assert far.socket.closed
    assert ground.streams
    assert not len(ground.streams)


def test_peer() -> None:
    """
    What concerns only clients that send messages does nothing.
    """
    ground = Ground()
    far = ground.connect()
    far.ask("topics/a?offset=now&live=sse")
    (session,) = ground.core.clients.sessions
    assert isinstance(session.peer, EventStream)
    far.take()
    session.peer.trust()
    session.peer.stop_reading()
    session.peer.read_on()
    session.peer.offer("name", b"frame")
    far.turn()
    assert far.take() == b""


def test_agent_that_is_disconnected() -> None:
    """
    When an agent is disconnected, its streams end; with its tokens revoked, it cannot open another one.
    """
    ground = Ground(production=True)
    token = {"Authorization": f"Bearer {sign(SECRET, 'one', None, WALL_MS)}"}
    far, other = ground.connect(), ground.connect()
    far.ask("topics/a?offset=now&live=sse", **token)
    other.ask("topics/a?offset=now&live=sse", Authorization=f"Bearer {sign(SECRET, 'two', None, WALL_MS)}")
    ground.core.expulsion.expel("one", lambda done: None)
    far.turn()
    assert far.socket.closed
    again = ground.connect()
    again.ask("topics/a?offset=now&live=sse", **token)
    assert again.take().startswith(b"HTTP/1.1 200 ")
    ground.core.expulsion.expel("one", lambda done: None, revoke=True)
    again.turn()
    assert again.socket.closed
    assert ground.connect().get("topics/a?offset=now&live=sse", **token)[0] == 401
    assert not other.socket.closed
    assert len(ground.streams) == 1
