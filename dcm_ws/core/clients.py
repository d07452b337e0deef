"""
The clients that are connected.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dcm_ws.core.session import Session


@dataclass(slots=True)
class Clients:
    """
    All clients that are connected, and those of them that are treated differently.

    @ivar sessions: all clients.
    @ivar observers: those that owe no acks, and whose agents are not present by them.
    @ivar strangers: those of the observers that listen in production without having authenticated.
    @ivar behind: those that catch up with the log, and get what is logged from there.
    @ivar authenticated: how many have authenticated.
    """

    sessions: set[Session] = field(default_factory=set)
    observers: set[Session] = field(default_factory=set)
    strangers: set[Session] = field(default_factory=set)
    behind: set[Session] = field(default_factory=set)
    authenticated: int = 0

    def remove(self, session: Session) -> None:
        """
        Forget C{session}, which is closed.
        """
        self.sessions.discard(session)
        self.observers.discard(session)
        self.strangers.discard(session)
        self.behind.discard(session)
        if session.agent is not None:
            self.authenticated -= 1
