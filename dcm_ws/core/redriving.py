"""
Dead letters that operators have sent again, or purged.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from dcm_ws.core.catchup import CatchUp
from dcm_ws.core.clients import Clients
from dcm_ws.core.dead_letters import DeadLetter, DeadLetters
from dcm_ws.core.ledger import Ledger
from dcm_ws.core.tracked import Owed


class Redriven(NamedTuple):
    """
    What became of dead letters that were redriven.

    @ivar letters: how many there were.
    @ivar reached: how many of them went to a connection; the others wait for their agents.
    """

    letters: int
    reached: int


class Redriving:
    """
    Sends dead letters to their agents again, or forgets them.
    """

    def __init__(self, *, clients: Clients, letters: DeadLetters, catch_up: CatchUp, ledger: Ledger) -> None:
        self._clients = clients
        self._letters = letters
        self._catch_up = catch_up
        self._ledger = ledger

    def redrive(self, agent: str | None, since: int | None, until: int | None, most: int) -> Redriven:
        """
        Send dead letters to their agents again: now, to all connections of an agent that is connected, and when it
        returns to one that is away.

        @param agent: and C{since} and C{until} as in L{DeadLetters.find}.
        @param most: dead letters, at most.
        """
        return self._redrive(list(islice(self._letters.find(agent, since, until, waiting=True), most)))

    def redrive_one(self, agent: str, event_id: str) -> Redriven | None:
        """
        Send one dead letter again, as L{redrive} does, unless it has been redriven already.  None if there is none.
        """
        letter = self._letters.get(agent, event_id)
        if letter is None:
            return None
        return self._redrive([] if letter.redriven_at else [letter])

    def purge(self, agent: str | None, since: int | None, until: int | None, most: int) -> int:
        """
        Forget dead letters; return how many there were.  What was redriven, and is in flight, is not affected.

        @param agent: this and the other parameters are as in L{redrive}.
        """
        letters = list(islice(self._letters.find(agent, since, until), most))
        for letter in letters:
            self._letters.drop(letter)
        return len(letters)

    def purge_one(self, agent: str, event_id: str) -> bool:
        """
        Forget one dead letter.  False if there is none.
        """
        letter = self._letters.get(agent, event_id)
        if letter is not None:
            self._letters.drop(letter)
        return letter is not None

    def _redrive(self, letters: Sequence[DeadLetter]) -> Redriven:
        by_agent: dict[str, dict[int, Owed]] = {}
        for letter in letters:
            self._letters.redrive(letter)
            event = letter.event
            self._ledger.note(letter.agent, event.seq, "redriven")
            by_agent.setdefault(letter.agent, {})[event.seq] = Owed(event.id, 0, 0, event)
        reached = 0
        for name, owed in by_agent.items():
            connections = list(self._clients.connections.get(name, ()))
            for session in connections:
                self._catch_up.begin(session, owed=owed)
            if connections:
                reached += len(owed)
        return Redriven(len(letters), reached)
