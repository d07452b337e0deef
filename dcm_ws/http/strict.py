"""
Twisted's HTTP, made strict: invalid requests are answered with errors in JSON, and not logged as failures.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from io import BytesIO
from typing import Any

from twisted.logger import Logger
from twisted.python.failure import Failure

from dcm_ws.http.bodies import Body, BodyState
from dcm_ws.http.heads import fault_of, origin_form
from dcm_ws.http.refusals import TOO_LARGE, error_response
from dcm_ws.http.request_headers import BadRequestError
from dcm_ws.http.transport import LeanChannel, LeanRequest

_log = Logger(namespace="dcm_ws.strict_http")


class StrictRequest(LeanRequest):
    """
    A request whose body is read, and ignored unless its page takes one.

    @ivar body: None if the page takes none, or there is none.
    @ivar input_ended: called when the client closes its side of the connection before it has the response; None if it
        is answered nevertheless.
    """

    channel: Any
    body: Body | None = None
    input_ended: Callable[[], object] | None = None

    def gotLength(self, length: int | None) -> None:
        self.content = BytesIO()
        # with it, Twisted would parse the body
        self.requestHeaders.removeHeader(b"Content-Type")
        bodies = self.channel.site.bodies
        if bodies is not None:
            self.body = bodies.begin(self, origin_form(self.channel.target), length)

    def handleContentChunk(self, data: bytes) -> None:
        if self.body is not None:
            self.body.receive(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        if self.body is not None:
            self.body.complete()
        super().requestReceived(command, origin_form(path), version)

    def connectionLost(self, reason: Failure) -> None:
        if self.body is not None:
            self.body.complete()
        super().connectionLost(reason)

    def processingFailed(self, reason: Failure) -> Failure:
        """
        Answer with an error in JSON, and log the failure unless the request is invalid.
        """
        if reason.check(BadRequestError):
            status, text = HTTPStatus.BAD_REQUEST, str(reason.value)
        else:
            status, text = HTTPStatus.INTERNAL_SERVER_ERROR, "The service failed to answer; its log says why"
            _log.failure("a page failed", failure=reason)
        assert self.site is not None
        body = self.site.resource.fail(self, status, text)
        self.setHeader(b"Content-Length", b"%d" % len(body))
        self.write(body)
        self.finish()
        return reason


class StrictChannel(LeanChannel):
    """
    An HTTP connection that accepts only request heads that every server reads in the same way.
    """

    transport: Any
    #: set by the site
    site: Any

    def __init__(self) -> None:
        super().__init__()
        self._head: list[bytes] = []
        self._ended = False

    def dataReceived(self, data: bytes) -> None:
        # over TLS, data arrives until the far end knows that the connection is closed
        if not self._ended:
            super().dataReceived(data)

    def loseConnection(self) -> None:
        """
        Close the connection in a limited time: TLS would wait for the far end to close its side.
        """
        if self._ended:
            return
        self._ended = True
        self.abort_in_time()
        super().loseConnection()

    def lineReceived(self, line: bytes) -> None:
        if line:
            self._head.append(line)
        elif self._head:
            head, self._head = self._head, []
            fault = fault_of(head)
            if fault:
                self._refuse(fault)
                return
        super().lineReceived(line)

    def invite_body(self) -> None:
        body = self.requests[-1].body
        if body is not None and body.state is BodyState.TOO_LARGE:
            # the client has not sent it yet
            self._refuse(f"The body is longer than {body.most} bytes", HTTPStatus.REQUEST_ENTITY_TOO_LARGE, TOO_LARGE)
        else:
            super().invite_body()

    def reject_request(self) -> None:
        self._refuse("This is not an HTTP request that can be read")

    def _refuse(self, reason: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST, code: str = "") -> None:
        now_ms = self.site.resource.wall_ms()
        headers = {"Cache-Control": "no-store"}
        self.transport.write(error_response(status, reason, now_ms, code, headers))
        self.loseConnection()
