"""
Bugs that are planted into what survives a crash, to see that the courses find them:
C{python -m tests.core.promises.crash_bugs}.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from unittest.mock import patch

import msgspec
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import FlakyFailure

from dcm_ws.core import journal
from dcm_ws.core.agent_states import AgentState, Change
from dcm_ws.core.agents import Absence
from dcm_ws.core.catchup import CatchUp
from dcm_ws.core.changed import Changed
from dcm_ws.core.dead_letters import DeadLetters
from dcm_ws.core.journal import Changes, Journal
from dcm_ws.core.loading import Loading
from dcm_ws.core.session import Session
from tests.core.promises.crashes import Operation, operations, pending, play
from tests.core.promises.ledger import BrokenPromiseError

_state_of_all, _places, _difference, _merge = (
    Journal._state_of_all,
    CatchUp.places,
    journal.difference,  # type: ignore[attr-defined]
    journal.merge,  # type: ignore[attr-defined]
)


def settled_forgotten(old: AgentState, new: AgentState) -> Change | None:
    """
    What was acknowledged is still owed.
    """
    change = _difference(old, new)
    return None if change is None else msgspec.structs.replace(change, settled=[])


def owed_forgotten(self: Journal, agent: str, connections: Iterable[Session]) -> AgentState:
    """
    What was sent and has not been acknowledged is not written.
    """
    return msgspec.structs.replace(_state_of_all(self, agent, connections), owed={})


def waiting_forgotten(self: Journal, agent: str, connections: Iterable[Session]) -> AgentState:
    """
    What a connection owes and has not been sent again yet is not written.
    """
    kept = [(session.behind, session.behind.owed) for session in connections if session.behind is not None]
    for behind, _ in kept:
        behind.owed = {}
    state = _state_of_all(self, agent, connections)
    for behind, owed in kept:
        behind.owed = owed
    return state


def sent_too_far(self: CatchUp, session: Session) -> tuple[int, dict[str, int]]:
    """
    What waits for a client in the log counts as sent.
    """
    head = self.head
    return head, dict.fromkeys(_places(self, session)[1], head)


def newest_connection_only(self: Journal, agent: str, connections: Iterable[Session]) -> AgentState:
    """
    The state of an agent with several connections is that of the newest.
    """
    return _state_of_all(self, agent, list(connections)[-1:])


def not_put_back(self: Journal, changes: Changes) -> None:
    """
    What could not be written is forgotten.
    """
    self.written(changes)


def put_back_over(self: Journal, changes: Changes) -> None:
    """
    What could not be written takes the place of what was found since.
    """
    self.written(changes)
    self._pending.update(changes.agents)


def settled_unmerged(first: Change, then: Change) -> Change:
    """
    What was settled in the first of two changes is forgotten.
    """
    return _merge(msgspec.structs.replace(first, settled=[]), then)


def places_not_loaded(self: Loading, state: AgentState, left: int) -> Absence:
    """
    An agent has missed nothing before the service started.
    """
    return _absence(self, state, left)._replace(channels=dict.fromkeys(state.channels, self._log.head))


def owed_not_loaded(self: Loading, state: AgentState, left: int) -> Absence:
    """
    What an agent owes is not loaded.
    """
    return _absence(self, state, left)._replace(owed={})


def sent_not_loaded(self: Loading, state: AgentState, left: int) -> Absence:
    """
    Only the places of channels are loaded.
    """
    return _absence(self, msgspec.structs.replace(state, sent=0), left)


def nobody_left(self: Changed, name: str | None) -> None:
    """
    Only what is sent and acknowledged is a change.
    """


def letters_not_written(self: DeadLetters, letter: Any) -> None:
    """
    Dead letters are not written.
    """


_absence = Loading._absence

BUGS: tuple[tuple[Any, str, Any], ...] = (
    (journal, "difference", settled_forgotten),
    (journal, "merge", settled_unmerged),
    (Journal, "_state_of_all", owed_forgotten),
    (Journal, "_state_of_all", waiting_forgotten),
    (Journal, "_state_of_all", newest_connection_only),
    (CatchUp, "places", sent_too_far),
    (Journal, "put_back", not_put_back),
    (Journal, "put_back", put_back_over),
    (Loading, "_absence", places_not_loaded),
    (Loading, "_absence", owed_not_loaded),
    (Loading, "_absence", sent_not_loaded),
    (Changed, "agent", nobody_left),
    (DeadLetters, "_change", letters_not_written),
)
"""
A class or a module, something of it, and what takes its place.
"""


def courses_until_found(where: Any, name: str, bug: Any, most: int) -> int | None:
    """
    Plant a bug; return the number of courses until one finds it, or None if C{most} do not.
    """
    number = 0

    @seed(1)
    @settings(
        max_examples=most,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        report_multiple_bugs=False,
        suppress_health_check=[*HealthCheck],
    )
    @given(pending, operations)
    def find(max_pending: int, todo: list[Operation]) -> None:
        nonlocal number
        number += 1
        play(max_pending, todo)

    with patch.object(where, name, bug):
        try:
            find()
        except (BrokenPromiseError, FlakyFailure):
            # sets of connections have no order, so a course may go otherwise when it is repeated
            return number
    return None


def main() -> None:
    """
    Plant each bug.
    """
    for bug in BUGS:
        found = courses_until_found(*bug, 10_000)
        print(f"{bug[2].__name__:24} {'not found' if found is None else found}", flush=True)


if __name__ == "__main__":
    main()
