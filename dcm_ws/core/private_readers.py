"""
Who may read private channels.
"""

from __future__ import annotations

from collections.abc import Set

from dcm_ws.core.session import Session
from dcm_ws.protocol.channels import is_private

_NOBODY: frozenset[Session] = frozenset()


class PrivateReaders:
    """
    Which clients may read which private channel, if these are strict: an index, so that an event costs nothing for
    clients that do not get it.
    """

    def __init__(self) -> None:
        self._readers: dict[str, set[Session]] = {}
        self._names: dict[Session, frozenset[str]] = {}
        # those whose rights are not a list of channels
        self._others: set[Session] = set()

    def update(self, session: Session) -> None:
        """
        The rights of C{session} have changed.
        """
        self.forget(session)
        rights = session.rights
        names = rights.own
        if rights.scope is not None:
            names |= frozenset(filter(is_private, rights.scope.names))
            if rights.scope.spans_private:
                self._others.add(session)
        if names:
            self._names[session] = names
            for name in names:
                self._readers.setdefault(name, set()).add(session)

    def forget(self, session: Session) -> None:
        """
        C{session} is closed.
        """
        self._others.discard(session)
        for name in self._names.pop(session, ()):
            readers = self._readers[name]
            readers.remove(session)
            if not readers:
                del self._readers[name]

    def clear(self) -> None:
        """
        All clients are closed.
        """
        self._readers.clear()
        self._names.clear()
        self._others.clear()

    def among(self, sessions: Set[Session], channel: str) -> Set[Session]:
        """
        Those of some clients that may read a private channel.
        """
        readers = sessions & self._readers.get(channel, _NOBODY)
        if not self._others:
            return readers
        return readers | {one for one in self._others if one in sessions and one.rights.may_read(channel)}
