"""
The other nodes of a cluster, as a test plays them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dcm_ws.core.ports import BusReport, Heard


class LateOwners:
    """
    Owners that answer when the test says so.

    @ivar asked: who waits for which agent.
    @ivar merged: what ended connections have left.
    @ivar subscribed: what connections that stay have subscribed to.
    @ivar adopted: agents that were to be taken back.
    @ivar offered: agents that another node should have.
    @ivar given_back: agents that nobody need have any more.
    @ivar acks: what was acknowledged of other nodes' agents.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, Callable[[bool], object]]] = []
        self.merged: list[tuple[str, Mapping[str, int]]] = []
        self.subscribed: list[tuple[str, Mapping[str, int]]] = []
        self.adopted: list[str] = []
        self.offered: list[str] = []
        self.given_back: list[str] = []
        self.acks: list[tuple[str, str, int]] = []
        self.at_once = False

    def take(self, agent: str, ready: Callable[[bool], object], waits: Callable[[], bool]) -> None:
        if self.at_once:
            ready(True)
        else:
            self.asked.append((agent, ready))

    def answer(self, is_here: bool = True) -> str:
        """
        The agent that was asked for first is here now, or cannot be.
        """
        agent, ready = self.asked.pop(0)
        ready(is_here)
        return agent

    def adopt(self, agents: Sequence[str]) -> None:
        self.adopted += agents

    def offer(self, agent: str) -> None:
        self.offered.append(agent)

    def give_back(self, agent: str) -> None:
        self.given_back.append(agent)

    def acknowledged(self, agent: str, event_id: str, pos: int) -> None:
        self.acks.append((agent, event_id, pos))

    def merge(self, agent: str, places: Mapping[str, int], *, stays: bool = False) -> None:
        (self.subscribed if stays else self.merged).append((agent, places))


class Air:
    """
    A bus that carries everything at once; with C{late}, when the test says so.

    @ivar ends: of all nodes.
    @ivar lost: nothing arrives.
    """

    def __init__(self) -> None:
        self.ends: dict[str, AirEnd] = {}
        self.late = False
        self.lost = False
        self.waiting: list[Callable[[], object]] = []

    def end(self, node: str) -> AirEnd:
        end = self.ends[node] = AirEnd(self, node)
        return end

    def carry(self, job: Callable[[], object]) -> None:
        if self.lost:
            return
        if self.late:
            self.waiting.append(job)
        else:
            job()

    def arrive(self) -> None:
        """
        What is on its way arrives.
        """
        while self.waiting:
            self.waiting.pop(0)()


class AirEnd:
    """
    The L{Bus<dcm_ws.core.ports.Bus>} of one node.
    """

    def __init__(self, air: Air, node: str) -> None:
        self.air = air
        self.node = node
        self.listeners: dict[str, Heard] = {}
        self.cast_on: list[tuple[str, bytes]] = []

    def join(self, node: str, cluster: str) -> None:
        raise AssertionError

    def attach(self, topic: str, heard: Heard) -> None:
        self.listeners[topic] = heard

    def _bring(self, other: AirEnd, topic: str, message: bytes) -> Any:
        heard = other.listeners.get(topic)
        return None if heard is None else heard(self.node, message)

    def cast(self, topic: str, message: bytes) -> None:
        self.cast_on.append((topic, message))
        for other in list(self.air.ends.values()):
            if other is not self:
                self.air.carry(lambda other=other: self._bring(other, topic, message))  # type: ignore[misc]

    def tell(self, node: str, topic: str, message: bytes) -> None:
        raise AssertionError

    def ask(
        self, node: str, topic: str, message: bytes, timeout: float, ready: Callable[[bytes | None], object]
    ) -> None:
        other = self.air.ends.get(node)
        if self.air.lost or other is None:
            self.air.waiting.append(lambda: ready(None))
        else:
            self.air.carry(lambda: ready(self._bring(other, topic, message)))

    def report(self) -> BusReport:
        raise AssertionError
