"""
C{/mcp}, without a port and without the process that speaks MCP.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.error import ConnectionLost
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from dcm_ws.http.bodies import Bodies
from dcm_ws.http.mcp import McpPage
from dcm_ws.http.mcp_answers import BEAT, BEATS, PATIENCE
from dcm_ws.http.mcp_sessions import CALLS_MAX, WAITING_MAX, McpLimits, McpSessions
from dcm_ws.http.partial import PartialMessages
from dcm_ws.protocol.channels import Channels
from dcm_ws.protocol.gateway import Close, Closed, Listening, Message, Open, Renew, Sent, Taken, ToGateway
from dcm_ws.protocol.tokens import sign
from tests.fakes import SECRET, WALL_MS, make_gate
from tests.http.service import Service

IDLE = 100.0
BOTH = "application/json, text/event-stream"
INITIALIZE = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {}}
ANN = sign(SECRET, "ann", None, WALL_MS)
BOB = sign(SECRET, "bob", None, WALL_MS)


class Exchange:
    """
    A connection with one request, and what has come back.
    """

    def __init__(self, protocol: Any, transport: StringTransport) -> None:
        self.protocol = protocol
        self.transport = transport

    @property
    def status(self) -> int:
        return int(self.transport.value().split(b" ")[1])

    @property
    def headers(self) -> dict[str, str]:
        lines = self.transport.value().partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
        return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}

    @property
    def body(self) -> bytes:
        return self.transport.value().partition(b"\r\n\r\n")[2]

    def lose(self) -> None:
        """
        The connection is lost.
        """
        self.transport.connected = False
        self.protocol.connectionLost(Failure(ConnectionLost()))


class Endpoint(Service):
    """
    The endpoint, and what it sends to the process.
    """

    def __init__(self, sessions: int = 5, per_agent: int = 3, **rules: Any) -> None:
        super().__init__(**rules)
        self.sent: list[ToGateway] = []
        self.waiting: int | None = 0
        core, limits = self.core, self.core.counts.limits
        self.sessions = McpSessions(
            McpLimits(sessions, per_agent, IDLE),
            limits,
            send=self.sent.append,
            waiting=lambda: self.waiting,
            now=self.reactor.seconds,
            chance=core.world.random,
        )
        gate = make_gate(core)
        page = McpPage(core.world.wall_ms, gate, self.sessions, channels=Channels(), hub=core.hub, clock=self.reactor)
        self.put(b"mcp", page)
        self.site.bodies = Bodies({b"mcp": 1000}, limits, PartialMessages(1 << 20, limits.max_partial_bytes))

    def request(
        self,
        method: str,
        body: object = None,
        *,
        token: str | None = None,
        session: str | None = None,
        query: str = "",
        accept: str = BOTH,
        more: tuple[str, ...] = (),
    ) -> Exchange:
        content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Host": "x", "Accept": accept}
        headers |= {} if body is None else {"Content-Length": str(len(content))}
        headers |= {} if token is None else {"Authorization": f"Bearer {token}"}
        headers |= {} if session is None else {"Mcp-Session-Id": session}
        protocol: Any = self.site.buildProtocol(None)
        transport = StringTransport()
        protocol.makeConnection(transport)
        lines = "".join(f"{line}\r\n" for line in (*(f"{name}: {value}" for name, value in headers.items()), *more))
        protocol.dataReceived(f"{method} /mcp{query} HTTP/1.1\r\n{lines}\r\n".encode() + content)
        # the site handles some requests in a turn
        self.reactor.advance(0)
        return Exchange(protocol, transport)

    def answer(self, session: int, request: int | str, number: int = 1, *, failed: bool = False) -> None:
        """
        The process answers a request.
        """
        text = json.dumps({"jsonrpc": "2.0", "id": request, "result": {}})
        self.sessions.received(Sent(session, number, text, request, failed))

    def begin(self, token: str = ANN, **more: Any) -> str:
        """
        Begin a session; returns its id.
        """
        asked = self.request("POST", INITIALIZE, token=token, **more)
        opened = [message for message in self.sent if isinstance(message, Open)][-1]
        self.answer(opened.session, 0)
        assert asked.status == 200
        return asked.headers["mcp-session-id"]


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint()


def test_first_request(endpoint: Endpoint) -> None:
    """
    It begins a session of the token's agent, which the process gets with what the client wants, and is answered when
    the process answers.
    """
    query = "?channel=topics/a&channel=topics/b&event=task.*&from=bob&from_unnamed=1"
    query += "&push=channel&push_rate=600&max_data=100"
    asked = endpoint.request("POST", INITIALIZE, token=ANN, query=query)
    assert endpoint.sent == [
        Open(1, "ann", ANN, ["topics/a", "topics/b"], ["task.*"], ["bob"], True, "channel", 600, 100),
        Message(1, json.dumps(INITIALIZE)),
    ]
    assert not asked.transport.value()
    endpoint.answer(1, 0)
    assert (asked.status, json.loads(asked.body)["result"]) == (200, {})
    assert asked.headers["content-type"] == "application/json"
    assert endpoint.sent[-1] == Taken(1, 1, True)


def test_messages_of_a_session(endpoint: Endpoint) -> None:
    """
    Requests are answered, whatever their order; notifications and answers of the client are accepted.
    """
    session = endpoint.begin()
    first, second = (
        endpoint.request("POST", {"id": name, "method": "tools/list"}, token=ANN, session=session) for name in (7, "x")
    )
    endpoint.answer(1, "x", 2)
    assert second.status == 200 and not first.transport.value()
    endpoint.answer(1, 7, 3)
    assert json.loads(first.body)["id"] == 7
    for body in ({"method": "notifications/initialized"}, {"id": 9, "result": {}}):
        told = endpoint.request("POST", body, token=ANN, session=session)
        assert (told.status, told.body) == (202, b"")
        assert endpoint.sent[-1] == Message(1, json.dumps(body))


def test_answer_that_takes_long(endpoint: Endpoint) -> None:
    """
    After a while it becomes a stream, with signs of life until it is there.
    """
    session = endpoint.begin()
    asked = endpoint.request("POST", {"id": 1, "method": "tools/call"}, token=ANN, session=session)
    endpoint.reactor.advance(PATIENCE)
    assert (asked.status, asked.headers["content-type"]) == (200, "text/event-stream")
    endpoint.reactor.advance(BEAT)
    assert asked.body.count(b": \n\n") == 2
    endpoint.answer(1, 1, 2)
    assert b'event: message\ndata: {"jsonrpc": "2.0", "id": 1, "result": {}}\n\n' in asked.body
    assert asked.body.endswith(b"0\r\n\r\n") and endpoint.sent[-1] == Taken(1, 2, True)
    whole = asked.body
    endpoint.reactor.advance(BEAT)
    assert asked.body == whole


def test_client_that_is_gone_before_the_answer(endpoint: Endpoint) -> None:
    """
    The process learns that the client has not got the answer.
    """
    session = endpoint.begin()
    asked = endpoint.request("POST", {"id": 1, "method": "tools/call"}, token=ANN, session=session)
    asked.lose()
    endpoint.answer(1, 1, 2)
    assert endpoint.sent[-1] == Taken(1, 2, False)


def test_stream(endpoint: Endpoint) -> None:
    """
    It gets the notifications, until the client is gone; without one, the process learns that nobody gets them.
    """
    session = endpoint.begin()
    endpoint.sessions.received(Sent(1, 2, "{}"))
    assert endpoint.sent[-1] == Taken(1, 2, False)
    stream = endpoint.request("GET", token=ANN, session=session)
    assert (stream.status, stream.headers["content-type"]) == (200, "text/event-stream")
    assert endpoint.sent[-1] == Listening(1, True)  # type: ignore[comparison-overlap]
    endpoint.sessions.received(Sent(1, 3, '{"method":"x"}'))
    assert stream.body.count(b'data: {"method":"x"}\n\n') == 1 and endpoint.sent[-1] == Taken(1, 3, True)
    stream.lose()
    assert endpoint.sent[-1] == Listening(1, False)  # type: ignore[comparison-overlap]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_client_that_closes_its_side(endpoint: Endpoint, method: str) -> None:
    """
    It has gone, and gets nothing more.
    """
    session = endpoint.begin()
    body = {"id": 1, "method": "tools/call"} if method == "POST" else None
    asked = endpoint.request(method, body, token=ANN, session=session)
    asked.protocol.readConnectionLost()
    assert asked.transport.disconnected
    asked.lose()
    endpoint.sessions.received(Sent(1, 2, "{}", 1 if body else None))
    assert endpoint.sent[-1] == Taken(1, 2, False)


@pytest.mark.parametrize("header,read", [("Connection: close", True), ("Connection: keep-alive", False)])
def test_connection_that_ends_with_the_answer(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, header: str, read: bool
) -> None:
    """
    If the connection ends before the client's system has acknowledged the answer, the client may not have got it,
    unless the service has closed it after the last byte.
    """
    session = endpoint.begin()
    asked = endpoint.request("POST", {"id": 1, "method": "tools/call"}, token=ANN, session=session, more=(header,))
    monkeypatch.setattr("dcm_ws.http.mcp_answers.unacknowledged", lambda transport: True)
    endpoint.answer(1, 1, 2)
    assert not isinstance(endpoint.sent[-1], Taken) or endpoint.sent[-1].number != 2
    asked.lose()
    endpoint.reactor.advance(1)
    assert endpoint.sent[-1] == Taken(1, 2, read)


def test_second_stream(endpoint: Endpoint) -> None:
    """
    It replaces the first one, whose connection may be dead.
    """
    session = endpoint.begin()
    first, second = (endpoint.request("GET", token=ANN, session=session) for _ in range(2))
    assert first.body.endswith(b"0\r\n\r\n")
    endpoint.sessions.received(Sent(1, 2, '{"method":"x"}'))
    assert b'"x"' in second.body and b'"x"' not in first.body
    assert Listening(1, False) not in endpoint.sent


def test_client_that_reads_nothing(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    If the client's system acknowledges nothing, its stream is dropped, and the notification was not read.
    """
    session = endpoint.begin()
    stream = endpoint.request("GET", token=ANN, session=session)
    for name in ("unacknowledged", "unsent"):
        monkeypatch.setattr(f"dcm_ws.http.mcp_answers.{name}", lambda transport: True)
    endpoint.sessions.received(Sent(1, 2, "{}"))
    before = stream.body
    for _ in range(BEATS):
        assert not stream.transport.disconnected
        endpoint.reactor.advance(BEAT)
    assert stream.transport.disconnecting or stream.transport.disconnected
    assert stream.body == before
    stream.lose()
    endpoint.reactor.advance(1)
    assert endpoint.sent[-2:] == [Listening(1, False), Taken(1, 2, False)]


def test_end_of_a_session(endpoint: Endpoint) -> None:
    """
    DELETE ends a session, with its streams and its requests; afterwards it is unknown.
    """
    session = endpoint.begin()
    stream = endpoint.request("GET", token=ANN, session=session)
    late = endpoint.request("POST", {"id": 1, "method": "tools/call"}, token=ANN, session=session)
    endpoint.reactor.advance(PATIENCE)
    soon = endpoint.request("POST", {"id": 2, "method": "tools/call"}, token=ANN, session=session)
    assert endpoint.request("DELETE", token=ANN, session=session).status == 204
    assert Close(1) in endpoint.sent and not len(endpoint.sessions)
    assert stream.body.endswith(b"0\r\n\r\n") and late.body.endswith(b"0\r\n\r\n") and soon.status == 404
    for method, body in (("DELETE", None), ("GET", None), ("POST", {"id": 3, "method": "ping"})):
        gone = endpoint.request(method, body, token=ANN, session=session)
        assert (gone.status, json.loads(gone.body)["code"]) == (404, "SESSION_UNKNOWN")
    # what the process has sent meanwhile
    endpoint.answer(1, 1, 2)
    endpoint.sessions.received(Closed(1, "x"))


def test_process_ends_a_session(endpoint: Endpoint) -> None:
    """
    It is over when the service does not accept its agent any more, and all are when the process has ended.
    """
    session, other = endpoint.begin(), endpoint.begin(BOB)
    stream = endpoint.request("GET", token=ANN, session=session)
    endpoint.sessions.received(Closed(1, "kicked"))
    assert stream.body.endswith(b"0\r\n\r\n")
    assert endpoint.request("GET", token=ANN, session=session).status == 404
    endpoint.sessions.close_all()
    assert endpoint.request("GET", token=BOB, session=other).status == 404


def test_whose_session_it_is(endpoint: Endpoint) -> None:
    """
    Another agent does not find it, nor does a client without a token that says it is the same agent; a newer token of
    the agent is used from then on.
    """
    session = endpoint.begin()
    ping = {"id": 1, "method": "ping"}
    assert endpoint.request("POST", ping, token=BOB, session=session).status == 404
    assert endpoint.request("POST", ping, session=session, query="?agent_id=ann").status == 404
    newer = sign(SECRET, "ann", None, WALL_MS + 1)
    before = len(endpoint.sent)
    endpoint.request("POST", ping, token=newer, session=session)
    assert endpoint.sent[before:] == [Renew(1, newer), Message(1, json.dumps(ping))]


def test_development(endpoint: Endpoint) -> None:
    """
    Without a token, the query names the agent, as for other calls; it has to.
    """
    endpoint.request("POST", INITIALIZE, query="?agent_id=eve")
    assert endpoint.sent[0] == Open(1, "eve", None, [], [], [], False, "auto", 60, 4_000)
    assert endpoint.request("POST", INITIALIZE).status == 401


def test_production() -> None:
    """
    Only a token opens a session.
    """
    endpoint = Endpoint(production=True)
    assert endpoint.request("POST", INITIALIZE, query="?agent_id=eve").status == 401
    assert endpoint.request("POST", INITIALIZE, token=ANN + "x").status == 401
    assert not endpoint.sent
    endpoint.begin()


def test_too_many_sessions() -> None:
    """
    Of one agent, and in all; each is counted, and nothing is begun.
    """
    endpoint = Endpoint(sessions=4, per_agent=3)
    sessions = [endpoint.begin() for _ in range(3)]
    limits = endpoint.core.counts.limits
    assert endpoint.request("POST", INITIALIZE, token=ANN).status == 429
    endpoint.begin(BOB)
    assert endpoint.request("POST", INITIALIZE, token=BOB).status == 503
    assert (limits.max_mcp_per_agent.value, limits.max_mcp_sessions.value, len(endpoint.sessions)) == (1, 1, 4)
    endpoint.request("DELETE", token=ANN, session=sessions[0])
    endpoint.begin(BOB)


def test_too_many_requests(endpoint: Endpoint) -> None:
    """
    Only so many of a session may wait for their answers; and each has an id of its own.
    """
    session = endpoint.begin()
    for number in range(CALLS_MAX):
        endpoint.request("POST", {"id": number, "method": "tools/call"}, token=ANN, session=session)
    before = len(endpoint.sent)
    assert endpoint.request("POST", {"id": "x", "method": "ping"}, token=ANN, session=session).status == 429
    assert endpoint.request("POST", {"id": 1, "method": "ping"}, token=ANN, session=session).status == 400
    assert len(endpoint.sent) == before and endpoint.core.counts.limits.max_mcp_calls.value == 1
    endpoint.answer(1, 1, 2)
    assert not endpoint.request("POST", {"id": 1, "method": "ping"}, token=ANN, session=session).transport.value()


def test_idle_session(endpoint: Endpoint) -> None:
    """
    A session ends when it has had no request and no stream for so long.
    """
    session = endpoint.begin()
    stream = endpoint.request("GET", token=ANN, session=session)
    endpoint.reactor.advance(IDLE)
    endpoint.sessions.sweep()
    stream.lose()
    endpoint.reactor.advance(IDLE - 1)
    endpoint.sessions.sweep()
    endpoint.request("POST", {"method": "notifications/x"}, token=ANN, session=session)
    endpoint.reactor.advance(IDLE - 1)
    endpoint.sessions.sweep()
    assert len(endpoint.sessions) == 1
    endpoint.reactor.advance(1)
    endpoint.sessions.sweep()
    assert not len(endpoint.sessions) and endpoint.core.counts.limits.mcp_idle.value == 1


def test_session_that_could_not_begin(endpoint: Endpoint) -> None:
    """
    If the answer to the first request is an error, there is no session.
    """
    asked = endpoint.request("POST", INITIALIZE, token=ANN)
    endpoint.answer(1, 0, failed=True)
    assert asked.status == 200 and "mcp-session-id" not in asked.headers
    assert not len(endpoint.sessions)


def test_session_that_takes_long_to_begin(endpoint: Endpoint) -> None:
    """
    The stream that its client gets in place of an answer has its id; if it cannot begin after all, it is over.
    """
    asked, failing = (endpoint.request("POST", INITIALIZE, token=ANN) for _ in range(2))
    endpoint.reactor.advance(PATIENCE)
    endpoint.answer(1, 0)
    assert asked.headers["content-type"] == "text/event-stream" and b'"result"' in asked.body
    listing = {"id": 1, "method": "tools/list"}
    session = asked.headers["mcp-session-id"]
    endpoint.request("POST", listing, token=ANN, session=session)
    assert endpoint.sent[-1] == Message(1, json.dumps(listing))
    endpoint.answer(2, 0, failed=True)
    session = failing.headers["mcp-session-id"]
    assert endpoint.request("POST", listing, token=ANN, session=session).status == 404
    assert len(endpoint.sessions) == 1


@pytest.mark.parametrize("patience", [0, PATIENCE])
def test_client_that_is_gone_before_its_session_begins(endpoint: Endpoint, patience: float) -> None:
    """
    The session is over: nobody knows its id.
    """
    asked = endpoint.request("POST", INITIALIZE, token=ANN)
    endpoint.reactor.advance(patience)
    asked.lose()
    assert not len(endpoint.sessions) and endpoint.sent[-1] == Close(1)
    endpoint.answer(1, 0)
    assert endpoint.sent[-1] == Close(1)


def test_process_is_away(endpoint: Endpoint) -> None:
    """
    While the process is being started again, or reads nothing, no message is taken.
    """
    session = endpoint.begin()
    before = list(endpoint.sent)
    for endpoint.waiting, counted in ((None, 0), (WAITING_MAX + 1, 2)):
        for body, given in ((INITIALIZE, None), ({"method": "notifications/x"}, session)):
            assert endpoint.request("POST", body, token=ANN, session=given).status == 503
        assert endpoint.core.counts.limits.max_mcp_waiting.value == counted
    assert len(endpoint.sessions) == 1 and endpoint.sent == before
    endpoint.waiting = WAITING_MAX
    endpoint.begin()


def test_stopping(endpoint: Endpoint) -> None:
    """
    A service that is about to stop begins no sessions.
    """
    endpoint.core.hub.draining = True
    assert endpoint.request("POST", INITIALIZE, token=ANN).status == 503


@pytest.mark.parametrize(
    "method,body,more,status",
    [
        ("POST", b"{", {}, 400),
        ("POST", b"[]", {}, 400),
        ("POST", b'{"id":0,"method":"initialize","x":"\xff"}', {}, 400),
        ("POST", b"[" * 900, {}, 400),
        ("POST", None, {}, 400),
        ("POST", b"x" * 1001, {}, 413),
        ("POST", {"id": 1, "method": "tools/list"}, {}, 400),
        ("POST", {"method": "initialize"}, {}, 400),
        ("POST", {"id": True, "method": "initialize"}, {}, 400),
        ("POST", INITIALIZE, {"accept": "application/json"}, 406),
        ("POST", INITIALIZE, {"accept": "text/event-stream;q=0, */json"}, 406),
        ("POST", INITIALIZE, {"query": "?channel=nonsense"}, 400),
        ("POST", INITIALIZE, {"query": "?push=often"}, 400),
        ("POST", INITIALIZE, {"query": "?push_rate=0"}, 400),
        ("POST", INITIALIZE, {"query": "?max_data=99"}, 400),
        ("POST", INITIALIZE, {"query": f"?event={'x' * 65}"}, 400),
        ("POST", INITIALIZE, {"query": "?" + "&".join(["from=a"] * 21)}, 400),
        ("POST", INITIALIZE, {"session": "unknown"}, 404),
        ("GET", None, {}, 400),
        ("GET", None, {"session": "unknown"}, 404),
        ("DELETE", None, {}, 400),
        ("PUT", None, {}, 405),
    ],
)
def test_invalid_requests(endpoint: Endpoint, method: str, body: object, more: dict[str, Any], status: int) -> None:
    """
    Each has a clear answer, and begins nothing.
    """
    answered = endpoint.request(method, body, token=ANN, **more)
    assert answered.status == status, answered.body
    assert not endpoint.sent and not len(endpoint.sessions)


def test_stream_for_clients_that_cannot_read_it(endpoint: Endpoint) -> None:
    """
    A stream is only for clients that accept one.
    """
    session = endpoint.begin()
    assert endpoint.request("GET", token=ANN, session=session, accept="application/json").status == 406
    assert endpoint.request("GET", token=ANN, session=session, accept="*/*").status == 200
