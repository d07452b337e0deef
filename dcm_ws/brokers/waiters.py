"""
Who waits for agents that a node of a cluster is about to take, and for how long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from twisted.logger import Logger

from dcm_ws.brokers.handovers import Question
from dcm_ws.core.dead_letters import Listed
from dcm_ws.core.deadlines import Deadlines

_log = Logger(namespace="dcm_ws.owners")

TAKE_SECONDS = 1.0
"""
Seconds that a client waits for its agent while the database does not answer.
"""

TAKE_LONGEST = 5.0
"""
Seconds that it waits in any case: if another node was killed, hundreds of agents may come at once.
"""


@dataclass(slots=True, eq=False)
class Waiter:
    """
    Someone who waits for an agent: the parameters of L{Owners.take<dcm_ws.core.ports.Owners.take>}.

    @ivar since: monotonic seconds.
    """

    take: Take
    since: float
    ready: Callable[[bool], object]
    waits: Callable[[], bool]


@dataclass(slots=True)
class Take:
    """
    An agent that clients wait for, or that has connections here.

    @ivar forced: it is taken with what the database has of it, because the node that has it does not answer, or its
        answer is of another log.
    @ivar refused: the number of the agent when it could not be taken; 0 for never.
    @ivar letters: what that node says of its dead letters, beyond what the database has.
    @ivar adopts: it is taken although nobody waits, unless the node that has it has a client of it.
    @ivar sleeps: nobody waits yet, and the node that has it did not answer.
    @ivar unanswered: a node that has it was asked, and did not answer in time.
    @ivar wanted_by: what other nodes have asked meanwhile, with their names.
    """

    waiting: list[Waiter] = field(default_factory=list)
    forced: bool = False
    refused: int = 0
    adopts: bool = False
    sleeps: bool = False
    unanswered: bool = False
    letters: list[Listed] = field(default_factory=list)
    wanted_by: list[tuple[Question, str, Callable[[bytes], object]]] = field(default_factory=list)

    @property
    def has_clients(self) -> bool:
        return any(one.waits() for one in self.waiting)

    @property
    def is_wanted(self) -> bool:
        return self.adopts or self.has_clients


class Waiters:
    """
    Tells those who wait that their agent is here, or that it does not come in time.

    @param reactor: its timer.
    @param now: monotonic seconds.

    @ivar answered_at: when the database has last answered.
    """

    def __init__(self, reactor: Any, now: Callable[[], float]) -> None:
        self._now = now
        self._deadlines: Deadlines[Waiter] = Deadlines(reactor.callLater, now, self._expire)
        self.answered_at = -TAKE_SECONDS

    def add(self, take: Take, ready: Callable[[bool], object], waits: Callable[[], bool]) -> None:
        """
        Someone waits for an agent.
        """
        waiter = Waiter(take, self._now(), ready, waits)
        take.waiting.append(waiter)
        self._deadlines.put(waiter, TAKE_SECONDS)

    def clear(self) -> None:
        """
        Nobody waits any more.
        """
        self._deadlines.clear()

    def answer_all(self, take: Take, *, is_here: bool) -> None:
        """
        Nobody need wait for an agent any more.
        """
        waiting, take.waiting = take.waiting, []
        for one in waiting:
            self._deadlines.drop(one)
        self._answer(waiting, is_here=is_here)

    def _expire(self, waiter: Waiter) -> None:
        now, since = self._now(), waiter.since
        until = min(max(since, self.answered_at) + TAKE_SECONDS, since + TAKE_LONGEST)
        if until > now:
            self._deadlines.put(waiter, until - now)
        else:
            waiter.take.waiting.remove(waiter)
            self._answer([waiter], is_here=False)

    def _answer(self, waiting: Iterable[Waiter], *, is_here: bool) -> None:
        for one in waiting:
            try:
                one.ready(is_here)
            except Exception:
                _log.failure("a client could not be told that its agent is here")
