"""
An echo service for WebSocket testsuites: the factory, the protocol class and the transport are those of production.
"""

from __future__ import annotations

from dcm_ws.core.hub import Hub
from dcm_ws.core.session import Origin, Peer, Session
from dcm_ws.protocol.frames import binary_frame, text_frame


class EchoSession(Session):
    """
    Sends every message back, text as text and binary as binary.
    """

    __slots__ = ()

    def receive(self, message: str | bytes, size: int | None = None) -> None:
        frame = text_frame(message.encode()) if isinstance(message, str) else binary_frame(message)
        self.peer.send(frame)


class EchoHub(Hub):
    """
    Sends nothing on its own, not even C{connected}.
    """

    def connect(self, peer: Peer, origin: Origin) -> Session:
        session = EchoSession(self, peer, "testee", origin)
        self.sessions.add(session)
        return session
