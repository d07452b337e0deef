"""
What is known of one client.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from dcm_ws.core.behind import Behind
from dcm_ws.core.budgets import Budget
from dcm_ws.core.entitlement import ALL
from dcm_ws.core.ports import Peer
from dcm_ws.core.tracked import Delivery
from dcm_ws.protocol.tokens import Claims

PONGS = 100
"""
Pings whose pongs are free of charge, if a client sends them late.
"""

_NEVER = float("-inf")


class Origin(NamedTuple):
    """
    Who a client says it is when it connects.

    @ivar agent_id: from the query; proves nothing.
    @ivar session_id: from the query.
    @ivar claims: those of a valid token, if the client sent one.
    @ivar observer: the client wants events, and to owe nothing for them.
    @ivar address: what the limits per address count it by; empty if it has no address.
    """

    agent_id: str | None = None
    session_id: str | None = None
    claims: Claims | None = None
    observer: bool = False
    address: str = ""


class State(Enum):
    """
    How far a client has come.
    """

    #: it has to authenticate, and has not
    STRANGER = "stranger"
    #: it has not authenticated, and need not
    ANONYMOUS = "anonymous"
    AUTHENTICATED = "authenticated"
    #: it has proved to be an agent that another node may have, and nothing that it sends is executed yet
    WAITING = "waiting"
    CLOSED = "closed"


# to look up the member of an enumeration takes as long as a call
_STRANGER = State.STRANGER


class Session:
    """
    The state of one client.  There may be very many, so a session refers to nothing that all have in common.

    @param now: monotonic seconds.
    @param published: events published before it.

    @ivar peer: receives its frames.
    @ivar budgets: what its messages are charged to; empty if there is no limit.
    @ivar agent: the agent that it authenticated as.
    @ivar dcm_session: the DCM session that it authenticated for.
    @ivar durable: it, or its agent before, has acknowledged something or said that it will: what it does not
        acknowledge is a failure.
    @ivar rights: what it may do.
    @ivar sender: the field that names its agent in the events that it publishes; empty until it authenticates.
    @ivar observer: it receives events and owes no acks; its agent is not present by it.
    @ivar joined_at: when it connected (monotonic seconds).
    @ivar heard_at: when it last sent anything (monotonic seconds).
    @ivar ping_at: when to ping it next (monotonic seconds).
    @ivar pinged_at: when it was last pinged (monotonic seconds).
    @ivar excused_at: since when its silence counts, although it was silent before (monotonic seconds).
    @ivar pongs: pings that it may still answer free of charge.
    @ivar acks: acks that it sent and did not owe, counted on from C{published}.
    @ivar number: what the ledger calls its agent if that is present by it; 0 if it is not.
    @ivar owed: its deliveries that await an ack, by event id.
    @ivar behind: how far it is, if it catches up with the log.
    @ivar owes_in_order: what it owes acks for is in the order of the log.
    @ivar is_silent: it is not durable, although it has had time to acknowledge something.
    @ivar expires_at: when its token expires (monotonic seconds); None without an expiry, or if expiry is not enforced.
    @ivar expires_ms: the same in ms since the epoch; 0 without an expiry, or if expiry is not enforced.
    @ivar issued_ms: when its token was issued, in ms since the epoch; 0 if that is not known.
    """

    __slots__ = (
        "acks",
        "agent",
        "behind",
        "budgets",
        "client_id",
        "dcm_session",
        "durable",
        "excused_at",
        "expires_at",
        "expires_ms",
        "heard_at",
        "is_silent",
        "issued_ms",
        "joined_at",
        "number",
        "observer",
        "origin",
        "owed",
        "owes_in_order",
        "peer",
        "ping_at",
        "pinged_at",
        "pongs",
        "rights",
        "sender",
        "state",
    )

    def __init__(self, peer: Peer, client_id: str, origin: Origin, state: State, *, now: float, published: int) -> None:
        self.peer = peer
        self.client_id = client_id
        self.origin = origin
        self.state = state
        self.budgets: tuple[Budget, ...] = ()
        self.agent: str | None = None
        self.dcm_session: str | None = None
        self.durable = False
        self.rights = ALL
        self.sender = b""
        self.observer = origin.observer
        self.joined_at = self.heard_at = self.ping_at = now
        self.pinged_at = self.excused_at = _NEVER
        self.pongs = PONGS
        self.number = 0
        self.acks = published
        self.owed: dict[str, Delivery] = {}
        self.behind: Behind | None = None
        self.is_silent = False
        self.owes_in_order = True
        self.expires_at: float | None = None
        self.expires_ms = 0
        self.issued_ms = 0

    @property
    def is_stranger(self) -> bool:
        """
        True if it has to authenticate, and has not done so.
        """
        return self.state is _STRANGER

    @property
    def has_unsent(self) -> bool:
        """
        True if much of what it was sent waits for it to read.
        """
        return self.peer.has_unsent()

    @property
    def present(self) -> str | None:
        """
        The agent that is connected by this client; None for observers and clients that have not authenticated.
        """
        return None if self.observer else self.agent

    @property
    def name(self) -> str:
        """
        Who it is: its agent, or without one a name that begins with a space, as no agent's does.
        """
        return self.agent or f" {self.client_id}"

    def give_back(self, size: int) -> None:
        """
        The message of C{size} bytes that was just charged costs nothing.
        """
        for budget in self.budgets:
            budget.give_back(size)
