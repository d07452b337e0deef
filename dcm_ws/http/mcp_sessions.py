"""
The sessions of MCP clients over HTTP: whose they are, how many there may be, and what is under way in each
(docs/mcp.md).
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import NamedTuple, Protocol

from dcm_ws.core.counts import LimitCounts
from dcm_ws.http.admission import RefusedError
from dcm_ws.protocol.errors import ErrorCode, ProtocolError
from dcm_ws.protocol.gateway import (
    Close,
    Closed,
    FromGateway,
    Listening,
    Message,
    Open,
    Renew,
    RequestId,
    Sent,
    Taken,
    ToGateway,
)

WAITING_MAX = 16 << 20
"""
Bytes of messages that may wait for the process that speaks MCP.
"""

CALLS_MAX = 64
"""
Requests of one session that may wait for their answers.
"""

_ID_LENGTH = 32


class Who(NamedTuple):
    """
    Whose session it is.

    @ivar agent: the agent's name.
    @ivar is_verified: a token says so.
    """

    agent: str
    is_verified: bool


class Wishes(NamedTuple):
    """
    What a client wants to receive, as in L{Open}.
    """

    channels: list[str]
    events: list[str]
    senders: list[str]
    unnamed: bool
    push: str
    per_minute: int
    data_max: int


class Receiver(Protocol):
    """
    A request, or a stream, that something is sent to.
    """

    def send(self, sent: Sent, taken: Callable[[bool], object]) -> None:
        """
        Send an answer or a notification.

        @param taken: called with whether the client has got it.
        """

    def end(self) -> None:
        """
        The session is over.
        """


class McpLimits(NamedTuple):
    """
    @ivar sessions: at once.
    @ivar per_agent: of one agent at once.
    @ivar idle: seconds without a request or a stream after which a session ends.
    """

    sessions: int
    per_agent: int
    idle: float


class McpSession:
    """
    A session.

    @param number: counts the sessions.
    @param token: the newest of its agent.

    @ivar id: the secret by which its client names it.
    @ivar stream: receives notifications; None if the client does not.
    @ivar last_used: monotonic seconds of the last request.
    """

    def __init__(
        self, id: str, number: int, who: Who, token: str | None, now: float, send: Callable[[ToGateway], object]
    ) -> None:
        self.id = id
        self.number = number
        self.who = who
        self.last_used = now
        self.stream: Receiver | None = None
        self._token = token
        self._send = send
        self._calls: dict[RequestId, Receiver] = {}

    @property
    def is_busy(self) -> bool:
        """
        Whether a request waits for its answer, or a stream is open.
        """
        return bool(self._calls) or self.stream is not None

    @property
    def calls(self) -> int:
        """
        The number of requests that wait for their answers.
        """
        return len(self._calls)

    def has_call(self, request: RequestId) -> bool:
        """
        Whether a request with this id waits for its answer.
        """
        return request in self._calls

    def renew(self, token: str | None) -> None:
        """
        Use another token from now on.
        """
        if token != self._token:
            self._token = token
            self._send(Renew(self.number, token))

    def call(self, request: RequestId, text: str, receiver: Receiver) -> None:
        """
        Pass a request on.

        @param receiver: gets the answer.
        """
        self._calls[request] = receiver
        self.pass_on(text)

    def pass_on(self, text: str) -> None:
        """
        Pass a message on that has no answer.
        """
        self._send(Message(self.number, text))

    def listen(self, stream: Receiver) -> None:
        """
        Send notifications to a stream, instead of the one before.
        """
        former, self.stream = self.stream, stream
        if former is not None:
            former.end()
        self._send(Listening(self.number, True))

    def left(self, stream: Receiver) -> None:
        """
        A stream is gone.
        """
        if self.stream is stream:
            self.stream = None
            self._send(Listening(self.number, False))

    def sent(self, sent: Sent) -> None:
        """
        Something is to be sent to the client.
        """
        receiver = self.stream if sent.answers is None else self._calls.pop(sent.answers, None)

        def taken(read: bool) -> None:
            self._send(Taken(self.number, sent.number, read))

        if receiver is None:
            taken(False)
        else:
            receiver.send(sent, taken)

    def end(self) -> None:
        """
        The session is over.
        """
        receivers = [*self._calls.values(), *([] if self.stream is None else [self.stream])]
        self._calls.clear()
        self.stream = None
        for receiver in receivers:
            receiver.end()


class McpSessions:
    """
    All sessions.

    @param send: sends to the process that speaks MCP.
    @param waiting: returns the bytes of messages that the process has not read; None if it is being started again.
    @param chance: returns that many random base-36 characters.
    """

    def __init__(
        self,
        limits: McpLimits,
        counts: LimitCounts,
        *,
        send: Callable[[ToGateway], object],
        waiting: Callable[[], int | None],
        now: Callable[[], float],
        chance: Callable[[int], str],
    ) -> None:
        self._limits = limits
        self._counts = counts
        self._send = send
        self._waiting = waiting
        self._now = now
        self._chance = chance
        self._by_id: dict[str, McpSession] = {}
        self._by_number: dict[int, McpSession] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self._by_id)

    def check_room(self) -> None:
        """
        Check that a message can be passed on.

        @raise ProtocolError: C{NOT_AVAILABLE}: the process that speaks MCP does not take any now.
        """
        waiting = self._waiting()
        if waiting is not None and waiting <= WAITING_MAX:
            return
        if waiting is not None:
            self._counts.max_mcp_waiting.add()
        raise ProtocolError(ErrorCode.NOT_AVAILABLE, "MCP is not available at the moment; try again")

    def open(self, who: Who, token: str | None, wishes: Wishes) -> McpSession:
        """
        Begin a session.

        @raise RefusedError: there are too many.
        """
        limits = self._limits
        if sum(one.who == who for one in self._by_id.values()) >= limits.per_agent:
            self._counts.max_mcp_per_agent.add()
            raise RefusedError(
                HTTPStatus.TOO_MANY_REQUESTS,
                "TOO_MANY_SESSIONS",
                f"An agent may have {limits.per_agent} MCP sessions: end one with DELETE",
            )
        if len(self._by_id) >= limits.sessions:
            self._counts.max_mcp_sessions.add()
            raise RefusedError(
                HTTPStatus.SERVICE_UNAVAILABLE, "TOO_MANY_SESSIONS", "Too many MCP sessions; try again later"
            )
        self._last += 1
        session = McpSession(self._chance(_ID_LENGTH), self._last, who, token, self._now(), self._send)
        self._by_id[session.id] = self._by_number[session.number] = session
        self._send(Open(session.number, who.agent, token, *wishes))
        return session

    def find(self, id: str, who: Who, token: str | None) -> McpSession | None:
        """
        The session of an agent; None if it has none with this id.
        """
        session = self._by_id.get(id)
        if session is None or session.who != who:
            return None
        session.last_used = self._now()
        session.renew(token)
        return session

    def check_calls(self, session: McpSession) -> None:
        """
        Check that one more request of a session may wait for its answer.

        @raise RefusedError: too many do.
        """
        if session.calls >= CALLS_MAX:
            self._counts.max_mcp_calls.add()
            raise RefusedError(
                HTTPStatus.TOO_MANY_REQUESTS,
                "TOO_MANY_CALLS",
                f"{CALLS_MAX} requests of this session wait for their answers; try again later",
            )

    def close(self, session: McpSession) -> None:
        """
        End a session.
        """
        if self._by_id.pop(session.id, None) is not None:
            del self._by_number[session.number]
            self._send(Close(session.number))
            session.end()

    def close_all(self) -> None:
        """
        End all sessions.
        """
        for session in list(self._by_id.values()):
            self.close(session)

    def sweep(self) -> None:
        """
        End the sessions that have been idle for too long.
        """
        now = self._now()
        for session in list(self._by_id.values()):
            if session.is_busy:
                session.last_used = now
            elif now - session.last_used >= self._limits.idle:
                self._counts.mcp_idle.add()
                self.close(session)

    def received(self, message: FromGateway) -> None:
        """
        The process that speaks MCP has sent a message.
        """
        session = self._by_number.get(message.session)
        if session is None:
            return
        match message:
            case Sent():
                session.sent(message)
            case Closed():
                self.close(session)
