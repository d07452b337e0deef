"""
All clients together: they connect, authenticate and leave, and a periodic pass checks them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from msgspec import Raw

from dcm_ws.core.agents import AgentMemory
from dcm_ws.core.arrivals import Arrivals
from dcm_ws.core.catchup import CatchUp
from dcm_ws.core.clients import Clients
from dcm_ws.core.counters import Count
from dcm_ws.core.counts import Counts
from dcm_ws.core.dead_letters import DeadLetters
from dcm_ws.core.delivery import DeliveryQueue
from dcm_ws.core.entitlement import Entitlement
from dcm_ws.core.grants import Grants
from dcm_ws.core.identity import Identity
from dcm_ws.core.ids import client_id
from dcm_ws.core.journal import Journal
from dcm_ws.core.keys import PublishKeys
from dcm_ws.core.ledger import Ledger
from dcm_ws.core.liveness import Liveness
from dcm_ws.core.ownership import Ownership
from dcm_ws.core.ports import Log, Owners, Peer, World
from dcm_ws.core.presence import Presence
from dcm_ws.core.registry import ChannelRegistry
from dcm_ws.core.resumption import Resumption
from dcm_ws.core.router import Router
from dcm_ws.core.rules import Rules
from dcm_ws.core.session import Origin, Session, State
from dcm_ws.protocol.channels import GLOBAL
from dcm_ws.protocol.commands import Auth, Position
from dcm_ws.protocol.errors import CloseCode, ProtocolError
from dcm_ws.protocol.replies import connected_frame, refused_frame

_EXPIRED_AT_ONCE = 256
# to drop as many things takes as long as to check so many clients, of which a turn of the reactor does some hundred
_EXPIRY = (None,) * 32


class Hub:
    """
    Lets clients in and out, and keeps what they leave behind.

    @param server: the name and version sent to clients.
    @param max_connections: clients at once.
    @param clients_elsewhere: returns the number of clients that other processes have, and that C{max_connections}
        holds for, too; None if there are none.

    @ivar draining: the service is about to stop; before L{drain} is called, clients do not notice.
    @ivar was_reset: called when all agents have been forgotten.
    """

    def __init__(
        self,
        world: World,
        rules: Rules,
        counts: Counts,
        *,
        server: str,
        max_connections: int,
        clients_elsewhere: Callable[[], int] | None = None,
        clients: Clients,
        registry: ChannelRegistry[Session],
        deliveries: DeliveryQueue,
        memory: AgentMemory,
        letters: DeadLetters,
        keys: PublishKeys,
        log: Log,
        ledger: Ledger,
        catch_up: CatchUp,
        grants: Grants,
        router: Router,
        liveness: Liveness,
        presence: Presence,
        resumption: Resumption,
        identity: Identity,
        entitlement: Entitlement,
        journal: Journal,
        ownership: Ownership,
        owners: Owners | None,
    ) -> None:
        self._world = world
        self._rules = rules
        self._counts = counts
        self._crossed: dict[CloseCode, Count] = {
            CloseCode.TOO_SLOW: counts.limits.max_send_buffer,
            CloseCode.TOO_MANY_MESSAGES: counts.limits.rate_limit_tenfold,
            CloseCode.PING_TIMEOUT: counts.limits.heartbeat_timeout,
            CloseCode.AUTHENTICATION_REQUIRED: counts.limits.auth_timeout,
        }
        self._server = server
        self._max_connections = max_connections
        self._clients_elsewhere = clients_elsewhere
        self._clients = clients
        self._registry = registry
        self._deliveries = deliveries
        self._memory = memory
        self._letters = letters
        self._keys = keys
        self._log = log
        self._ledger = ledger
        self._catch_up = catch_up
        self._grants = grants
        self._router = router
        self._liveness = liveness
        self._presence = presence
        self._resumption = resumption
        self._identity = identity
        self._entitlement = entitlement
        self._journal = journal
        self._ownership = ownership
        self._arrivals = Arrivals(
            world,
            counts,
            owners=owners,
            identity=identity,
            ownership=ownership,
            log=log,
            close=self.close,
            tidy=self._disconnect_lost,
        )
        self._leaving: dict[Session, None] = {}
        # closed by a reset, and not told so yet; false if there is no gap to tell of
        self._outdated: dict[Session, bool] = {}
        self.draining = False
        self.was_reset: Callable[[], object] = _nothing

    # coming and going

    def connect(self, peer: Peer, origin: Origin) -> Session | None:
        """
        A client has connected.  None if there is no room for it: its connection has been closed then.
        """
        clients = self._clients
        if not self.has_room():
            self._counts.limits.max_connections.add()
            self._counts.closes[CloseCode.TRY_AGAIN_LATER] += 1
            peer.close(CloseCode.TRY_AGAIN_LATER)
            return None
        production, listens = self._rules.production, self._rules.anonymous_listeners
        session = Session(
            peer,
            client_id(self._world),
            origin,
            State.STRANGER if production else State.ANONYMOUS,
            now=self._world.now(),
            published=self._router.published,
        )
        self._grants.to_anonymous(session)
        clients.entitle(session, self._entitlement.of_anonymous(origin.agent_id, origin.session_id))
        clients.sessions.add(session)
        if origin.observer:
            clients.observers.add(session)
        self._counts.connections += 1
        self._liveness.watch(session)
        place = self._catch_up.place(session)
        peer.send(connected_frame(session.client_id, self._server, self._world.wall_ms(), place))
        if listens or not production:
            self._registry.join(session, GLOBAL.name)
        if listens and production:
            clients.strangers.add(session)
            clients.observers.add(session)
        if origin.claims is not None:
            # the agent may be one of those whose connections are lost, and receive what it left behind
            self._disconnect_lost()
            self._arrivals.identify(session, origin.claims, Auth())
        return session

    def has_room(self) -> bool:
        """
        Is there room for another client?
        """
        sessions, most = self._clients.sessions, self._max_connections
        if self._clients_elsewhere is not None:
            most -= self._clients_elsewhere()
        if len(sessions) >= most:
            self._disconnect_lost()
        return len(sessions) < most

    def authenticate(self, session: Session, auth: Auth) -> None:
        """
        Execute an C{auth} command.

        @raise ProtocolError: C{TOKEN_REQUIRED}, C{TOKEN_INVALID}, C{TOKEN_EXPIRED} or C{AGENT_ID_REQUIRED};
            or why it may not resume the channels that it names.
        """
        late = partial(self._authenticate_late, session, auth)
        if auth.token is None or not self._arrivals.wait_for_key(session, auth.token, late):
            self._authenticate(session, auth)

    def _authenticate_late(self, session: Session, auth: Auth) -> None:
        """
        The same, when nobody expects what it raises any more.
        """
        try:
            self._authenticate(session, auth)
        except ProtocolError as error:
            error.request = auth.id
            self._counts.refusals[error.code] += 1
            session.peer.send(refused_frame(error, self._world.wall_ms()))

    def _authenticate(self, session: Session, auth: Auth) -> None:
        claims = self._identity.claims(auth)
        if auth.resume is not None:
            self._resumption.check(session, auth.resume, self._identity.rights(session, claims, auth))
        self._disconnect_lost()
        self._arrivals.identify(session, claims, auth)

    def resume(self, session: Session, position: Position, request: Raw) -> None:
        """
        Execute a C{resume} command, which L{Resumption.check} has allowed.
        """
        self._arrivals.when_there(
            session, position, partial(self._resumption.resume, session, position, None, request), request
        )

    def disconnect(self, session: Session) -> None:
        """
        The connection of a client is lost.  Nothing happens if it was closed before.
        """
        self._leaving.pop(session, None)
        if session.state is State.CLOSED:
            self._outdated.pop(session, None)
            return
        agent = session.present
        self._resumption.keep(session)
        session.behind = None
        self._grants.end(session)
        session.state = State.CLOSED
        self._registry.drop(session)
        self._liveness.forget(session)
        self._clients.remove(session)
        if agent is not None:
            self._presence.end(session, agent)
            if self.draining:
                self._ownership.parted(agent)

    def leave(self, session: Session) -> None:
        """
        The connection of a client is lost, with many others: it is enough to disconnect it later, but before anyone
        authenticates or is turned away for lack of room.
        """
        self._leaving[session] = None

    def _disconnect_lost(self) -> None:
        while self._leaving:
            self.disconnect(next(iter(self._leaving)))

    def close(self, session: Session, code: CloseCode) -> None:
        """
        End a client's connection, for the reason that C{code} gives.
        """
        if session.state is not State.CLOSED:
            self._counts.closes[code] += 1
            if limit := self._crossed.get(code):
                limit.add()
            self.disconnect(session)
            session.peer.close(code)

    def restart(self) -> None:
        """
        Close all clients, which resume when they come back: what this node has of their agents may be old.
        """
        self._close_all(tell=False)

    def reset(self) -> None:
        """
        The log has become another one: forget all agents, dead letters and keys, and close all clients, which resume
        when they come back.

        From now on they neither receive events nor execute commands.  That they are closed they learn with the next
        sweep, since there may be very many: here each takes a microsecond.
        """
        # positions that clients have are not of a log that was not found yet, so there is nothing to tell them
        self._close_all(tell=self._catch_up.knows_log)

    def _close_all(self, *, tell: bool) -> None:
        clients = self._clients
        for session in clients.sessions:
            session.state = State.CLOSED
            session.behind = None
            session.owed = {}
            self._grants.end(session)
        self._outdated.update(dict.fromkeys(clients.sessions, tell))
        clients.clear()
        self._leaving.clear()
        self._presence.clear()
        # the journal first: it must not take for a change of agents that they are forgotten here
        self._journal.clear()
        for part in (self._registry, self._liveness, self._deliveries, self._memory, self._letters, self._keys):
            part.clear()
        self._ledger.clear()
        self.was_reset()

    def _close_outdated(self) -> Iterator[None]:
        while self._outdated:
            session, tell = self._outdated.popitem()
            self._counts.closes[CloseCode.RESTART] += 1
            if tell:
                session.peer.send(self._catch_up.new_epoch())
            session.peer.close(CloseCode.RESTART)
            yield

    # the periodic pass, and the end

    def sweep(self) -> Iterator[None]:
        """
        Check the clients whose time has come, one a step.
        """
        yield from self._close_outdated()
        self._memory.expire()
        self._grants.forget()
        self._ledger.expire(self._log.first)
        for expire in (self._log.expire, self._keys.expire, self._letters.expire):
            while expire(_EXPIRED_AT_ONCE):
                yield from _EXPIRY
        yield from self._presence.sweep()
        yield from self._liveness.sweep(self._catch_up, self.close)

    def drain(self, *, accept: bool = False) -> None:
        """
        Notify the subscribers of C{global} that the service is about to close them.

        @param accept: accept what they publish until they are closed; otherwise nothing is accepted any more.
        """
        self.draining = True
        self._router.draining = not accept
        self._router.announce(GLOBAL, "system.info", {"component": "server", "state": "draining"})


def _nothing() -> None:
    pass
