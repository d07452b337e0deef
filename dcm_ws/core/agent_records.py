"""
What operators see of agents and of dead letters, and what they have done with these (protocol, section 12).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from itertools import chain, islice
from typing import NamedTuple

from dcm_ws.core.agent_states import AgentState
from dcm_ws.core.agents import AgentMemory
from dcm_ws.core.clients import Clients
from dcm_ws.core.dead_letters import DeadLetter, DeadLetters, Listed, listed
from dcm_ws.core.journal import Journal
from dcm_ws.core.redriving import Redriving


class AgentRecord(NamedTuple):
    """
    An agent.

    @ivar state: None if nothing is kept of it but its dead letters.
    @ivar dead: how many dead letters it has.
    """

    agent: str
    state: AgentState | None
    dead: int

    @property
    def sent(self) -> int:
        """
        The position up to which it has been sent everything in its channels.
        """
        if self.state is None:
            return 0
        return min(self.state.places.values(), default=self.state.sent)

    @property
    def acknowledged(self) -> int:
        """
        The position up to which it has acknowledged everything that it was sent and has to acknowledge.
        """
        owed = self.state.owed if self.state is not None else {}
        return min(self.sent, min(owed) - 1) if owed else self.sent


class LetterPlace(NamedTuple):
    """
    Where a dead letter is in the list of all: they are in this order.
    """

    died_at: int
    agent: str
    pos: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """
    Which dead letters an operator means; what is None or empty does not matter.

    @ivar since: they died at this time or later, in ms since the epoch.
    @ivar until: they died before this time.
    @ivar after: they are behind this place.
    @ivar most: how many, at most.
    """

    agent: str | None = None
    event_ids: Sequence[str] = ()
    reasons: Sequence[str] = ()
    since: int | None = None
    until: int | None = None
    after: LetterPlace | None = None
    most: int = 100


def place_of(letter: Listed) -> LetterPlace:
    """
    Where a dead letter is in the list of all.
    """
    return LetterPlace(letter.died_at, letter.agent, letter.pos)


class AgentRecords:
    """
    The records of a service that is alone: it has all of them in memory.
    """

    def __init__(
        self,
        *,
        clients: Clients,
        memory: AgentMemory,
        letters: DeadLetters,
        journal: Journal,
        redriving: Redriving,
    ) -> None:
        self._connections = clients.connections
        self._memory = memory
        self._letters = letters
        self._journal = journal
        self._redriving = redriving

    def agents(self, after: str, most: int) -> list[AgentRecord]:
        """
        The next agents by name.

        @param after: the name before the first one.
        """
        names = set(chain(self._connections, self._memory.away(), self._letters.agents()))
        return [self._record(name) for name in nsmallest(most, (name for name in names if name > after))]

    def agent(self, name: str) -> AgentRecord | None:
        """
        One agent; None if nothing is known of it.
        """
        record = self._record(name)
        return record if record.state is not None or record.dead else None

    def _record(self, name: str) -> AgentRecord:
        return AgentRecord(name, self._journal.state_of(name), self._letters.number(name))

    def letters(self, choice: Choice) -> list[Listed]:
        """
        The chosen dead letters, in their order.
        """
        found = sorted((listed(letter) for letter in self._find(choice)), key=place_of)
        if choice.after is not None:
            found = [letter for letter in found if place_of(letter) > choice.after]
        return found[: choice.most]

    def redrive(self, choice: Choice) -> int:
        """
        Have the chosen dead letters sent again, but for those that were redriven before; return how many there were.
        """
        chosen = [letter for letter in self._find(choice) if not letter.redriven_at]
        for letter in islice(chosen, choice.most):
            self._redriving.redrive_one(letter.agent, letter.event.id)
        return min(len(chosen), choice.most)

    def _find(self, choice: Choice) -> Iterator[DeadLetter]:
        for letter in self._letters.find(choice.agent, choice.since, choice.until):
            if choice.event_ids and letter.event.id not in choice.event_ids:
                continue
            if choice.reasons and letter.reason not in choice.reasons:
                continue
            yield letter
