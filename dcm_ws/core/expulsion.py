"""
Agents that an operator disconnects, here and at the other nodes of a cluster (protocol, section 12).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import msgspec

from dcm_ws.core.clients import Clients
from dcm_ws.core.ports import Bus, World
from dcm_ws.core.presence import Presence
from dcm_ws.core.revocations import Revocations
from dcm_ws.core.session import Session
from dcm_ws.protocol.errors import CloseCode, ErrorCode, ProtocolError

TOPIC = "kick"

_ASK_SECONDS = 1.0

Save = Callable[[str, int, Callable[[bool], object]], object]


class Expelled(NamedTuple):
    """
    What has become of it.

    @ivar closed: connections that were closed.
    @ivar revoked_at: tokens that were issued up to this time are refused, in ms since the epoch; 0 if none are.
    @ivar missing: the nodes that have not answered in time.
    """

    closed: int
    revoked_at: int
    missing: list[str]


class _Order(msgspec.Struct, array_like=True, frozen=True):
    agent: str
    revoked_at: int


class _Done(msgspec.Struct, array_like=True, frozen=True):
    closed: int


_encode = msgspec.json.Encoder().encode
_order = msgspec.json.Decoder(_Order).decode
_done = msgspec.json.Decoder(_Done).decode


class Expulsion:
    """
    Closes the connections of agents, and revokes their tokens.

    @param close: ends a client's connection.
    @param bus: to the other nodes; None if there are none.

    @ivar save: writes a revocation to the database, and calls back with whether that is done; None if it is kept in
        memory only.
    """

    def __init__(
        self,
        world: World,
        *,
        clients: Clients,
        revocations: Revocations,
        presence: Presence,
        bus: Bus | None,
        close: Callable[[Session, CloseCode], object],
    ) -> None:
        self._wall_ms = world.wall_ms
        self._clients = clients
        self._revocations = revocations
        self._presence = presence
        self._bus = bus
        self._close = close
        self.save: Save | None = None
        # connections that the revocations which were loaded last have closed, before their order came
        self._closed: Counter[_Order] = Counter()
        if bus is not None:
            bus.attach(TOPIC, self._asked)

    def expel(self, agent: str, ready: Callable[[Expelled | ProtocolError], object], *, revoke: bool = False) -> None:
        """
        Close all connections of an agent, also those of observers and of readers over HTTP.

        @param ready: called once, within a few seconds, and maybe before this returns.
        @param revoke: refuse its tokens that were issued up to now.  If that cannot be written to the database, nothing
            is done.
        """
        if not revoke:
            self._everywhere(_Order(agent, 0), ready)
            return
        now_ms = self._wall_ms()
        try:
            self._revocations.check_room(agent, now_ms)
        except ProtocolError as error:
            ready(error)
            return
        order = _Order(agent, now_ms)
        if self.save is None:
            self._everywhere(order, ready)
        else:
            self.save(agent, now_ms, partial(self._saved, order, ready))

    def _saved(self, order: _Order, ready: Callable[[Expelled | ProtocolError], object], is_saved: bool) -> None:
        if is_saved:
            self._everywhere(order, ready)
        else:
            reason = "The database cannot be written, so nothing was done; try again"
            ready(ProtocolError(ErrorCode.NOT_AVAILABLE, reason))

    def _everywhere(self, order: _Order, ready: Callable[[Expelled], object]) -> None:
        closed, nodes = self._here(order), self._presence.nodes
        names = [] if nodes is None else list(nodes.names)
        missing: list[str] = []
        left = len(names)

        def answered(node: str, message: bytes | None) -> None:
            nonlocal closed, left
            try:
                closed += _done(message or b"").closed
            except msgspec.DecodeError:
                missing.append(node)
            left -= 1
            if not left:
                ready(Expelled(closed, order.revoked_at, sorted(missing)))

        if not names:
            ready(Expelled(closed, order.revoked_at, []))
        for name in names:
            assert self._bus is not None
            self._bus.ask(name, TOPIC, _encode(order), _ASK_SECONDS, partial(answered, name))

    def _asked(self, node: str, message: bytes) -> bytes | None:
        try:
            order = _order(message)
        except msgspec.DecodeError:
            # only a node of another version understands it
            return None
        return _encode(_Done(self._here(order)))

    def _here(self, order: _Order) -> int:
        if order.revoked_at:
            self._revocations.add([(order.agent, order.revoked_at)])
        sessions = [session for session in self._clients.sessions if session.agent == order.agent]
        for session in sessions:
            self._close(session, CloseCode.DISCONNECTED)
        return len(sessions) + self._closed.pop(order, 0)

    def load(self, revoked: Iterable[tuple[str, int]]) -> None:
        """
        These revocations are in the database: those that are new here hold from now on, also for the clients that are
        connected.
        """
        new = dict(self._revocations.add(revoked))
        if not new:
            return
        self._closed.clear()
        for session in [one for one in self._clients.sessions if one.agent in new]:
            if session.agent is not None and session.issued_ms <= new[session.agent]:
                self._close(session, CloseCode.DISCONNECTED)
                self._closed[_Order(session.agent, new[session.agent])] += 1
