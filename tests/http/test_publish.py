"""
C{POST /v1/publish}, without a port.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from dcm_ws.http.bodies import Bodies
from dcm_ws.http.partial import Holder, PartialMessages
from dcm_ws.http.publish import PublishPage
from dcm_ws.protocol.errors import ErrorCode
from dcm_ws.protocol.tokens import sign
from tests.core.latelog import LateLog
from tests.fakes import SECRET, WALL_MS, Client, make_gate
from tests.http.service import Service

EVENT = {"channel": "topics/a", "event": "task.created", "data": {"n": 1}}
TOKEN = sign(SECRET, "one", None, WALL_MS)
MAX_EVENT = 1000
MAX_BODY = 3000


class Api(Service):
    """
    A service that publishes, and its connections.
    """

    def __init__(self, *, stranger: int = 0, most_partial: int = 1 << 20, **rules: Any) -> None:
        super().__init__(**rules)
        gate = make_gate(self.core)
        wall_ms, limits = self.core.world.wall_ms, self.core.counts.limits
        later = lambda job: self.reactor.callLater(0, job)  # noqa: E731
        page = PublishPage(wall_ms, gate, self.core.publishing, limits, later=later, max_event=MAX_EVENT)
        self.put(b"v1/publish", page)
        self.partial: PartialMessages[Holder] = PartialMessages(most_partial, limits.max_partial_bytes)
        self.site.bodies = Bodies({b"v1/publish": MAX_BODY}, limits, self.partial, stranger, gate.knows)
        self.listener = Client(self.core)
        self.listener.say(type="subscribe", channel="topics/a")

    def connect(self) -> tuple[Any, StringTransport]:
        """
        An HTTP connection.
        """
        protocol: Any = self.site.buildProtocol(None)
        transport = StringTransport()
        protocol.makeConnection(transport)
        return protocol, transport

    def post(self, body: Any, *headers: str, path: str = "/v1/publish") -> tuple[int, Any]:
        """
        The status and the body of the response to a request.
        """
        _, transport = self.begin(body, *headers, path=path)
        return read(transport)

    def begin(self, body: Any, *headers: str, path: str = "/v1/publish") -> tuple[Any, StringTransport]:
        """
        Send a request.
        """
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = "".join(f"{header}\r\n" for header in (*headers, f"Content-Length: {len(content)}"))
        protocol, transport = self.connect()
        protocol.dataReceived(f"POST {path} HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode() + content)
        return protocol, transport

    def heard(self) -> list[Any]:
        """
        The data of the events that a subscriber of C{topics/a} has received.
        """
        return [frame["data"] for frame in self.listener.peer.take() if frame.get("channel") == "topics/a"]


def read(transport: StringTransport) -> tuple[int, Any]:
    """
    The status and the body of a response.
    """
    head, _, body = transport.value().partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def test_one_event() -> None:
    """
    An event is published with one request, without any header.
    """
    api = Api()
    status, answer = api.post(EVENT)
    assert status == 200
    assert (answer["pos"], answer["timestamp"]) == (1, WALL_MS)
    assert answer["id"].startswith("msg_")
    assert api.heard() == [{"n": 1}]


def test_form_of_curl() -> None:
    """
    The content type is not read: that of C{curl -d} is another one.
    """
    api = Api()
    assert api.post(EVENT, "Content-Type: application/x-www-form-urlencoded")[0] == 200
    assert api.post(EVENT, "Content-Type: multipart/form-data; boundary=x")[0] == 200
    assert len(api.heard()) == 2


def test_event_that_is_not_logged() -> None:
    """
    An event that is not logged has no position.
    """
    assert "pos" not in Api().post(EVENT | {"event": "metric.update"})[1]


def test_several_events() -> None:
    """
    An array of events is answered with an array, in the same order.
    """
    api = Api()
    status, answer = api.post([EVENT | {"data": n} for n in range(3)])
    assert status == 200
    assert [one["pos"] for one in answer] == [1, 2, 3]
    assert api.heard() == [0, 1, 2]
    assert api.post([]) == (200, [])


def test_all_or_nothing() -> None:
    """
    If one event of an array is invalid, none is published, and the error names it.
    """
    api = Api()
    status, answer = api.post([EVENT, EVENT | {"channel": "nowhere"}])
    assert (status, answer["code"]) == (400, "INVALID_CHANNEL")
    assert answer["error"].startswith("Event 1: Invalid channel")
    assert api.heard() == []


@pytest.mark.parametrize("quoted", [False, True])
def test_keys(quoted: bool) -> None:
    """
    An event that is sent again with the same key is not published again; the header is the key of a single event.
    """
    api = Api()
    key = 'Idempotency-Key: "k"' if quoted else "Idempotency-Key: k"
    first = api.post(EVENT, key)[1]
    again = api.post(EVENT, key)[1]
    assert (again["id"], again["pos"], again["duplicate"]) == (first["id"], 1, True)
    assert api.post(EVENT | {"key": "k"})[1]["duplicate"]
    assert [one.get("duplicate") for one in api.post([EVENT | {"key": "k"}, EVENT])[1]] == [True, None]
    assert api.post(EVENT | {"key": "k"}, key)[1]["duplicate"]
    for body, header in ((EVENT | {"key": "l"}, key), ([EVENT], key), (EVENT, f"Idempotency-Key: {'k' * 129}")):
        assert api.post(body, header)[1]["code"] == "INVALID_MESSAGE"
    assert len(api.heard()) == 2


def test_publisher() -> None:
    """
    An event carries the agent whose token published it.
    """
    api = Api(production=True)
    api.listener.say(type="auth", token=TOKEN)
    api.listener.say(type="subscribe", channel="topics/a")
    assert api.post(EVENT)[0] == 401
    assert api.post(EVENT, f"Authorization: Bearer {TOKEN}")[0] == 200
    assert api.post(EVENT, path=f"/v1/publish?token={TOKEN}")[0] == 200
    frames = [frame for frame in api.listener.peer.take() if frame.get("channel") == "topics/a"]
    assert [frame["from"] for frame in frames] == ["one", "one"]


@pytest.mark.parametrize("body", [b"", b"channel=global", b"\xff"])
def test_body_that_is_not_json(body: bytes) -> None:
    """
    A body that is not JSON, or is not there, is refused.
    """
    assert Api().post(body)[1]["code"] == "PARSE_ERROR"


def test_methods() -> None:
    """
    The call is a POST.
    """
    status, headers, _ = Api().get("/v1/publish")
    assert (status, headers["Allow"]) == (405, "POST, OPTIONS")


def test_event_that_is_too_large() -> None:
    """
    One event may be as large as over WebSockets, also in an array; the array may be larger.
    """
    api = Api()
    large = EVENT | {"data": "x" * MAX_EVENT}
    assert api.post(large) == (413, {**api.post(large)[1], "code": "TOO_LARGE"})
    assert api.post([EVENT, large])[0] == 413
    assert api.post([EVENT | {"data": "x" * 900}] * 3)[0] == 200
    assert api.core.counts.limits.max_message_size.value == 3
    assert len(api.heard()) == 3


def test_too_many_events() -> None:
    """
    An array may have 1,000 events.
    """
    api = Api()
    api.site.bodies = api.site.bodies and api.site.bodies._replace(limits={b"v1/publish": 1 << 20})
    assert api.post([EVENT] * 1001)[0] == 413
    assert api.core.counts.limits.max_batch_events.value == 1
    assert api.core.log.head == 0
    assert len(api.post([EVENT] * 1000)[1]) == 1000


@pytest.mark.parametrize("chunked", [False, True])
def test_body_that_is_too_large(chunked: bool) -> None:
    """
    A body that is longer than it may be is not kept; the client may send it to its end, and the connection goes on.
    """
    api = Api()
    protocol, transport = api.connect()
    size = MAX_BODY + 1
    how = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % size
    protocol.dataReceived(b"POST /v1/publish HTTP/1.1\r\nHost: x\r\n%b\r\n\r\n" % how)
    for _ in range(size):
        protocol.dataReceived(b"1\r\nx\r\n" if chunked else b"x")
        api.reactor.advance(0)
        assert api.partial.total <= MAX_BODY
    if chunked:
        protocol.dataReceived(b"0\r\n\r\n")
    assert read(transport)[1]["code"] == "TOO_LARGE"
    assert api.core.counts.limits.max_batch_size.value == 1
    transport.clear()
    api.reactor.advance(0)
    body = json.dumps(EVENT).encode()
    protocol.dataReceived(b"POST /v1/publish HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    assert read(transport)[0] == 200


def test_chunked_body() -> None:
    """
    A body may come in chunks.
    """
    api = Api()
    protocol, transport = api.connect()
    protocol.dataReceived(b"POST /v1/publish HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    for piece in json.dumps(EVENT).encode().partition(b"topics"):
        protocol.dataReceived(b"%x\r\n%b\r\n" % (len(piece), piece))
    assert api.partial.total > 0
    protocol.dataReceived(b"0\r\n\r\n")
    assert read(transport)[0] == 200
    assert api.partial.total == 0


def test_client_that_waits_before_it_sends_the_body() -> None:
    """
    A client that asks first (C{Expect: 100-continue}) is told to go on, or that its body is too large.
    """
    api = Api()
    body = json.dumps(EVENT).encode()
    head = b"POST /v1/publish HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    protocol, transport = api.connect()
    protocol.dataReceived(head % len(body))
    assert transport.value() == b"HTTP/1.1 100 Continue\r\n\r\n"
    transport.clear()
    protocol.dataReceived(body)
    assert read(transport)[0] == 200
    protocol, transport = api.connect()
    protocol.dataReceived(head % (MAX_BODY + 1))
    assert read(transport)[1]["code"] == "TOO_LARGE"
    assert transport.disconnecting


def test_client_that_leaves_in_the_middle() -> None:
    """
    The part of a body of a client that is gone takes no room.
    """
    api = Api()
    protocol, _ = api.connect()
    protocol.dataReceived(b"POST /v1/publish HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n" + b"x" * 50)
    assert api.partial.total == 50
    protocol.connectionLost(Failure(ConnectionDone()))
    assert api.partial.total == 0


def test_no_room_for_all_bodies() -> None:
    """
    If incomplete bodies take too much room together, the largest is dropped, and its client told to try again.
    """
    api = Api(most_partial=1000)
    connections = [api.connect() for _ in range(3)]
    for (protocol, _), size in zip(connections, (500, 400, 300), strict=True):
        protocol.dataReceived(b"POST /v1/publish HTTP/1.1\r\nHost: x\r\nContent-Length: 600\r\n\r\n" + b"x" * size)
    assert api.partial.total == 700
    protocol, transport = connections[0]
    protocol.dataReceived(b"x" * 100)
    status, answer = read(transport)
    assert (status, answer["code"]) == (503, "NOT_AVAILABLE")
    assert api.core.counts.limits.max_partial_bytes.value == 1


def test_strangers_send_short_bodies() -> None:
    """
    In production only a client with a valid token may send a long body.
    """
    api = Api(production=True, stranger=200)
    long = EVENT | {"data": "x" * 500}
    assert api.post(long)[0] == 401
    assert api.post(long, "Authorization: Bearer nonsense")[0] == 401
    assert api.post(long, f"Authorization: Bearer {'x' * 5000}")[0] == 400
    assert api.core.counts.limits.max_stranger_message.value == 3
    assert api.post(long, f"Authorization: Bearer {TOKEN}")[0] == 200
    assert api.post(EVENT, f"Authorization: Bearer {TOKEN}")[0] == 200


def test_rate_limit() -> None:
    """
    Each event of an array counts as a message.
    """
    api = Api(rate_limit=1.0, rate_burst=5.0)
    header = f"Authorization: Bearer {TOKEN}"
    assert api.post([EVENT] * 4, header)[0] == 200
    assert api.post(EVENT, header)[0] == 200
    status, answer = api.post(EVENT, header)
    assert (status, answer["code"], answer["retry_after_ms"]) == (429, "RATE_LIMITED", 1000)


def test_log_that_answers_later() -> None:
    """
    The response comes when the event is in the log.
    """
    api = Api(log=LateLog)
    log: Any = api.core.log
    transports = [api.begin(EVENT)[1], api.begin([EVENT, EVENT])[1]]
    assert [transport.value() for transport in transports] == [b"", b""]
    for _ in range(2):
        log.commit()
    log.answer()
    log.answer()
    assert read(transports[0])[1]["pos"] == 1
    assert transports[1].value() == b""
    log.commit()
    log.answer()
    assert [one["pos"] for one in read(transports[1])[1]] == [2, 3]


def test_log_that_cannot_be_written() -> None:
    """
    If an event cannot be logged, it was not published, and the client may try again.
    """
    api = Api(log=LateLog)
    log: Any = api.core.log
    transports = [api.begin(EVENT)[1], api.begin([EVENT, EVENT])[1]]
    for _ in range(3):
        log.refuse()
    assert [read(transport)[0] for transport in transports] == [503, 503]
    log.most_waiting = 0
    assert api.post([EVENT])[1]["code"] == "NOT_AVAILABLE"
    assert api.heard() == []
    assert api.core.counts.refusals[ErrorCode.NOT_AVAILABLE] == 3
