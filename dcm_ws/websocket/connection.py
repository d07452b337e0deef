"""
One client's WebSocket connection: the L{Peer} of its session.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol, Self

from autobahn.twisted.websocket import WebSocketServerFactory
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from dcm_ws.core.charges import Charges
from dcm_ws.core.counts import Counts
from dcm_ws.core.hub import Hub
from dcm_ws.core.interpreter import Interpreter
from dcm_ws.core.ports import World
from dcm_ws.core.session import Origin, Session
from dcm_ws.http.pacing import Pacing
from dcm_ws.http.transport import has_unread, is_plain_tcp, read_at_most
from dcm_ws.protocol.errors import CloseCode
from dcm_ws.protocol.frames import pong_control_frame
from dcm_ws.websocket.autobahn import Incoming, configured
from dcm_ws.websocket.handshake import Handshake
from dcm_ws.websocket.outgoing import Outgoing

# an operator may filter by this name
_log = Logger(namespace="dcm_ws.websocket.WebSocketConnection")

# bytes of one client in a turn of the reactor: tiny frames take a hundred times their size
_READ_AT_ONCE = 16 << 10


class ConnectionLimits(NamedTuple):
    """
    The limits that hold for each connection, or for all together.

    @ivar message: bytes of one message from a client.
    @ivar send_buffer: bytes that may wait for a client to read them.
    @ivar compression: offer C{permessage-deflate}; C{message} holds for what a message inflates to, too.
    @ivar stranger_message: bytes of one message from a client that has to authenticate and has not.
    @ivar partial: bytes of messages that are not complete, of all connections.
    """

    message: int
    send_buffer: int
    compression: bool
    stranger_message: int
    partial: int


class Room(Protocol):
    """
    What a connection needs of the factory that admits and counts it.
    """

    def admit(self, connection: WebSocketConnection, target: str, headers: Mapping[str, str]) -> Origin: ...

    def opened(self, connection: WebSocketConnection) -> None: ...

    def lost(self, connection: WebSocketConnection) -> None: ...

    def hold(self, connection: WebSocketConnection, size: int, *, stranger: bool) -> None: ...


class WebSocketConnection(Outgoing, Handshake, Incoming):  # type: ignore[misc]  # two of Autobahn's bases disagree
    """
    One client's connection.
    """

    # set by the factory, as Autobahn needs it
    factory: Room
    #: set by L{sharing}: shared by all connections of a factory
    _hub: Hub
    _stranger_message: int

    _origin: Origin

    @classmethod
    def sharing(
        cls,
        factory: WebSocketServerFactory,
        *,
        hub: Hub,
        interpreter: Interpreter,
        charges: Charges,
        world: World,
        counts: Counts,
        production: bool,
        limits: ConnectionLimits,
        pacing: Pacing,
    ) -> type[Self]:
        """
        Return the class of the connections that share these collaborators, as attributes of the class: attributes of
        each connection would take 8 bytes each.
        """
        shared = {
            "_charges": charges,
            "_compression": limits.compression,
            "_hub": hub,
            "_interpreter": interpreter,
            "_limits": counts.limits,
            "_longest": limits.message,
            "_now": staticmethod(world.now),
            "_pacing": pacing,
            "_received": counts.received,
            "_send_buffer": limits.send_buffer,
            "_sent": counts.sent,
            "_server": factory.server,
            "_stranger_message": limits.stranger_message if production else limits.message,
            "_wall_ms": staticmethod(world.wall_ms),
        }
        return configured(cls, factory, shared)

    # how it begins

    def admit(self, target: str, headers: Mapping[str, str]) -> None:
        self._origin = self.factory.admit(self, target, headers)

    def onOpen(self) -> None:
        plain = is_plain_tcp(self.transport)
        if plain:
            read_at_most(self.transport, _READ_AT_ONCE)
        self._direct = plain and self.window_bits is None
        origin = self.__dict__.pop("_origin")
        self.factory.opened(self)
        if self._stranger_message < self._longest:
            self.limit_messages(self._stranger_message)
        self._session = self._hub.connect(self, origin)
        if self._session is not None:
            _log.info(
                "{client} joined from {peer}",
                client=self._session.client_id,
                peer=self.address,
            )

    def trust(self) -> None:
        self.unlimit_messages()

    # what comes

    def onPing(self, payload: bytes) -> None:
        # Autobahn's would write at once, and pile up Pongs for a client that does not read
        if self.may_send and (self._session is None or self._charges.control(self._session, len(payload))):
            self.send(pong_control_frame(payload))

    def onPong(self, payload: bytes) -> None:
        if self._session is not None:
            self._charges.control(self._session, len(payload))

    def session_failed(self, session: Session) -> None:
        _log.failure("{client} broke its session", client=session.client_id)
        self._hub.close(session, CloseCode.INTERNAL_ERROR)

    def message_too_big(self) -> None:
        if self._longest < type(self)._longest:
            self._limits.max_stranger_message.add()
        else:
            self._limits.max_message_size.add()

    def hold(self, size: int) -> None:
        self._held = size
        self.factory.hold(self, size, stranger=self._session is not None and self._session.is_stranger)

    def close_partial_message(self) -> None:
        """
        Close the connection, because its incomplete message takes too much room, and release that room.
        """
        self.drop_partial_message()
        if self._session is not None:
            self._hub.close(self._session, CloseCode.TOO_BIG)

    def has_unread(self) -> bool:
        return has_unread(self.transport)

    # how it ends

    def too_slow(self) -> None:
        if self._session is not None:
            self._hub.close(self._session, CloseCode.TOO_SLOW)

    def close(self, code: CloseCode) -> None:
        if code is CloseCode.TOO_SLOW:
            # the client would not read what is queued, and the close frame must not wait for that
            self.discard_queue()
        # a client that is closed for what it sends must not make us read on
        self._ignored = code in (CloseCode.TOO_MANY_MESSAGES, CloseCode.TOO_BIG)
        if self._kept is not None:
            # the client's close frame comes after what was kept
            self._ignored = True
            self.read_on()
        self.discard_waiting()
        self.finish_writing()
        self.send_close(code)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._direct = False
        super().connectionLost(reason)
        if self._held:
            self.hold(0)
        self.discard_queue()
        self._replay = None
        session, self._session = self._session, None
        if session is not None and not self._pacing.releases.do(lambda: self.release(session)):
            self._hub.leave(session)
        self.factory.lost(self)

    def release(self, session: Session) -> None:
        """
        Clean up after the client of C{session}, whose connection is lost.
        """
        agent = session.agent
        self._hub.disconnect(session)
        _log.info(
            "{client} left after {seconds:.1f} s ({agent}, close code {code})",
            client=session.client_id,
            agent="no agent" if agent is None else agent,
            seconds=self._now() - session.joined_at,
            code=self.close_code,
        )
