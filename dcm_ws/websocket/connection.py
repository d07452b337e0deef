"""
WebSocket connections: Autobahn's protocol, made the L{Peer} of a session.

What goes out is queued per connection and written once a reactor turn.  On plain TCP, where nothing waits already, the
bytes go to the kernel at once: the reactor's way would cost three system calls more for each write.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any, NamedTuple

import autobahn.twisted.websocket
import autobahn.websocket.protocol
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.compress import PerMessageDeflateOffer, PerMessageDeflateOfferAccept
from autobahn.websocket.types import ConnectionDeny, ConnectionRequest
from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.internet.tcp import Connection as TCPTransport
from twisted.logger import Logger
from twisted.python.failure import Failure

from dcm_ws.core.counts import Tally
from dcm_ws.core.hub import Hub
from dcm_ws.core.session import Origin, Session
from dcm_ws.http.addresses import UNIX, limit_key, parse_address
from dcm_ws.http.admission import Admission, RefusedError
from dcm_ws.http.heads import fault_of
from dcm_ws.http.shares import Share, address_of
from dcm_ws.protocol.errors import CloseCode
from dcm_ws.protocol.frames import RecentlyCompressed, pong_control_frame
from dcm_ws.protocol.replies import to_json
from dcm_ws.websocket.extensions import settle_offers
from dcm_ws.websocket.partial import PartialMessages
from dcm_ws.websocket.shortcuts import frame_size, plain_handshake, read_headers, short_message

# an operator may filter by this name
_log = Logger(namespace="dcm_ws.websocket.WebSocketConnection")

PATHS = ("/", "/ws")
"""
Where a WebSocket may be opened.
"""

_CONNECTING = WebSocketServerProtocol.STATE_CONNECTING
_OPEN = WebSocketServerProtocol.STATE_OPEN
_FLUSH_AT = 64 << 10
# bytes of one client in a turn of the reactor: tiny frames take a hundred times their share
_READ_AT_ONCE = 16 << 10
_REPLAY_CHUNK = 256 << 10
_CATCH_UP_INTERVAL = 0.05
_CLOSE_GRACE = 2.0
_ABORT_INTERVAL = 0.02
_LATEST_MAX = 1000
_PIECES = 4
_GOODBYES_A_TURN = 64
_BAD_GATEWAY = 1014


def _nothing(*_: object) -> str:
    return ""


# Autobahn formats what its debug log would say, for every connection, whether it is wanted or not: two thirds of the
# cost of a handshake (docs/decisions).
for _module in (autobahn.websocket.protocol, autobahn.twisted.websocket):
    for _formatter in ("hltype", "hlval", "pformat"):
        if hasattr(_module, _formatter):
            setattr(_module, _formatter, _nothing)

# in the registry of close codes (RFC 6455, section 11.7), and common libraries let a client send it
WebSocketServerProtocol.CLOSE_STATUS_CODES_ALLOWED.append(_BAD_GATEWAY)


# What goes out to all is compressed once for all: without context takeover it is the same for everyone.
_compressed = RecentlyCompressed()


class _Silence:
    """
    Autobahn's log, which tells of every misbehaving client; ours tells what an operator reads.
    """

    def debug(self, *args: object, **fields: object) -> None:
        pass

    trace = info = warn = error = debug


class _Unheard:
    """
    Stands for the Deferreds and the counters that Autobahn keeps for each connection, where nobody asks for them.
    """

    def callback(self, result: object) -> None:
        pass

    def __getattr__(self, name: str) -> int:
        return 0

    def __setattr__(self, name: str, value: object) -> None:
        pass


_UNHEARD = _Unheard()


class ConnectionLimits(NamedTuple):
    """
    @ivar message: bytes of one message from a client.
    @ivar send_buffer: bytes that may wait for a client to read them.
    @ivar compression: offer C{permessage-deflate}; C{message} holds for what a message inflates to, too.
    @ivar connections_per_ip: connections at once from one address; 0 for no limit.
    @ivar stranger_message: bytes of one message from a client that has to authenticate and has not.
    @ivar partial: bytes of messages that are not complete, of all connections.
    """

    message: int = 1 << 20
    send_buffer: int = 4 << 20
    compression: bool = False
    connections_per_ip: int = 0
    stranger_message: int = 64 << 10
    partial: int = 128 << 20


class WebSocketConnection(WebSocketServerProtocol):
    """
    One client's connection.
    """

    log = _Silence()

    factory: WebSocketConnections
    transport: Any
    # of the class that the factory makes
    _now: Callable[[], float]
    _longest: int
    _tally: Tally
    # what Autobahn would make for each connection, and copy from the factory into it
    is_open: Any = _UNHEARD
    is_closed: Any = _UNHEARD
    trafficStats: Any = _UNHEARD
    send_queue: Any = ()
    message_data: Any = None
    current_frame: Any = None
    CONFIG_ATTRS: Any = ()
    tcpNoDelay = True
    # asked for after the handshake, whose other attributes are let go of
    websocket_version = 13
    autoPingPending = autoPingPendingCall = autoPingTimeoutCall = None
    trackedTimings: Any = None
    wasServingFlashSocketPolicyFile = False

    address: str
    _origin: Origin
    _session: Session | None = None
    _refusal: str | None = None
    _replay: Iterator[bytes] | None = None
    #: by subject, in the order in which they came
    _latest: dict[str, bytes] | None = None
    _latest_size = 0
    #: bytes may go to the socket at once: plain TCP, no compression, and open
    _direct = False
    _fragmented = False
    #: bytes of a message that is not complete
    _held = 0
    #: nothing that still comes is read
    _ignored = False
    #: the far end's close frame is being read
    _parting = False
    #: left in the transport one by one, because it waits for the far end
    _pieces = 0

    def __init__(self) -> None:
        # Autobahn's own makes three objects, for which the class has better use
        self._outgoing: list[bytes] = []
        self._queued = 0

    # what Autobahn calls

    def connectionMade(self) -> None:
        peer = self.transport.getPeer()
        self.address = address_of(peer)
        self.peer = f"{self.address}:{getattr(peer, 'port', '')}"
        with suppress(AttributeError, OSError):
            # neither Unix sockets nor wrapped transports have it
            self.transport.setTcpNoDelay(True)
        self._connectionMade()

    def onConnect(self, request: ConnectionRequest) -> str | None:
        """
        Admit the client or not; the first subprotocol that it offers is the one spoken.
        """
        head: bytes = self.http_request_data
        fault = fault_of(head.removesuffix(b"\r\n\r\n").split(b"\r\n"))
        if fault:
            raise ConnectionDeny(int(HTTPStatus.BAD_REQUEST), fault)
        try:
            self._origin = self.factory.admit(self, self.http_request_uri, read_headers(head))
        except RefusedError as refusal:
            self._refusal = refusal.code
            raise ConnectionDeny(int(refusal.status), refusal.reason) from None
        protocols: list[str] = request.protocols
        return protocols[0] if protocols else None

    def _onOpen(self) -> None:
        """
        The handshake is done: let go of what it took.
        """
        for name in _HANDSHAKE_ATTRIBUTES:
            self.__dict__.pop(name, None)
        # a dict does not shrink
        self.__dict__ = dict(self.__dict__)
        self.onOpen()

    def onOpen(self) -> None:
        plain = isinstance(self.transport, TCPTransport) and not self.transport.TLS
        if plain:
            self.transport.bufferSize = _READ_AT_ONCE
        self._direct = plain and self._perMessageCompress is None
        origin = self.__dict__.pop("_origin")
        self.factory.opened(self)
        self._distrust()
        self._session = self.factory.hub.connect(self, origin)
        if self._session is not None:
            _log.info(
                "{client} joined from {peer}",
                client=self._session.client_id,
                peer=self.address,
            )

    def onPing(self, payload: bytes) -> None:
        # Autobahn's own would write at once, and pile up Pongs for one that does not read
        if self.state == _OPEN and (self._session is None or self._session.control(len(payload))):
            self.send(pong_control_frame(payload))

    def onPong(self, payload: bytes) -> None:
        if self._session is not None:
            self._session.control(len(payload))

    def onMessageFrameBegin(self, length: int) -> None:
        super().onMessageFrameBegin(length)
        if self._session is not None and not (self.current_frame.fin and self.current_frame.opcode):
            self._fragmented = True
            self._session.fragment(length)

    def onMessageBegin(self, isBinary: bool) -> None:
        super().onMessageBegin(isBinary)
        # in a list, tiny fragments would take many times their size, and empty ones without end some
        self.message_data = bytearray()

    def onMessageFrameData(self, payload: bytes) -> None:
        if not self.failedByMe:
            self.message_data += payload

    def onMessageEnd(self) -> None:
        # Autobahn's own also fires a signal that nobody listens to
        if not self.failedByMe:
            self.onMessage(bytes(self.message_data), self.message_is_binary)
        self.message_data = None

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        session, fragmented = self._session, self._fragmented
        self._fragmented = False
        if session is None:
            return
        try:
            session.receive(payload if isBinary else payload.decode(), 0 if fragmented else len(payload))
        except Exception:
            self._broke(session)

    def _broke(self, session: Session) -> None:
        """
        C{session} raised what it should not: that ends it, and nothing else.
        """
        _log.failure("{client} broke its session", client=session.client_id)
        self.factory.hub.close(session, CloseCode.INTERNAL_ERROR)

    def _max_message_size_exceeded(self, size: int, limit: int, reason: str) -> None:
        stranger = self._longest < self.factory.limits.message
        self.factory.hub.limits["maxStrangerMessage" if stranger else "maxMessageSize"] += 1
        super()._max_message_size_exceeded(size, limit, CloseCode.TOO_BIG.reason)

    def dataReceived(self, data: bytes) -> None:
        if self._ignored:
            return
        session = self._session
        if session is None:
            data = self._begin(data)
            session = self._session
            if session is None or not data:
                return
        session.heard_at = self._now()
        self._tally.received_bytes += len(data)
        if self.current_frame is not None or self.data:
            data = self._finish_frame(data)
        if not self.inside_message:
            data = self._take_short_messages(data, session)
        if data:
            self._dataReceived(data)
        if self._held or self.data or self.message_data:
            self._hold(len(self.data) + len(self.message_data or b""))

    def _hold(self, size: int) -> None:
        """
        So many bytes of an incomplete message are held now.
        """
        self._held = size
        self.factory.hold(self, size, stranger=self._session is not None and self._session.is_stranger)

    def drop_partial_message(self) -> None:
        """
        Close the client, whose incomplete message takes too much room, and release that.
        """
        self._ignored = True
        self.data, self.message_data = b"", None
        self._hold(0)
        if self._session is not None:
            self.factory.hub.close(self._session, CloseCode.TOO_BIG)

    def _begin(self, data: bytes) -> bytes:
        """
        Go on with the handshake; answers what follows it.
        """
        if self.state == _CONNECTING and not self.data:
            data = self._shake_hands(data)
        if data and self._session is None:
            self._dataReceived(data)
            return b""
        return data

    def _shake_hands(self, data: bytes) -> bytes:
        """
        Open the WebSocket, if the handshake is a plain one; answers what Autobahn is to read, or what follows.
        """
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return data
        head = settle_offers(data[:end], self.factory.limits.compression)
        handshake = plain_handshake(head)
        if handshake is None:
            return head + data[end:]
        try:
            self._origin = self.factory.admit(self, handshake.target, handshake.headers)
        except RefusedError as refusal:
            self._refusal = refusal.code
            self.failHandshake(refusal.reason, int(refusal.status))
            return b""
        self.state = _OPEN
        self.inside_message = False
        self.current_frame = None
        self.send(handshake.response(self.factory.server))
        self._onOpen()
        return data[end + 4 :]

    def _take_short_messages(self, data: bytes, session: Session) -> bytes:
        """
        Read the messages that come in short frames; answers what begins with anything else.
        """
        start, size, longest = 0, len(data), self._longest
        while start < size and self.state == _OPEN and (found := short_message(data, start, longest)) is not None:
            began = start
            message, start = found
            try:
                session.receive(message, start - began)
            except Exception:
                self._broke(session)
        return data[start:] if start else data

    def _finish_frame(self, data: bytes) -> bytes:
        """
        Give Autobahn the rest of the frame that it is in the middle of; answers what follows that.
        """
        if self.current_frame is not None:
            missing = self.current_frame.length - self.current_frame_masker.pointer()
        else:
            head = self.data + data[:14]
            missing = frame_size(head) - len(self.data)
        self._dataReceived(data[:missing])
        return data[missing:]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._direct = False
        super().connectionLost(reason)
        if self._held:
            self._hold(0)
        self._outgoing.clear()
        self._replay = None
        session, self._session = self._session, None
        if session is not None:
            self.factory.left(self, session)
        self.factory.gone(self)

    def see_off(self, session: Session) -> None:
        """
        Take leave of the client that was here.
        """
        agent = session.agent
        self.factory.hub.disconnect(session)
        _log.info(
            "{client} left after {seconds:.1f} s ({agent}, close code {code})",
            client=session.client_id,
            agent="no agent" if agent is None else agent,
            seconds=self.factory.hub.now() - session.joined_at,
            code=self.localCloseCode or self.remoteCloseCode,
        )

    def sendHttpErrorResponse(
        self,
        code: int,
        reason: str,
        responseHeaders: list[tuple[str, str]] | None = None,
    ) -> None:
        """
        Refuse the handshake, in the same shape as every other HTTP error.
        """
        headers = dict(responseHeaders or ())
        if "Sec-WebSocket-Version" in headers:
            code = HTTPStatus.UPGRADE_REQUIRED
            headers["Upgrade"] = "websocket"
        status = HTTPStatus(code)
        body = to_json(
            {
                "error": reason,
                "code": self._refusal or status.name,
                "timestamp": self.factory.hub.wall_ms(),
            }
        )
        headers |= {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Connection": "close",
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"HTTP/1.1 {status.value} {status.phrase}\r\n{lines}\r\n"
        self.transport.write(head.encode() + body)

    # the Peer of a session

    def send(self, frame: bytes) -> None:
        outgoing = self._outgoing
        if not outgoing:
            self.factory.touch(self)
        outgoing.append(frame)
        self._queued += len(frame)
        if self._queued > _FLUSH_AT and self._replay is None:
            self._write_queue()

    def offer(self, name: str, frame: bytes) -> None:
        waiting = self._queued + _buffered(self.transport)
        if self._latest is None:
            if waiting <= self.factory.limits.send_buffer // 4:
                self.send(frame)
                return
            self._latest = {}
            self._latest_size = 0
            self.factory.look_after(self)
        self.factory.hub.limits["shed"] += 1
        latest = self._latest
        self._latest_size += len(frame) - len(latest.pop(name, b""))
        latest[name] = frame
        room = self.factory.limits.send_buffer - waiting
        while latest and (self._latest_size > room or len(latest) > _LATEST_MAX):
            self._latest_size -= len(latest.pop(next(iter(latest))))
            self.factory.hub.limits["latestDropped"] += 1

    def replay(self, frames: Iterator[bytes]) -> None:
        self._write_queue()
        self._replay = frames
        if not self._refill():
            self.factory.look_after(self)

    def has_unread(self) -> bool:
        """
        True if bytes from the far end wait in the kernel.
        """
        connection = _socket_of(self.transport)
        if connection is None or not connection.connected:
            return False
        try:
            return bool(connection.socket.recv(1, socket.MSG_PEEK))
        except OSError:
            # BlockingIOError: there is nothing
            return False

    def close(self, code: CloseCode) -> None:
        if code is CloseCode.TOO_SLOW:
            # it would not read them, and they must not wait for that
            self._outgoing.clear()
            self._queued = 0
        # to read on is what it must not make us do
        self._ignored = code in (CloseCode.TOO_MANY_MESSAGES, CloseCode.TOO_BIG)
        self._replay = self._latest = None
        self._write_queue()
        if self.state == self.STATE_OPEN:
            # sendClose() refuses most codes that a server may send
            self.sendCloseFrame(code=int(code), reasonUtf8=code.reason.encode(), isReply=False)

    def sendCloseFrame(self, code: int | None = None, reasonUtf8: bytes | None = None, isReply: bool = False) -> None:
        # the answers to what the client sent just before it closed, or broke the protocol
        if self._replay is None:
            self._write_queue()
        self._direct = False
        super().sendCloseFrame(code, reasonUtf8, isReply)

    def onCloseFrame(self, code: int | None, reasonRaw: bytes | None) -> bool | None:
        self._parting = True
        try:
            done: bool | None = super().onCloseFrame(code, reasonRaw)  # type: ignore[arg-type]
        finally:
            self._parting = False
        return done

    def dropConnection(self, abort: bool = False) -> None:
        self._direct = False
        if self._parting and self.failedByMe:
            # its goodbye broke the protocol: an abort would overtake the frame that says so
            abort = False
        super().dropConnection(abort)
        if not abort and _buffered(self.transport):
            # it said goodbye, and may never read what the transport would wait for it to read
            self.factory.abort_later(self)

    def _closeConnection(self, abort: bool = False) -> None:
        if abort and _buffered(self.transport) > _FLUSH_AT:
            self.factory.abort_in_turn(self)
        else:
            super()._closeConnection(abort)

    def trust(self) -> None:
        for name in _SIZES:
            self.__dict__.pop(name, None)

    def _distrust(self) -> None:
        """
        Take short messages only, until the client has authenticated.
        """
        most = self.factory.limits.stranger_message
        if self.factory.hub.rules.production and most < self._longest:
            self.__dict__.update(dict.fromkeys(_SIZES, most))

    # writing

    def flush(self) -> None:
        """
        Write what is queued, and see to it that not too much is waiting.
        """
        if self._replay is None and self._write_queue():
            return
        waiting = self._queued + _buffered(self.transport)
        if waiting > self.factory.limits.send_buffer and self._session is not None:
            self.factory.hub.close(self._session, CloseCode.TOO_SLOW)

    def _write_queue(self) -> bool:
        """
        True where nothing is left waiting.
        """
        outgoing = self._outgoing
        if not outgoing:
            # what was written within the turn may not have gone
            return not _buffered(self.transport)
        data = b"".join(outgoing) if len(outgoing) > 1 else outgoing[0]
        outgoing.clear()
        self._queued = 0
        self._tally.sent_bytes += len(data)
        transport = self.transport
        if self._direct:
            if not (transport._tempDataBuffer or transport.dataBuffer):
                try:
                    sent = transport.socket.send(data)
                except OSError:
                    # full, or broken: the transport finds out which
                    sent = 0
                if sent == len(data):
                    return True
                data = data[sent:]
            else:
                self._keep_together()
        elif self.state != self.STATE_OPEN:
            return True
        elif self._perMessageCompress is not None:
            data = _compressed(data, self._perMessageCompress.server_max_window_bits)
        transport.write(data)
        return False

    def _keep_together(self) -> None:
        """
        Join the pieces that lie in the transport, some at a time: many of some kilobytes, between others that come and
        go, would leave holes of a sixth of their size in the heap (docs/decisions/0014).
        """
        self._pieces += 1
        if self._pieces == _PIECES:
            self._pieces = 0
            pieces = self.transport._tempDataBuffer
            pieces[-_PIECES:] = [b"".join(pieces[-_PIECES:])]

    def _refill(self) -> bool:
        """
        Write the next part of the replay.  True where that was the last.
        """
        part, size = [], 0
        assert self._replay is not None
        for frame in self._replay:
            part.append(frame)
            size += len(frame)
            if size >= self._chunk:
                break
        else:
            self._replay = None
        data = b"".join(part)
        self._tally.sent_bytes += len(data)
        if self._perMessageCompress is not None:
            data = _compressed(data, self._perMessageCompress.server_max_window_bits)
        self.transport.write(data)
        return self._replay is None

    @property
    def _chunk(self) -> int:
        """
        Bytes of a replay at once: well below what would be too much to wait.
        """
        return min(_REPLAY_CHUNK, self.factory.limits.send_buffer // 8)

    @property
    def behind(self) -> bool:
        """
        Does something wait until the far end has read the rest?
        """
        return self._replay is not None or self._latest is not None

    def catch_up(self) -> None:
        """
        Go on with what waits until the far end has read the rest.
        """
        if not self.behind:
            return
        if _buffered(self.transport) > self._chunk or (self._replay is not None and not self._refill()):
            # what is new waits too, and must not be too much
            self.flush()
            return
        latest = self._latest or {}
        # all at once might be too much to wait
        while latest and self._queued + _buffered(self.transport) <= self._chunk:
            frame = latest.pop(next(iter(latest)))
            self._latest_size -= len(frame)
            self.send(frame)
            self._write_queue()
        if not latest:
            self._latest = None
        self._write_queue()


_SIZES = ("maxMessagePayloadSize", "maxFramePayloadSize", "_longest")
_HANDSHAKE_ATTRIBUTES = (
    *("http_headers", "http_request_data", "http_request_host", "http_request_params", "http_request_path"),
    *("http_request_uri", "http_response_data", "http_status_line", "_wskey"),
    *("websocket_extensions", "websocket_extensions_in_use", "websocket_origin", "websocket_protocols"),
    *("websocket_protocol_in_use", "websocket_version"),
    *("autoPingPending", "autoPingPendingCall", "autoPingPendingSent", "autoPingPendingSeq"),
    # a deque is large, and only the chopped writes of tests are queued there
    *(
        "send_queue",
        "trafficStats",
        "autoPingTimeoutCall",
        "trackedTimings",
        "wasServingFlashSocketPolicyFile",
        "wasOpenHandshakeTimeout",
    ),
)


def _socket_of(transport: Any) -> Any:
    """
    The TCP or Unix connection beneath a transport; None if there is none.
    """
    while transport is not None and not isinstance(transport, FileDescriptor):
        transport = getattr(transport, "transport", None)
    return transport


def _buffered(transport: Any) -> int:
    """
    Bytes that a transport, and those beneath it, hold because the far end does not read them.
    """
    waiting = 0
    while transport is not None and not isinstance(transport, FileDescriptor):
        # TLS holds the application's bytes until it may write, and below it TCP the encrypted ones
        waiting += sum(map(len, getattr(transport, "_appSendBuffer", ())))
        transport = getattr(transport, "transport", None)
    if transport is not None:
        waiting += len(transport.dataBuffer) - transport.offset + transport._tempDataLen
    return waiting


def _loopback_port(transport: Any) -> int | None:
    """
    The port that a connection was made to, if that is on a loopback address.
    """
    here = transport.getHost()
    if not isinstance(here, IPv4Address | IPv6Address):
        return None
    address = parse_address(here.host)
    return here.port if address is not None and address.is_loopback else None


class WebSocketConnections(WebSocketServerFactory):
    """
    Makes the connections, and flushes those that have something to write, once a reactor turn.
    """

    noisy = False

    def __init__(
        self,
        hub: Hub,
        reactor: IReactorTime,
        *,
        server: str,
        limits: ConnectionLimits,
        admission: Admission,
        connection: type[WebSocketConnection] = WebSocketConnection,
    ) -> None:
        # no URL: Autobahn refuses port 0 in one
        super().__init__(server=server, reactor=reactor)
        self.hub = hub
        self.limits = limits
        self._admission = admission
        # the hub limits their number, once they are open
        self.share = Share(per_address=limits.connections_per_ip)
        self.partial: PartialMessages[WebSocketConnection] = PartialMessages(limits.partial)
        self._call_later = reactor.callLater
        self._touched: list[WebSocketConnection] = []
        self._open: set[WebSocketConnection] = set()
        self._behind: set[WebSocketConnection] = set()
        self._doomed: deque[WebSocketConnection] = deque()
        self._gone: deque[tuple[WebSocketConnection, Session]] = deque()
        self._seen_off = 0
        self.setProtocolOptions(
            versions=[13],
            # answer errors with 1002, 1007 and 1009 instead of dropping the connection
            failByDrop=False,
            maxFramePayloadSize=limits.message,
            maxMessagePayloadSize=limits.message,
            # the port has the whole request before it hands it on
            openHandshakeTimeout=0,
            closeHandshakeTimeout=_CLOSE_GRACE,
            allowNullOrigin=True,
            # RFC 6455, section 5.5.1: some clients reconnect or not by the code of the answer
            echoCloseCodeReason=True,
            **({"perMessageCompressionAccept": self._accept_compression} if limits.compression else {}),
        )
        # the options as attributes of a class, not of every connection; a function must not become a method there
        options = {
            name: staticmethod(option) if callable(option := getattr(self, name)) else option
            for name in WebSocketServerProtocol.CONFIG_ATTRS
            if hasattr(self, name)
        }
        options |= {"tcpNoDelay": True, "_now": staticmethod(hub.now), "_longest": limits.message, "_tally": hub.tally}
        self.protocol: Any = type(connection.__name__, (connection,), options)

    def _accept_compression(self, offers: list[object]) -> PerMessageDeflateOfferAccept | None:
        """
        Take the first offer of C{permessage-deflate}, without context takeover: that would hold a window of up to
        64 KiB for each client and direction, and compress for each what is the same for all.
        """
        for offer in offers:
            if isinstance(offer, PerMessageDeflateOffer):
                return PerMessageDeflateOfferAccept(
                    offer,
                    request_no_context_takeover=offer.accept_no_context_takeover,
                    no_context_takeover=True,
                    max_message_size=self.limits.message,
                )
        return None

    def admit(self, connection: WebSocketConnection, target: str, headers: Mapping[str, str]) -> Origin:
        """
        Who the client says it is.

        @param target: the request's path and query.
        @param headers: by lower-case name.
        @raise RefusedError: it may not connect.
        """
        port = _loopback_port(connection.transport) if "origin" in headers else None
        origin, connection.address = self._admission.admit(target, headers, connection.address, port)
        if self.share.refuses(connection.address):
            raise RefusedError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "TOO_MANY_CONNECTIONS",
                f"Too many connections from your address: the limit is {self.share.per_address}",
            )
        if connection.address == UNIX:
            return origin
        # _replace() would take longer than the rest
        return Origin(origin.agent_id, origin.session_id, origin.claims, origin.observer, limit_key(connection.address))

    def hold(self, connection: WebSocketConnection, size: int, *, stranger: bool) -> None:
        """
        C{connection} holds so many bytes of an incomplete message; if all together hold too much, one is closed.
        """
        crowded_out = self.partial.hold(connection, size, stranger=stranger)
        if crowded_out is not None:
            crowded_out.drop_partial_message()

    def touch(self, connection: WebSocketConnection) -> None:
        """
        C{connection} has something to write at the end of this turn.
        """
        if not self._touched:
            self._call_later(0, self._flush)
        self._touched.append(connection)

    def _flush(self) -> None:
        touched, self._touched = self._touched, []
        for connection in touched:
            connection.flush()

    def look_after(self, connection: WebSocketConnection) -> None:
        """
        C{connection} has more to send once the far end has read what was sent.
        """
        if not self._behind:
            self._call_later(_CATCH_UP_INTERVAL, self._catch_up)
        self._behind.add(connection)

    def _catch_up(self) -> None:
        # one may be closed for being too slow, and others fall behind with what they hear of it
        for connection in list(self._behind):
            connection.catch_up()
        self._behind = {connection for connection in self._behind if connection.behind}
        if self._behind:
            self._call_later(_CATCH_UP_INTERVAL, self._catch_up)

    def opened(self, connection: WebSocketConnection) -> None:
        """
        The handshake is done.
        """
        self._open.add(connection)
        self.share.enter(connection.address)

    def gone(self, connection: WebSocketConnection) -> None:
        """
        The transport is closed.
        """
        if connection in self._open:
            self._open.remove(connection)
            self.share.leave(connection.address)
        self._behind.discard(connection)

    def left(self, connection: WebSocketConnection, session: Session) -> None:
        """
        The client of C{session} is gone.  Where very many go at once, they are seen off a few a turn, and whoever stays
        is not kept waiting.
        """
        if not self._seen_off:
            self._call_later(0, self._see_off)
        if self._seen_off < _GOODBYES_A_TURN:
            self._seen_off += 1
            connection.see_off(session)
        else:
            self.hub.leave(session)
            self._gone.append((connection, session))

    def _see_off(self) -> None:
        self._seen_off = min(len(self._gone), _GOODBYES_A_TURN)
        if self._seen_off:
            self._call_later(0, self._see_off)
        for _ in range(self._seen_off):
            connection, session = self._gone.popleft()
            connection.see_off(session)

    def abort_later(self, connection: WebSocketConnection) -> None:
        """
        C{connection} is about to end; see to it that it does.
        """
        self._call_later(_CLOSE_GRACE, self.abort_in_turn, connection)

    def abort_in_turn(self, connection: WebSocketConnection) -> None:
        """
        Drop a connection that does not read, some milliseconds after the last such one: the kernel takes about two to
        throw away what it holds, and those who do not read tend to be found out together.
        """
        if not self._doomed:
            self._call_later(0, self._abort_next)
        self._doomed.append(connection)

    def _abort_next(self) -> None:
        if self._doomed:
            connection = self._doomed.popleft()
            # a TLS connection that has ended by itself cannot be aborted
            if connection.transport.connected:
                connection.transport.abortConnection()
        if self._doomed:
            self._call_later(_ABORT_INTERVAL, self._abort_next)

    def abort(self) -> None:
        """
        Drop all connections that are still there.
        """
        for connection in list(self._open):
            connection.dropConnection(abort=True)
        while self._doomed:
            self._abort_next()

    def __len__(self) -> int:
        """
        Connections that are open, or not yet closed for good.
        """
        return len(self._open)

    def __bool__(self) -> bool:
        return True
