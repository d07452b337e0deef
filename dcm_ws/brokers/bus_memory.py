"""
A bus in memory, for tests and simulations: it delays, loses and doubles messages, and has partitions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from random import Random
from typing import Any

from dcm_ws.brokers.bus_base import BaseBus
from dcm_ws.brokers.bus_parcels import Parcel
from dcm_ws.core.counts import Counts


class MemoryHub:
    """
    What the buses of one simulation hang on.  All that happens by chance comes from C{random}, so a run can be
    repeated.

    @param later: calls a function after so many seconds, with what comes after it; returns what can be cancelled.
    @param now: monotonic seconds.

    @ivar delay: the shortest and the longest time that a message takes, in seconds.
    @ivar loss: the part of the messages that are lost, from 0 to 1.
    @ivar doubles: the part of the messages that arrive twice.
    """

    def __init__(
        self,
        later: Callable[..., Any],
        now: Callable[[], float],
        random: Random,
        *,
        delay: tuple[float, float] = (0.0, 0.0),
        loss: float = 0.0,
        doubles: float = 0.0,
    ) -> None:
        self._later = later
        self._now = now
        self._random = random
        self._buses: dict[str, MemoryBus] = {}
        self._sides: dict[str, int] = {}
        self._ways: dict[tuple[str, str], _Way] = {}
        self._held: list[Parcel] | None = None
        self.delay = delay
        self.loss = loss
        self.doubles = doubles

    def bus(self, counts: Counts, *, max_message: int = 1 << 20, max_waiting: int = 8 << 20) -> MemoryBus:
        """
        Make the bus of one node.
        """
        return MemoryBus(
            self, self._later, now=self._now, counts=counts, max_message=max_message, max_waiting=max_waiting
        )

    def stop(self) -> None:
        """
        Stop, as a server of an engine does: what is on its way is lost.
        """
        self._ways.clear()
        self._held = None
        for bus in self._buses.values():
            bus.cut()

    def start(self) -> None:
        """
        Start again.
        """
        for bus in list(self._buses.values()):
            bus.restore()

    @property
    def is_frozen(self) -> bool:
        return self._held is not None

    def freeze(self) -> None:
        """
        Bring nothing for a while, as a server of an engine does that is frozen.
        """
        if self._held is None:
            self._held = []

    def thaw(self) -> None:
        """
        Bring what was sent meanwhile, and go on.
        """
        held, self._held = self._held, None
        for parcel in held or ():
            self.carry(parcel)

    def part(self, *sides: Iterable[str]) -> None:
        """
        Part the nodes: each hears only those that are on its side.  Nodes that are on none of them are together.
        """
        self._sides = {name: number for number, names in enumerate(sides, 1) for name in names}

    def heal(self) -> None:
        """
        End the partition.
        """
        self._sides = {}

    def enter(self, bus: MemoryBus, node: str) -> None:
        """
        A node has this name now.
        """
        self.leave(bus)
        self._buses[node] = bus

    def leave(self, bus: MemoryBus) -> None:
        """
        A node is gone.
        """
        for name in [name for name, other in self._buses.items() if other is bus]:
            del self._buses[name]

    def carry(self, parcel: Parcel) -> None:
        """
        Bring a message to the nodes that it is for.
        """
        if self._held is not None:
            self._held.append(parcel)
            return
        if parcel.target:
            self._bring(parcel, parcel.target)
            return
        for name in self._buses:
            if name != parcel.sender:
                self._bring(parcel, name)

    def _bring(self, parcel: Parcel, node: str) -> None:
        random, sides = self._random, self._sides
        if sides.get(parcel.sender, 0) != sides.get(node, 0) or (self.loss and random.random() < self.loss):
            return
        way = self._ways.get((parcel.sender, node))
        if way is None:
            way = self._ways[parcel.sender, node] = _Way()
        for _ in range(2 if self.doubles and random.random() < self.doubles else 1):
            # what one node sends stays in order
            way.due = max(way.due, self._now() + random.uniform(*self.delay))
            way.parcels.append(parcel)
            self._later(max(0.0, way.due - self._now()), self._arrive, way, node)

    def _arrive(self, way: _Way, node: str) -> None:
        # a scheduler may call what is due at the same time in any order, so each call takes the next message
        parcel = way.parcels.popleft()
        bus = self._buses.get(node)
        if bus is not None and self._ways.get((parcel.sender, node)) is way:
            bus.arrived(parcel)


class _Way:
    """
    The messages that are on their way from one node to another.
    """

    __slots__ = ("due", "parcels")

    def __init__(self) -> None:
        self.parcels: deque[Parcel] = deque()
        self.due = 0.0


class MemoryBus(BaseBus):
    """
    The L{Bus<dcm_ws.core.ports.Bus>} of one node of a simulation.
    """

    engine = "memory"

    def __init__(
        self,
        hub: MemoryHub,
        later: Callable[..., Any],
        *,
        now: Callable[[], float],
        counts: Counts,
        max_message: int,
        max_waiting: int,
    ) -> None:
        super().__init__(later, now, counts, max_message=max_message, max_waiting=max_waiting)
        self._hub = hub
        self._connected = True

    def leave(self) -> None:
        """
        End, as a process that is killed.
        """
        self._hub.leave(self)
        self.cut()

    def cut(self) -> None:
        """
        The node has no connection to the hub.
        """
        self._connected = False
        self._is_down("cut off")

    def restore(self) -> None:
        """
        The node has a connection again.
        """
        self._connected = True
        self._is_up("in memory")

    def arrived(self, parcel: Parcel) -> None:
        """
        A message has come.
        """
        if self._connected:
            self._receive(parcel)

    def _named(self) -> None:
        self._hub.enter(self, self.node)
        if self._connected and self._state != "up":
            self._is_up("in memory")

    def _may_send(self) -> bool:
        return self._connected

    def _transmit(self, parcel: Parcel) -> None:
        self._hub.carry(parcel)
