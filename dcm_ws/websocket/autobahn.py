"""
Autobahn's server protocol, with less memory and work per connection: every use of an attribute that Autobahn does not
document, each with its reason.

A new version of Autobahn may change them without notice; C{tests/websocket/test_autobahn.py} then fails and names the
attribute.  The module is longer than others because all such uses are to be in one place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import autobahn.twisted.websocket
import autobahn.websocket.protocol
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol

from dcm_ws.core.charges import Charges
from dcm_ws.core.counts import Received
from dcm_ws.core.interpreter import Interpreter
from dcm_ws.core.session import Session
from dcm_ws.http.pacing import Pacing
from dcm_ws.http.shares import address_of
from dcm_ws.http.transport import unsent
from dcm_ws.protocol.errors import CloseCode
from dcm_ws.websocket.shortcuts import frame_size, short_message

_CONNECTING = WebSocketServerProtocol.STATE_CONNECTING
_OPEN = WebSocketServerProtocol.STATE_OPEN
_BAD_GATEWAY = 1014


def _nothing(*_: object) -> str:
    return ""


# Autobahn formats the text of its debug log for every connection, even if that log is off: two thirds of the cost of
# a handshake (docs/decisions/0012)
for _module in (autobahn.websocket.protocol, autobahn.twisted.websocket):
    for _formatter in ("hltype", "hlval", "pformat"):
        if hasattr(_module, _formatter):
            setattr(_module, _formatter, _nothing)

# Autobahn calls 1014 invalid, but it is in the registry of close codes (RFC 6455, section 11.7), and common libraries
# let a client send it
WebSocketServerProtocol.CLOSE_STATUS_CODES_ALLOWED.append(_BAD_GATEWAY)

# only needed for the handshake
_HANDSHAKE_ATTRIBUTES = (
    *("http_headers", "http_request_data", "http_request_host", "http_request_params", "http_request_path"),
    *("http_request_uri", "http_response_data", "http_status_line", "_wskey"),
    *("websocket_extensions", "websocket_extensions_in_use", "websocket_origin", "websocket_protocols"),
    *("websocket_protocol_in_use", "websocket_version"),
    *("autoPingPending", "autoPingPendingCall", "autoPingPendingSent", "autoPingPendingSeq"),
    # an empty deque takes 760 bytes, and only Autobahn's chopped writes, which we do not use, are queued in it
    *("send_queue", "trafficStats", "autoPingTimeoutCall", "trackedTimings"),
    *("wasServingFlashSocketPolicyFile", "wasOpenHandshakeTimeout"),
)
# the attributes that limit the size of a message
_SIZES = ("maxMessagePayloadSize", "maxFramePayloadSize", "_longest")
# what the transport may hold for a client when it is aborted: the kernel throws away more in about 2 ms
_QUICK_TO_ABORT = 64 << 10


class _Silence:
    """
    A log that drops everything: Autobahn logs every client that breaks the protocol.
    """

    def debug(self, *args: object, **fields: object) -> None:
        pass

    trace = info = warn = error = debug


class _Unheard:
    """
    Takes the place of the Deferreds and the counters that Autobahn keeps for each connection and that we do not use.
    """

    def callback(self, result: object) -> None:
        pass

    def __getattr__(self, name: str) -> int:
        return 0

    def __setattr__(self, name: str, value: object) -> None:
        pass


_UNHEARD = _Unheard()


class LeanProtocol(WebSocketServerProtocol):
    """
    Autobahn's protocol without what we do not use, and its insides under names of ours.

    A connection takes 1.6 KiB instead of 7 KiB, mostly because what Autobahn keeps in each connection are attributes of
    the class here.
    """

    log = _Silence()

    transport: Any
    #: set by L{configured}: shared by all connections of a factory
    _pacing: Pacing
    _longest: int
    #: bytes may go to the socket at once: plain TCP, no compression, and open
    _direct = False
    #: the size of the window with which messages to the client are compressed; None without compression
    window_bits: int | None = None
    #: the close frame of the far end is being read
    _closing = False

    # made by Autobahn's constructor, or by _connectionMade()
    is_open: Any = _UNHEARD
    is_closed: Any = _UNHEARD
    trafficStats: Any = _UNHEARD
    send_queue: Any = ()
    message_data: Any = None
    current_frame: Any = None
    # _connectionMade() would copy these options from the factory: see configured()
    CONFIG_ATTRS: Any = ()
    tcpNoDelay = True
    # still read after the handshake, although _onOpen() has released them
    websocket_version = 13
    autoPingPending = autoPingPendingCall = autoPingTimeoutCall = None
    trackedTimings: Any = None
    wasServingFlashSocketPolicyFile = False

    address: str

    def __init__(self) -> None:
        # not Autobahn's constructor: it makes three objects, for which the attributes of the class are enough
        pass

    @property
    def may_send(self) -> bool:
        """
        True from the handshake until a close frame has been sent or the connection is dropped.
        """
        is_open: bool = self.state == _OPEN
        return is_open

    @property
    def close_code(self) -> int | None:
        """
        The code of the close frame that was sent, or else of the one that was received.
        """
        code: int | None = self.localCloseCode or self.remoteCloseCode
        return code

    def limit_messages(self, size: int) -> None:
        """
        Let the client send only messages of up to C{size} bytes, until L{unlimit_messages}.
        """
        # Autobahn reads its options from the connection
        self.__dict__.update(dict.fromkeys(_SIZES, size))

    def unlimit_messages(self) -> None:
        """
        Let the client send messages of the size that the factory allows.
        """
        for name in _SIZES:
            self.__dict__.pop(name, None)

    # how it begins

    def connectionMade(self) -> None:
        # not Autobahn's: it makes an object of 370 bytes that describes the transport
        peer = self.transport.getPeer()
        self.address = address_of(peer)
        self.peer = f"{self.address}:{getattr(peer, 'port', '')}"
        with suppress(AttributeError, OSError):
            # neither Unix sockets nor wrapped transports have it
            self.transport.setTcpNoDelay(True)
        self._connectionMade()

    @property
    def is_new(self) -> bool:
        """
        True until Autobahn has been given the first bytes of the handshake.
        """
        return bool(self.state == _CONNECTING) and not self.data

    @property
    def request_head(self) -> bytes:
        """
        The request line and the headers of the handshake, as they came: Autobahn's reading of them accepts too much.
        """
        head: bytes = self.http_request_data
        return head

    @property
    def request_target(self) -> str:
        """
        The path and the query of the handshake.
        """
        target: str = self.http_request_uri
        return target

    #: read what comes next
    feed = WebSocketServerProtocol._dataReceived

    def open(self, response: bytes) -> None:
        """
        End the handshake with C{response}.
        """
        # what succeedHandshake() would set, which wants the request as processHandshake() has read it
        self.state = _OPEN
        self.inside_message = False
        self.current_frame = None
        self.send(response)
        self._onOpen()

    def sendHttpErrorResponse(
        self, code: int, reason: str, responseHeaders: list[tuple[str, str]] | None = None
    ) -> None:
        # Autobahn's has no body
        self.transport.write(self.rejection(code, reason, dict(responseHeaders or ())))

    def rejection(self, status: int, reason: str, headers: dict[str, str]) -> bytes:
        """
        Return the response that rejects the handshake.
        """
        raise NotImplementedError

    def send(self, frame: bytes) -> None:
        """
        Queue one or more whole frames.
        """
        raise NotImplementedError

    def _onOpen(self) -> None:
        # not Autobahn's: it reads the object that connectionMade() does not make
        if self._perMessageCompress is not None:
            # set by Autobahn's handshake, if it has accepted an offer
            self.window_bits = self._perMessageCompress.server_max_window_bits
        for name in _HANDSHAKE_ATTRIBUTES:
            self.__dict__.pop(name, None)
        # a dict does not shrink
        self.__dict__ = dict(self.__dict__)
        self.onOpen()

    # how it ends

    def finish_writing(self) -> None:
        """
        Write what goes out before the close frame.
        """

    def send_close(self, code: CloseCode) -> None:
        """
        Send a close frame, unless one was sent before.
        """
        if self.state == _OPEN:
            # sendClose() rejects most codes that a server may send
            self.sendCloseFrame(code=int(code), reasonUtf8=code.reason.encode(), isReply=False)

    def sendCloseFrame(self, code: int | None = None, reasonUtf8: bytes | None = None, isReply: bool = False) -> None:
        # also called by Autobahn, after a close frame from the client or an error: what was queued goes out first
        self.finish_writing()
        self._direct = False
        super().sendCloseFrame(code, reasonUtf8, isReply)

    def onCloseFrame(self, code: int | None, reasonRaw: bytes | None) -> bool | None:
        self._closing = True
        try:
            done: bool | None = super().onCloseFrame(code, reasonRaw)  # type: ignore[arg-type]
        finally:
            self._closing = False
        return done

    def dropConnection(self, abort: bool = False) -> None:
        self._direct = False
        if self._closing and self.failedByMe:
            # the client's close frame is invalid: an abort would overtake the frame that says so
            abort = False
        super().dropConnection(abort)
        if not abort and unsent(self.transport):
            # the client has closed, and may never read what the transport waits for it to read
            self._pacing.abort_later(self.transport)

    def _closeConnection(self, abort: bool = False) -> None:
        # the only place where Autobahn aborts
        if abort and unsent(self.transport) > _QUICK_TO_ABORT:
            self._pacing.abort_in_turn(self.transport)
        else:
            super()._closeConnection(abort)


class Incoming(LeanProtocol):
    """
    The receiving half of a connection: short messages are read by L{dcm_ws.websocket.shortcuts}, at a fraction of the
    cost, and all others by Autobahn.

    It is in this module because both readings change the same state of Autobahn.
    """

    #: set by L{configured}: shared by all connections of a factory
    _interpreter: Interpreter
    _charges: Charges
    _now: Callable[[], float]
    _received: Received

    _session: Session | None = None
    _fragmented = False
    #: bytes of a message that is not complete
    _held = 0
    #: nothing that still comes is read, or not yet
    _ignored = False
    #: what has come and is to be read later: messages, each with its bytes that have not been charged, and then bytes
    _kept: list[bytes | tuple[bytes, bool, int]] | None = None

    def begin(self, data: bytes) -> bytes:
        """
        Open the WebSocket, if C{data} begins with a plain handshake.

        @return: what follows the handshake, or what Autobahn has to read.
        """
        raise NotImplementedError

    def message_too_big(self) -> None:
        """
        Count a message that is longer than the limit.
        """
        raise NotImplementedError

    def hold(self, size: int) -> None:
        """
        C{size} bytes of an incomplete message are held now.
        """
        raise NotImplementedError

    def session_failed(self, session: Session) -> None:
        """
        C{session} raised an exception, which is a bug.  Called by the handler of the exception.
        """
        raise NotImplementedError

    # messages

    def dataReceived(self, data: bytes) -> None:
        session = self._session
        if self._ignored:
            if session is not None and self._kept is not None:
                session.heard_at = self._now()
                self._received.bytes += len(data)
                self._kept.append(data)
            return
        if session is None:
            data = self.begin(data)
            session = self._session
            if session is None and data:
                self.feed(data)
            if session is None or not data:
                return
        session.heard_at = self._now()
        self._received.bytes += len(data)
        self._read(data, session)

    def _read(self, data: bytes, session: Session) -> None:
        if self.current_frame is not None or self.data:
            data = self._finish_frame(data)
        if not self.inside_message:
            data = self._take_short_messages(data, session)
        if data and self._kept is not None:
            self._kept.append(data)
        elif data:
            self.feed(data)
        if self._held or self.data or self.message_data:
            self.hold(len(self.data) + len(self.message_data or b""))

    def _take_short_messages(self, data: bytes, session: Session) -> bytes:
        """
        Read the messages that come in short frames; return what begins with anything else.
        """
        start, size, longest = 0, len(data), self._longest
        receive = self._interpreter.receive
        while (
            start < size
            and self.state == _OPEN
            and not self._ignored
            and (found := short_message(data, start, longest)) is not None
        ):
            began = start
            message, start = found
            try:
                receive(session, message, start - began)
            except Exception:
                self.session_failed(session)
        return data[start:] if start else data

    def _finish_frame(self, data: bytes) -> bytes:
        """
        Give Autobahn the rest of the frame that it is in the middle of; return what follows that.
        """
        if self.current_frame is not None:
            # the masker counts the bytes of the frame that have been read
            missing = self.current_frame.length - self.current_frame_masker.pointer()
        else:
            # Autobahn keeps the beginning of a frame's header in data
            head = self.data + data[:14]
            missing = frame_size(head) - len(self.data)
        self.feed(data[:missing])
        return data[missing:]

    def stop_reading(self) -> None:
        self._ignored = True
        if self._kept is None:
            self._kept = []
            self.transport.pauseProducing()

    def read_on(self) -> None:
        self._pacing.later(self._read_kept)

    def _read_kept(self) -> None:
        kept, self._kept = self._kept or [], None
        if self._session is None:
            return
        self._ignored = False
        self.transport.resumeProducing()
        for index, one in enumerate(kept):
            if isinstance(one, bytes):
                self._read(one, self._session)
            else:
                self._receive(self._session, *one)
            if self._kept is not None:
                # it waits again
                self._kept += kept[index + 1 :]
                return

    def drop_partial_message(self) -> None:
        """
        Read nothing more, and release the bytes of the message that is not complete.
        """
        self._ignored = True
        self.data, self.message_data = b"", None
        self.hold(0)

    def onMessageFrameBegin(self, length: int) -> None:
        super().onMessageFrameBegin(length)
        if self._session is not None and not (self.current_frame.fin and self.current_frame.opcode):
            self._fragmented = True
            self._charges.fragment(self._session, length)

    def onMessageBegin(self, isBinary: bool) -> None:
        super().onMessageBegin(isBinary)
        # Autobahn's list would hold tiny fragments in many times their size, and count empty ones as nothing
        self.message_data = bytearray()

    def onMessageFrameData(self, payload: bytes) -> None:
        if not self.failedByMe:
            self.message_data += payload

    def onMessageEnd(self) -> None:
        # Autobahn's own method also fires a signal, which has no listeners
        if not self.failedByMe:
            self.onMessage(bytes(self.message_data), self.message_is_binary)
        self.message_data = None

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        session, fragmented = self._session, self._fragmented
        self._fragmented = False
        if session is None:
            return
        size = 0 if fragmented else len(payload)
        if self._kept is None:
            self._receive(session, payload, isBinary, size)
        else:
            self._kept.append((payload, isBinary, size))

    def _receive(self, session: Session, payload: bytes, is_binary: bool, size: int) -> None:
        try:
            message = payload if is_binary else payload.decode()
            self._interpreter.receive(session, message, size)
        except Exception:
            self.session_failed(session)

    def _max_message_size_exceeded(self, size: int, limit: int, reason: str) -> None:
        # Autobahn's only notice of a message beyond the limit
        self.message_too_big()
        super()._max_message_size_exceeded(size, limit, CloseCode.TOO_BIG.reason)


T = TypeVar("T", bound=LeanProtocol)


def configured(connection: type[T], factory: WebSocketServerFactory, shared: Mapping[str, object]) -> type[T]:
    """
    Return a subclass of C{connection} that has the options of C{factory}, and C{shared}, as attributes of the class.
    """
    options = {
        # a function must not become a method
        name: staticmethod(option) if callable(option := getattr(factory, name)) else option
        # the names of Autobahn's options
        for name in WebSocketServerProtocol.CONFIG_ATTRS
        if hasattr(factory, name)
    }
    return type(connection.__name__, (connection,), {**options, "tcpNoDelay": True, **shared})
