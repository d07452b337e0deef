"""
What connections acknowledge whose agents have connections at several nodes.
"""

from __future__ import annotations

from typing import Any

import msgspec

from dcm_ws.brokers.releases import Releases
from dcm_ws.core.ownership import Ownership
from dcm_ws.core.ports import Bus

TOPIC = "ack"

ACKS_MOST = 10_000
"""
Acks that wait to be sent; what is beyond is sent to the agent again.
"""

_TOGETHER_SECONDS = 0.05


class _Ack(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """
    What an agent has acknowledged.  Newer versions may say more behind that.
    """

    agent: str
    event_id: str
    pos: int


_decode = msgspec.json.Decoder(list[_Ack]).decode


class Acks:
    """
    Tells the other nodes, of which one has the agent, and others may have connections of it.
    """

    def __init__(self, reactor: Any, bus: Bus, releases: Releases) -> None:
        self._reactor = reactor
        self._bus = bus
        self._releases = releases
        self._ownership: Ownership
        self._waiting: list[_Ack] = []
        bus.attach(TOPIC, self._heard)

    def attach(self, ownership: Ownership) -> None:
        """
        Called once, before anything else.
        """
        self._ownership = ownership

    def add(self, agent: str, event_id: str, pos: int) -> None:
        """
        See L{Owners.acknowledged<dcm_ws.core.ports.Owners.acknowledged>}.
        """
        if not self._waiting:
            self._reactor.callLater(_TOGETHER_SECONDS, self._send)
        if len(self._waiting) < ACKS_MOST:
            self._waiting.append(_Ack(agent, event_id, pos))

    def _send(self) -> None:
        acks, self._waiting = self._waiting, []
        self._bus.cast(TOPIC, msgspec.json.encode(acks))

    def _heard(self, node: str, message: bytes) -> None:
        try:
            acks = _decode(message)
        except msgspec.DecodeError:
            # of another version
            return
        for one in acks:
            if one.agent in self._releases.gens or self._ownership.is_connected(one.agent):
                self._ownership.acknowledged(one.agent, one.event_id, one.pos)
