"""
What connections have left behind, or have subscribed to, whose agents were taken by other nodes meanwhile, on its way
to these nodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import islice

import msgspec
from twisted.logger import Logger

from dcm_ws.brokers.agent_tables import AgentTables
from dcm_ws.brokers.releases import Releases
from dcm_ws.brokers.takes import Takes
from dcm_ws.core.ownership import Ownership
from dcm_ws.core.ports import Bus

_log = Logger(namespace="dcm_ws.owners")

TOPIC = "merge"

MERGES_MOST = 10_000
"""
Agents for which something may wait; beyond that, the oldest is dropped.
"""

_AT_ONCE = 1000
_ANSWER_SECONDS = 1.0
_YES, _NO = b"1", b"0"


class _Rest(msgspec.Struct):
    """
    What a connection has left behind.

    @ivar stays: it has not ended, and was subscribed to these channels.
    """

    agent: str
    places: dict[str, int]
    stays: bool = False


_decode = msgspec.json.Decoder(_Rest).decode


class Merges:
    """
    Keeps what was left behind until the node that has the agent has confirmed that it has got it.
    """

    def __init__(self, tables: AgentTables, bus: Bus, takes: Takes, releases: Releases) -> None:
        self._tables = tables
        self._bus = bus
        self._takes = takes
        self._releases = releases
        self._ownership: Ownership
        self._waiting: dict[str, dict[str, int]] = {}
        # those of which no connection has ended
        self._staying: set[str] = set()
        bus.attach(TOPIC, self._heard)

    def attach(self, ownership: Ownership) -> None:
        """
        Called once, before anything else.
        """
        self._ownership = ownership

    def __len__(self) -> int:
        """
        How many agents something waits for.
        """
        return len(self._waiting)

    def clear(self) -> None:
        """
        The log has become another one.
        """
        self._waiting.clear()
        self._staying.clear()

    def add(self, agent: str, places: Mapping[str, int], *, stays: bool = False) -> None:
        """
        See L{Owners.merge<dcm_ws.core.ports.Owners.merge>}.
        """
        if not stays and agent in self._staying:
            # what it leaves behind has all of its channels
            self._forget(agent)
        elif stays and agent not in self._waiting:
            self._staying.add(agent)
        known = self._waiting.setdefault(agent, {})
        for name, pos in places.items():
            known[name] = min(pos, known.get(name, pos))
        if len(self._waiting) > MERGES_MOST:
            lost = next(iter(self._waiting))
            self._forget(lost)
            _log.warn("what agent {agent} has to get at another node is dropped: too much waits", agent=lost)

    async def send(self) -> None:
        """
        Tell the nodes that have these agents, and take those agents that no node has.
        """
        if not self._waiting:
            return
        agents = list(islice(self._waiting, _AT_ONCE))
        owners = await self._tables.owners_of(agents)
        for agent in agents:
            places = self._waiting.get(agent)
            if places is None:
                continue
            owner = owners.get(agent)
            stays = agent in self._staying
            done = partial(self._done, agent, places, dict(places), stays)
            if agent in self._releases.gens:
                self._ownership.merge(agent, places, stays=stays)
                done(_YES)
            elif owner is None:
                self._takes.take(agent, partial(self._taken, agent), lambda: True)
            else:
                message = msgspec.json.encode(_Rest(agent, places, stays))
                self._bus.ask(str(owner), TOPIC, message, _ANSWER_SECONDS, done)

    def _done(
        self, agent: str, places: dict[str, int], sent: dict[str, int], stayed: bool, answer: bytes | None
    ) -> None:
        is_same = self._waiting.get(agent) is places and places == sent and (agent in self._staying) is stayed
        if answer == _YES and is_same:
            self._forget(agent)

    def _forget(self, agent: str) -> None:
        del self._waiting[agent]
        self._staying.discard(agent)

    def _taken(self, agent: str, is_here: bool) -> None:
        places, stays = self._waiting.get(agent), agent in self._staying
        if is_here and places is not None:
            self._forget(agent)
            self._ownership.merge(agent, places, stays=stays)

    def _heard(self, node: str, message: bytes) -> bytes:
        try:
            rest = _decode(message)
        except msgspec.DecodeError:
            return _NO
        if rest.agent not in self._releases.gens:
            return _NO
        self._ownership.merge(rest.agent, rest.places, stays=rest.stays)
        return _YES
