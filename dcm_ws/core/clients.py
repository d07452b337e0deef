"""
The clients that are connected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from dcm_ws.core.entitlement import Rights
from dcm_ws.core.private_readers import PrivateReaders
from dcm_ws.core.session import Session

NOTHING = 1 << 62
"""
More than any position.
"""


class Elsewhere(NamedTuple):
    """
    An agent that another node has taken while connections of it were open here.

    These get what they have missed and then new events, as before.  What the agent owes is up to the other node.

    @ivar node: the name of the other node.
    @ivar places: the channels in which the other node sees to what the agent gets, each with the position after which
        the agent had not been sent everything when it was taken.
    @ivar head: the end of the log then.
    @ivar given_up: the lowest position of what was sent here since and was given up; L{NOTHING} for none.
    """

    node: str
    places: Mapping[str, int]
    head: int
    given_up: int = NOTHING


@dataclass(slots=True)
class Clients:
    """
    All clients that are connected, and those of them that are treated differently.

    @ivar sessions: all clients.
    @ivar observers: those that owe no acks, and whose agents are not present by them.
    @ivar strangers: those of the observers that listen in production without having authenticated.
    @ivar behind: those that catch up with the log, and get what is logged from there.
    @ivar connections: the connections of each agent that has any, the oldest first.
    @ivar shared: the agents that have several, or one here and belong to another node, or have one there, too.
    @ivar elsewhere: the agents that have connections here, and are another node's.
    @ivar abroad: the agents that have connections here and, as far as is known, at other nodes.
    @ivar private_readers: who may read which private channel; None if private channels are not strict.
    @ivar authenticated: how many have authenticated.
    """

    sessions: set[Session] = field(default_factory=set)
    observers: set[Session] = field(default_factory=set)
    strangers: set[Session] = field(default_factory=set)
    behind: set[Session] = field(default_factory=set)
    connections: dict[str, dict[Session, None]] = field(default_factory=dict)
    shared: set[str] = field(default_factory=set)
    elsewhere: dict[str, Elsewhere] = field(default_factory=dict)
    abroad: set[str] = field(default_factory=set)
    private_readers: PrivateReaders | None = None
    authenticated: int = 0

    def others(self, session: Session, agent: str) -> list[Session]:
        """
        The connections of C{agent} other than C{session}.
        """
        connections = self.connections.get(agent)
        if connections is None or (len(connections) == 1 and session in connections):
            return []
        return [one for one in connections if one is not session]

    def look(self, agent: str) -> None:
        """
        The connections of C{agent} have changed, or where it is: is it shared?
        """
        connections = self.connections.get(agent, ())
        if len(connections) > 1 or (connections and (agent in self.elsewhere or agent in self.abroad)):
            self.shared.add(agent)
        else:
            self.shared.discard(agent)

    def entitle(self, session: Session, rights: Rights) -> None:
        """
        C{session} has these rights from now on.
        """
        session.rights = rights
        if self.private_readers is not None:
            self.private_readers.update(session)

    def disentitle(self, session: Session) -> None:
        """
        C{session} gets nothing any more.
        """
        if self.private_readers is not None:
            self.private_readers.forget(session)

    def clear(self) -> None:
        """
        Forget all clients, which are closed.
        """
        for kept in (self.sessions, self.observers, self.strangers, self.behind, self.connections, self.shared):
            kept.clear()
        self.elsewhere.clear()
        self.abroad.clear()
        if self.private_readers is not None:
            self.private_readers.clear()
        self.authenticated = 0

    def remove(self, session: Session) -> None:
        """
        Forget C{session}, which is closed.
        """
        self.sessions.discard(session)
        self.observers.discard(session)
        self.strangers.discard(session)
        self.behind.discard(session)
        self.disentitle(session)
        if session.agent is not None:
            self.authenticated -= 1
