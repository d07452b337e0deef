"""
The agents that a node of a cluster has, and how other nodes get them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from dcm_ws.brokers.given_away import GivenAway
from dcm_ws.brokers.handovers import KEPT, TOPIC, UNKNOWN, Question, answer_of, read_question
from dcm_ws.brokers.waiters import Take
from dcm_ws.core.ownership import Ownership
from dcm_ws.core.ports import AnswerLater, Bus

ORPHANS = "orphan"


class Releases:
    """
    Gives agents to the nodes that ask for them, and offers those that no client here needs.

    @param last: returns the position and the id of the last event that was delivered here.

    @ivar gens: the agents that this node has, and how often they have been taken.
    @ivar given: those that it had.
    """

    def __init__(self, bus: Bus, last: Callable[[], tuple[int, str]]) -> None:
        self._bus = bus
        self.last = last
        self._ownership: Ownership
        self._take_of: Callable[[str], Take | None]
        self.gens: dict[str, int] = {}
        self.given = GivenAway()
        bus.attach(TOPIC, self._heard)
        bus.attach(ORPHANS, self._offered)

    def attach(self, ownership: Ownership, take_of: Callable[[str], Take | None]) -> None:
        """
        Called once, before anything else.

        @param take_of: returns an agent that this node is about to have; None if it is not.
        """
        self._ownership = ownership
        self._take_of = take_of

    def clear(self) -> None:
        """
        The log has become another one: this node has no agents.
        """
        self.given.clear()
        self.gens.clear()

    def offer(self, agent: str) -> None:
        """
        See L{Owners<dcm_ws.core.ports.Owners>}.
        """
        if agent in self.gens:
            self.orphan(agent)

    def orphan(self, agent: str) -> None:
        """
        Tell the other nodes that an agent is not needed here, although its row, or a node that was asked for it, may
        say that it is here.
        """
        self._bus.cast(ORPHANS, agent.encode())

    def forget(self, agent: str, node: int | None) -> None:
        """
        Another node has, or had, an agent that this node seems to have.
        """
        if self.gens.pop(agent, None) is not None:
            self._ownership.lose(agent, str(node))

    def give_back(self, agent: str) -> None:
        """
        This node is about to stop: prepare the state of an agent for the node that takes it next.
        """
        gen = self.gens.pop(agent, None)
        if gen is not None:
            self.given.add(agent, gen, self._ownership.give_back(agent), self.last())

    def reply(self, asked: Question, node: str) -> bytes:
        """
        Answer what another node has asked while this one was about to have the agent.

        A late question is about a former time, when the agent had a lower number: if somebody still waits for the
        answer, that node has to look who has the agent now.
        """
        return KEPT if asked.gen < self.gens.get(asked.agent, 0) else self._answer(asked, node)

    def _answer(self, asked: Question, node: str) -> bytes:
        agent = asked.agent
        if self.gens.get(agent) != asked.gen:
            return self.given.answer(agent, asked.gen)
        is_used = self._ownership.is_connected(agent) or self._take_of(agent) is not None
        return KEPT if asked.idle and is_used else self._give(agent, node)

    def _give(self, agent: str, node: str) -> bytes:
        gen = self.gens.pop(agent)
        given = self._ownership.release(agent, node)
        if given.state is not None:
            self.given.add(agent, gen, given.state, self.last())
        return answer_of(given, self.last())

    def _offered(self, node: str, message: bytes) -> None:
        self._ownership.offered(message.decode(errors="replace"))

    def _heard(self, node: str, message: bytes) -> bytes | AnswerLater | None:
        asked = read_question(message)
        if asked is None:
            return UNKNOWN
        take = self._take_of(asked.agent)
        if take is not None and asked.agent not in self.gens:
            return partial(self._reply_later, take, asked, node)
        return self._answer(asked, node)

    def _reply_later(self, take: Take, asked: Question, node: str, answer: Callable[[bytes], object]) -> None:
        take.wanted_by.append((asked, node, answer))
