"""
A process as a node of its cluster: its row in the database says that it is there, and is its right to write.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from twisted.logger import Logger

from dcm_ws.brokers.bus_base import cluster_name
from dcm_ws.postgres import nodes
from dcm_ws.postgres.connection import DatabaseConnection
from dcm_ws.postgres.nodes import NodeInfo

_log = Logger(namespace="dcm_ws.cluster")

BEAT_SECONDS = 1.0
"""
Seconds between two times at which a node says that it is there.
"""

UNSEEN_SECONDS = 10.0
"""
Seconds after which the leader fences a node that does not say so.
"""

_LATE_SECONDS = 3.0


class Membership:
    """
    Joins, and joins again if the node was fenced.

    @param info: returns what the node says of itself.
    @param figures: returns what it says of its load.
    @param now: monotonic seconds.

    @ivar node: the id of its row; None before it has one, and when that is fenced.
    @ivar count: how many nodes there are, itself included, as far as is known.
    @ivar draining: it is about to stop.
    @ivar joined: called with the id, and the name of the cluster, when it has joined.
    @ivar fenced: called when it may not write any more under its former id.
    @ivar unseen: called with the id of another node that this one, which leads, has fenced.
    """

    def __init__(
        self, info: Callable[[], NodeInfo], figures: Callable[[], Mapping[str, object]], now: Callable[[], float]
    ) -> None:
        self._info = info
        self._figures = figures
        self._now = now
        self._due = 0.0
        self._led_since = 0.0
        self.node: int | None = None
        self.count = 1
        self.draining = False
        self.joined: Callable[[int, str], object] = _nothing
        self.fenced: Callable[[], object] = _nothing
        self.unseen: Callable[[int], object] = _nothing

    async def join(self, session: DatabaseConnection) -> None:
        """
        Join the cluster, unless the node is in it.
        """
        if self.node is None:
            node = await nodes.register(session, self._info())
            self.node = node.id
            self.joined(node.id, cluster_name(node.system, node.database))

    async def tend(self, session: DatabaseConnection, *, leads: bool) -> None:
        """
        Say that the node is there, if it is time; the leader also fences others, once it has led for as long as they
        may be silent without a pause: while the database was away, none of them could say anything.
        """
        now = self._now()
        if now < self._due:
            return
        if not leads or now - self._due > _LATE_SECONDS:
            self._led_since = now
        self._due = now + BEAT_SECONDS
        node = self.node
        if node is not None:
            count = await nodes.beat(session, node, leader=leads, draining=self.draining, figures=self._figures())
            if count:
                self.count = count
                if leads and now - self._led_since >= UNSEEN_SECONDS:
                    for other, name in await nodes.fence(session, node, UNSEEN_SECONDS):
                        _log.warn("node {node} ({name}) is gone: nothing was heard of it", node=other, name=name)
                        self.unseen(other)
                return
            _log.warn("this node was taken for dead, and joins again")
            self.give_up()
        await self.join(session)

    def hurry(self) -> None:
        """
        Say at the next occasion that the node is there.
        """
        self._due = 0.0

    def give_up(self) -> None:
        """
        The node may not write any more, as if it was fenced.
        """
        self.node = None
        self.fenced()

    async def leave(self, session: DatabaseConnection) -> None:
        """
        The node ends.
        """
        node, self.node = self.node, None
        if node is not None:
            await nodes.leave(session, node)


def _nothing(*_: object) -> None:
    pass
