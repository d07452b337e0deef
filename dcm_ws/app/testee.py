"""
An echo service for WebSocket testsuites: the factory, the protocol class and the transport are those of production.
"""

from __future__ import annotations

from dcm_ws.core.hub import Hub
from dcm_ws.core.interpreter import Interpreter
from dcm_ws.core.ports import Peer
from dcm_ws.core.session import Origin, Session, State
from dcm_ws.protocol.frames import binary_frame, text_frame


class EchoInterpreter(Interpreter):
    """
    Sends every message back, text as text and binary as binary.
    """

    def receive(self, session: Session, message: str | bytes, size: int | None = None) -> None:
        frame = text_frame(message.encode()) if isinstance(message, str) else binary_frame(message)
        session.peer.send(frame)


class EchoHub(Hub):
    """
    Sends nothing on its own, not even C{connected}.
    """

    def connect(self, peer: Peer, origin: Origin) -> Session:
        session = Session(peer, "testee", origin, State.ANONYMOUS, now=self._world.now(), published=0)
        self._clients.sessions.add(session)
        return session
