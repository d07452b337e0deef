"""
What is sent to MCP clients: answers to requests, and streams of notifications.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.server import Request

from dcm_ws.http.refusals import error_body
from dcm_ws.http.resources import forbid_caching
from dcm_ws.http.transport import abort, unacknowledged, unsent
from dcm_ws.protocol.gateway import Sent

PATIENCE = 10.0
"""
Seconds after which an answer that has not come is announced as a stream, so that nothing takes the request for dead.
"""

BEAT = 15.0
"""
Seconds between two signs of life on a stream.
"""

BEATS = 4
"""
Signs of life that a client may leave without an acknowledgement before its connection is dropped.
"""

_LOOKS = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)

Taken = Callable[[bool], object]


class _Response:
    """
    A response that is sent in pieces, or later.

    A client that closes its side of the connection has gone: clients of MCP wait for the response before they do so,
    and without reading, the end of the connection would be noticed only with the next piece.
    """

    def __init__(self, request: Request, clock: IReactorTime) -> None:
        self._request = request
        self._clock = clock
        self._timer: Any = None
        self._beats = 0
        self.is_over = False
        request.notifyFinish().addErrback(self._lost)
        transport: Any = request.transport
        request.input_ended = lambda: abort(transport)  # type: ignore[attr-defined]

    def _begin_stream(self) -> None:
        request = self._request
        request.setHeader("Content-Type", "text/event-stream")
        request.setHeader("Cache-Control", "no-cache, no-transform")
        # nginx would hold back what it has read until its buffer is full
        request.setHeader("X-Accel-Buffering", "no")
        request.write(b": \n\n")
        self._timer = self._clock.callLater(BEAT, self._beat)

    def _beat(self) -> None:
        transport: Any = self._request.transport
        self._beats = self._beats + 1 if unacknowledged(transport) else 0
        if self._beats == BEATS:
            abort(transport)
            return
        if not unsent(transport):
            self._request.write(b": \n\n")
        self._timer = self._clock.callLater(BEAT, self._beat)

    def _finish(self) -> None:
        self._stop()
        self._request.finish()

    def _stop(self) -> None:
        self.is_over = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _lost(self, _: Failure) -> None:
        self._stop()
        self.lost()

    def lost(self) -> None:
        """
        The client is gone before the end of the response.
        """

    def _when_taken(self, taken: Taken, *, closes: bool = False) -> None:
        """
        Call C{taken} when the client's system has what was written, or the connection has ended.

        @param closes: this side closes the connection when all is sent.
        """
        transport: Any = self._request.transport
        looks = iter(_LOOKS)

        def look() -> None:
            if not transport.connected:
                taken(closes)
            elif unacknowledged(transport):
                self._clock.callLater(next(looks, _LOOKS[-1]), look)
            else:
                taken(True)

        look()


class Answer(_Response):
    """
    The response to a request of a client.  It becomes a stream with one event if it takes long.
    """

    def __init__(self, request: Request, clock: IReactorTime, wall_ms: Callable[[], int]) -> None:
        super().__init__(request, clock)
        self._wall_ms = wall_ms
        self._is_stream = False
        self._timer = clock.callLater(PATIENCE, self._be_patient)

    def send(self, sent: Sent, taken: Taken) -> None:
        """
        Send the answer.
        """
        if self.is_over:
            taken(False)
            return
        request, text = self._request, sent.text.encode()
        if self._is_stream:
            request.write(_event(text))
        else:
            self._send_json(text)
        channel: Any = request.channel
        closes = not channel.persistent
        self._finish()
        self._when_taken(taken, closes=closes)

    def end(self) -> None:
        """
        There will be no answer: the session is over.
        """
        if self.is_over:
            return
        if not self._is_stream:
            status = HTTPStatus.NOT_FOUND
            self._request.setResponseCode(status.value, status.phrase.encode())
            self._send_json(error_body(status, "The session is over", self._wall_ms()))
        self._finish()

    def _send_json(self, body: bytes) -> None:
        self._request.setHeader("Content-Type", "application/json")
        self._request.setHeader("Content-Length", str(len(body)))
        forbid_caching(self._request)
        self._request.write(body)

    def _be_patient(self) -> None:
        self._is_stream = True
        self._begin_stream()


class FirstAnswer(Answer):
    """
    The response to the request that begins a session.

    @param session: the id of the session.
    @param close: ends the session: it could not begin, or its client has not learned its id.
    """

    def __init__(
        self,
        request: Request,
        clock: IReactorTime,
        wall_ms: Callable[[], int],
        *,
        session: str,
        close: Callable[[], object],
    ) -> None:
        super().__init__(request, clock, wall_ms)
        self._session = session
        self._close = close

    def send(self, sent: Sent, taken: Taken) -> None:
        if sent.failed:
            self._close()
        elif not self._is_stream:
            self._name_session()
        super().send(sent, taken)

    def lost(self) -> None:
        self._close()

    def _be_patient(self) -> None:
        # the headers cannot wait for the answer
        self._name_session()
        super()._be_patient()

    def _name_session(self) -> None:
        self._request.setHeader("Mcp-Session-Id", self._session)


class Stream(_Response):
    """
    A stream of notifications.

    @param left: called with this stream when it is gone.
    """

    def __init__(self, request: Request, clock: IReactorTime, left: Callable[[Stream], object]) -> None:
        super().__init__(request, clock)
        self._left = left
        self._begin_stream()

    def send(self, sent: Sent, taken: Taken) -> None:
        """
        Send a notification.
        """
        if self.is_over:
            taken(False)
            return
        self._request.write(_event(sent.text.encode()))
        self._when_taken(taken)

    def end(self) -> None:
        """
        Send no more.
        """
        if not self.is_over:
            self._finish()

    def lost(self) -> None:
        self._left(self)


def _event(text: bytes) -> bytes:
    # JSON of the SDK has no line breaks
    return b"event: message\ndata: %s\n\n" % text
