"""
Which agents have changed since the journal looked.
"""

from __future__ import annotations

from collections.abc import Collection


class Changed:
    """
    Notes which agents change.  It is shared by all parts that change something, and the journal empties it.

    @ivar clients: those that were sent something, or have acknowledged something; None while there is no journal.
    """

    __slots__ = ("_agents", "clients")

    def __init__(self) -> None:
        self.clients: set[object] | None = None
        self._agents: set[str] = set()

    def start(self) -> None:
        """
        Note what changes from now on.
        """
        self.clients = set()

    def stop(self) -> None:
        """
        Forget everything, and note nothing.
        """
        self.clients = None
        self._agents.clear()

    def agent(self, name: str | None) -> None:
        """
        Something has changed of an agent; None for a client that is not one.
        """
        if self.clients is not None and name is not None:
            self._agents.add(name)

    def look(self) -> tuple[Collection[object], Collection[str]]:
        """
        The clients, and the agents, that L{take} would return.
        """
        return self.clients or (), self._agents

    def take(self) -> tuple[Collection[object], set[str]]:
        """
        The clients, and the agents, that have changed since the last call.
        """
        clients, agents = self.clients, self._agents
        if clients is None:
            return (), set()
        self.clients, self._agents = set(), set()
        return clients, agents
