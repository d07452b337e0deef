"""
The handshake of a WebSocket (RFC 6455, section 4.2): admits the client, or rejects it with an error in JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus

from autobahn.websocket.types import ConnectionDeny, ConnectionRequest

from dcm_ws.http.admission import RefusedError
from dcm_ws.http.heads import fault_of
from dcm_ws.http.refusals import error_response
from dcm_ws.http.request_headers import read_headers
from dcm_ws.websocket.autobahn import LeanProtocol
from dcm_ws.websocket.extensions import settle_offers
from dcm_ws.websocket.shortcuts import plain_handshake


class Handshake(LeanProtocol):
    """
    The handshake of a connection.  A plain one is read by L{dcm_ws.websocket.shortcuts}, all others by Autobahn.
    """

    #: set by L{configured}: shared by all connections of a factory
    _compression: bool
    _server: str
    _wall_ms: Callable[[], int]

    #: the code of the error, if admission refused the client
    _refusal: str | None = None

    def admit(self, target: str, headers: Mapping[str, str]) -> None:
        """
        Admit the client.

        @param target: the request's path and query.
        @param headers: by lower-case name.
        @raise RefusedError: it may not connect.
        """
        raise NotImplementedError

    def begin(self, data: bytes) -> bytes:
        if not self.is_new:
            return data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return data
        head = settle_offers(data[:end], self._compression)
        request = plain_handshake(head)
        if request is None:
            return head + data[end:]
        try:
            self.admit(request.target, request.headers)
        except RefusedError as refusal:
            self._refusal = refusal.code
            self.failHandshake(refusal.reason, int(refusal.status))
            return b""
        self.open(request.response(self._server))
        return data[end + 4 :]

    def onConnect(self, request: ConnectionRequest) -> str | None:
        """
        Admit the client or not; the first subprotocol that it offers is selected.
        """
        head = self.request_head
        fault = fault_of(head.removesuffix(b"\r\n\r\n").split(b"\r\n"))
        if fault:
            raise ConnectionDeny(int(HTTPStatus.BAD_REQUEST), fault)
        try:
            self.admit(self.request_target, read_headers(head))
        except RefusedError as refusal:
            self._refusal = refusal.code
            raise ConnectionDeny(int(refusal.status), refusal.reason) from None
        protocols: list[str] = request.protocols
        return protocols[0] if protocols else None

    def rejection(self, status: int, reason: str, headers: dict[str, str]) -> bytes:
        if "Sec-WebSocket-Version" in headers:
            status = HTTPStatus.UPGRADE_REQUIRED
            headers["Upgrade"] = "websocket"
        return error_response(HTTPStatus(status), reason, self._wall_ms(), self._refusal or "", headers)
