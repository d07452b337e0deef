"""
Tracked events on their way to clients, as values (protocol, section 4).
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from dcm_ws.core.ledger import Noted


class Recipient(Protocol):
    """
    A client, as far as deliveries go.
    """

    #: what the client has not acknowledged yet, by event id, oldest first
    owed: dict[str, Delivery]
    #: it has acknowledged something, on this connection or before, or has said that it will
    durable: bool
    #: it is not durable, although it has had time to acknowledge something
    is_silent: bool
    #: what it has not acknowledged is in the order of the log
    owes_in_order: bool
    #: what the ledger calls its agent; 0 for none
    number: int
    #: when it last sent anything (monotonic seconds)
    heard_at: float

    @property
    def name(self) -> str:
        """
        Its agent, or what stands for a client without one.
        """

    @property
    def has_unsent(self) -> bool:
        """
        Much of what it was sent waits for it to read.
        """


class Tracked(NamedTuple):
    """
    A tracked event, as the frames that certain clients receive.

    @ivar seq: the event's position in the log.
    @ivar sends: how often it was sent before to the agent of these clients, since the agent was last away.
    @ivar earlier: how often before that.
    """

    seq: int
    id: str
    frames: tuple[bytes, ...]
    sends: int = 0
    earlier: int = 0

    @property
    def size(self) -> int:
        """
        Bytes of the frames.
        """
        return sum(map(len, self.frames))


class Owed(NamedTuple):
    """
    A tracked event that an agent has not acknowledged and gets again; C{sends} and C{earlier} are as in L{Tracked}.

    @ivar event: with its frames, if they need not be in the log.
    """

    id: str
    sends: int
    earlier: int
    event: Tracked | None = None


class Delivery:
    """
    One sending of one event to all clients that receive the same frames.
    """

    __slots__ = ("acks", "due", "event", "refused", "sends", "waiting", "weight")

    def __init__(self, event: Tracked, sends: int, due: float) -> None:
        self.event = event
        self.waiting: set[Recipient] = set()
        self.sends = sends
        self.due = due
        #: bytes that count as held by it
        self.weight = 0
        #: its client has refused it, and gets it again when it is due
        self.refused = False
        self.acks: Noted | None = None


class Late(NamedTuple):
    """
    A delivery that is due.

    @ivar frames: what to send again; nothing if the delivery has been given up instead.
    @ivar deliveries: how often it was sent, if it is not sent to the client again after this.
    """

    client: Recipient
    frames: tuple[bytes, ...]
    event: Tracked
    deliveries: int
