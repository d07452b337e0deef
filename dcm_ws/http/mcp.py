"""
C{/mcp}: the Model Context Protocol over streamable HTTP (docs/mcp.md).  A message is passed on to the process that
speaks MCP; nothing of it is read here but its method and its id.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from http import HTTPStatus

import msgspec
from twisted.internet.interfaces import IReactorTime
from twisted.web.server import NOT_DONE_YET, Request

from dcm_ws.core.hub import Hub
from dcm_ws.core.session import Session
from dcm_ws.http.admission import RefusedError
from dcm_ws.http.api import ApiPage, Gate
from dcm_ws.http.mcp_answers import Answer, FirstAnswer, Stream
from dcm_ws.http.mcp_sessions import McpSession, McpSessions, Who, Wishes
from dcm_ws.http.queries import malformed, text, texts, whole
from dcm_ws.http.request_headers import accepted_types, bearer_token, header
from dcm_ws.protocol.channels import Channels
from dcm_ws.protocol.errors import ErrorCode, ProtocolError
from dcm_ws.protocol.gateway import RequestId

PUSHES = ("auto", "channel", "notify", "off")
PER_MINUTE, DATA_MAX = 60, 4_000
"""
Notifications in a minute, and characters of an event's data, if the client does not say: as with C{dcm-ws mcp}.
"""

WISHES_MAX = 20
"""
Values of one parameter.
"""

_PATTERN_MAX = 64


class _Envelope(msgspec.Struct):
    """
    What is read of a message.

    @ivar id: only a request has one, and an answer.
    @ivar method: an answer has none.
    """

    id: RequestId | None = None
    method: str | None = None


_decoder = msgspec.json.Decoder(_Envelope)


class McpPage(ApiPage):
    """
    The endpoint of MCP.
    """

    allowed = ("GET", "POST", "DELETE", "OPTIONS")

    def __init__(
        self,
        wall_ms: Callable[[], int],
        gate: Gate,
        sessions: McpSessions,
        *,
        channels: Channels,
        hub: Hub,
        clock: IReactorTime,
    ) -> None:
        super().__init__(wall_ms, gate)
        self._sessions = sessions
        self._channels = channels
        self._hub = hub
        self._clock = clock

    def answer_call(self, request: Request, session: Session) -> bytes | int:
        agent = session.agent or session.origin.agent_id
        if agent is None:
            raise ProtocolError(
                ErrorCode.TOKEN_REQUIRED, "MCP is for agents: use a token, or in development the parameter agent_id"
            )
        who = Who(agent, session.agent is not None)
        if request.method == b"POST":
            return self._post(request, who)
        found = self._find(request, who)
        if request.method == b"DELETE":
            self._sessions.close(found)
            request.setResponseCode(HTTPStatus.NO_CONTENT)
            return b""
        if not _accepts(request, "text/event-stream"):
            raise _unacceptable("text/event-stream")
        request.setHeader("Mcp-Session-Id", found.id)
        found.listen(Stream(request, self._clock, found.left))
        return NOT_DONE_YET

    def _post(self, request: Request, who: Who) -> bytes | int:
        if not (_accepts(request, "application/json") and _accepts(request, "text/event-stream")):
            raise _unacceptable("application/json and text/event-stream")
        found = self._find(request, who) if header(request, "Mcp-Session-Id") else None
        self._sessions.check_room()
        message, envelope = _read(self.take_body(request))
        if found is not None:
            return self._pass_on(request, found, message, envelope)
        if envelope.method != "initialize" or envelope.id is None:
            raise RefusedError(
                HTTPStatus.BAD_REQUEST, "SESSION_REQUIRED", "Begin with initialize; others need Mcp-Session-Id"
            )
        if self._hub.draining:
            raise ProtocolError(ErrorCode.NOT_AVAILABLE, "The service is about to stop; try again")
        session = self._sessions.open(who, _token(request), self._wishes(request))
        close = partial(self._sessions.close, session)
        answer = FirstAnswer(request, self._clock, self.wall_ms, session=session.id, close=close)
        session.call(envelope.id, message, answer)
        return NOT_DONE_YET

    def _pass_on(self, request: Request, session: McpSession, message: str, envelope: _Envelope) -> bytes | int:
        request.setHeader("Mcp-Session-Id", session.id)
        if envelope.id is None or envelope.method is None:
            session.pass_on(message)
            request.setResponseCode(HTTPStatus.ACCEPTED)
            return b""
        if session.has_call(envelope.id):
            raise RefusedError(
                HTTPStatus.BAD_REQUEST, ErrorCode.INVALID_MESSAGE, "A request with this id waits for its answer"
            )
        self._sessions.check_calls(session)
        session.call(envelope.id, message, Answer(request, self._clock, self.wall_ms))
        return NOT_DONE_YET

    def _find(self, request: Request, who: Who) -> McpSession:
        id = header(request, "Mcp-Session-Id")
        if not id:
            raise RefusedError(HTTPStatus.BAD_REQUEST, "SESSION_REQUIRED", "Mcp-Session-Id is missing")
        session = self._sessions.find(id, who, _token(request))
        if session is None:
            raise RefusedError(
                HTTPStatus.NOT_FOUND, "SESSION_UNKNOWN", "There is no such session: begin another one with initialize"
            )
        return session

    def _wishes(self, request: Request) -> Wishes:
        channels, events, senders = (texts(request, name) for name in ("channel", "event", "from"))
        for name, values in (("channel", channels), ("event", events), ("from", senders)):
            if len(values) > WISHES_MAX or any(len(value) > _PATTERN_MAX for value in events):
                raise malformed(name, f"use {WISHES_MAX} at most, of {_PATTERN_MAX} characters")
        for channel in channels:
            self._channels.parse(channel)
        push = text(request, "push") or "auto"
        if push not in PUSHES:
            raise malformed("push", f"use {', '.join(PUSHES)}")
        return Wishes(
            channels,
            events,
            senders,
            text(request, "from_unnamed") in ("1", "true"),
            push,
            whole(request, "push_rate", 1, 6_000) or PER_MINUTE,
            whole(request, "max_data", 100, 1_000_000) or DATA_MAX,
        )


def _read(body: bytes) -> tuple[str, _Envelope]:
    """
    @raise ProtocolError: it is not a message of JSON-RPC.
    """
    try:
        return body.decode(), _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ProtocolError(ErrorCode.PARSE_ERROR, "The body is not a message of JSON-RPC in UTF-8") from None


def _token(request: Request) -> str | None:
    return text(request, "token") or bearer_token(header(request, "Authorization")) or None


def _accepts(request: Request, kind: str) -> bool:
    types = accepted_types(header(request, "Accept"))
    return any(types.get(one, 0.0) > 0 for one in (kind, f"{kind.partition('/')[0]}/*", "*/*"))


def _unacceptable(kinds: str) -> RefusedError:
    return RefusedError(HTTPStatus.NOT_ACCEPTABLE, "NOT_ACCEPTABLE", f"Accept has to list {kinds}")
