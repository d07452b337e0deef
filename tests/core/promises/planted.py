"""
Bugs that are planted into the core, to see that the courses find them: C{python -m tests.core.promises.planted}.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from unittest.mock import patch

from hypothesis import HealthCheck, Phase, given, seed, settings

from dcm_ws.core.behind import Behind
from dcm_ws.core.catchup import CatchUp
from dcm_ws.core.clients import Clients
from dcm_ws.core.delivery import DeliveryQueue
from dcm_ws.core.entries import Entry
from dcm_ws.core.log import MemoryLog
from dcm_ws.core.replay import Replay
from dcm_ws.core.session import Session
from dcm_ws.core.settling import Settling
from tests.core.promises.ledger import BrokenPromiseError
from tests.core.promises.operations import Operation, operations, play
from tests.core.promises.operations import settings as choices

_begin, _sent, _read, _settle = CatchUp.begin, DeliveryQueue.sent, MemoryLog._read, Settling._settle
Places = Mapping[str, int]


def late_start(self: CatchUp, session: Session, *, resumed: Places | None = None, **named: Any) -> None:
    """
    A client that resumes begins one event too late.
    """
    _begin(self, session, resumed={name: pos + 1 for name, pos in (resumed or {}).items()}, **named)


def late_seam(self: CatchUp, session: Session, *, live: int | None = None, **named: Any) -> None:
    """
    A client that is at its limit goes on one event too late.
    """
    _begin(self, session, live=None if live is None else live + 1, **named)


def silent_loss(self: MemoryLog, after: int, channels: Places) -> int:
    """
    Events leave the log, and nobody is told.
    """
    return 0


def no_takeover(self: Clients, session: Session, agent: str) -> list[Session]:
    """
    Connections of one agent know nothing of each other: none takes over what another one owes.
    """
    return []


def one_copy(self: Settling, session: Session, ack: Any) -> bool:
    """
    An ack settles what the connection owes on which it comes, and not what other connections of the agent owe.
    """
    return _settle(self, session, ack, session.heard_at, came_here=True)


def dropped_at_limit(self: DeliveryQueue, event: Any, audience: Any) -> None:
    """
    A client that owes as many acks as it may loses its oldest event, and gets the new one.
    """
    _sent(self, event, audience)
    for client in list(self.full):
        del self.full[client]
        self._settle(client, next(iter(client.owed)))


def no_mirror(self: MemoryLog, after: int, channels: Places, most: int) -> tuple[list[Entry], int]:
    """
    The log does not find events of other channels for the subscribers of C{global}.
    """
    entries, upto = _read(self, after, channels, most)
    return [entry for entry in entries if entry.channel in channels], upto


def never_full(self: Replay, session: Session, behind: Behind) -> bool:
    """
    A client that catches up gets more than may be in flight.
    """
    return False


BUGS: tuple[tuple[type, str, Any], ...] = (
    (CatchUp, "begin", late_start),
    (CatchUp, "begin", late_seam),
    (MemoryLog, "_lost_after", silent_loss),
    (Clients, "others", no_takeover),
    (Settling, "settle", one_copy),
    (DeliveryQueue, "sent", dropped_at_limit),
    (MemoryLog, "_read", no_mirror),
    (Replay, "_is_full", never_full),
)
"""
A class, a method of it, and what takes the method's place.
"""


def courses_until_found(where: type, method: str, bug: Any, most: int) -> int | None:
    """
    Plant a bug; return the number of courses until one finds it, or None if C{most} do not.
    """
    number = 0

    @seed(1)
    @settings(
        max_examples=most, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=[*HealthCheck]
    )
    @given(choices, operations)
    def find(chosen: dict[str, Any], todo: list[Operation]) -> None:
        nonlocal number
        number += 1
        play(chosen, todo)

    with patch.object(where, method, bug):
        try:
            find()
        except BrokenPromiseError:
            return number
    return None


def main() -> None:
    """
    Plant each bug.
    """
    for where, method, bug in BUGS:
        found = courses_until_found(where, method, bug, 2000)
        print(f"{bug.__name__:20} {'not found' if found is None else found}", flush=True)


if __name__ == "__main__":
    main()
