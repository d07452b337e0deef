"""
The nodes of a cluster, in the table C{dcm_ws.node}: each start of a process is a row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

from dcm_ws.postgres.connection import DatabaseConnection, deadline
from dcm_ws.postgres.statements import statement

_REGISTER = statement("nodes/register")
_BEAT = statement("nodes/beat")
_FENCE = statement("nodes/fence")
_LEAVE = statement("nodes/leave")
_ANSWER_SECONDS = 10.0

LIST = statement("nodes/list")
"""
Selects the nodes as rows of L{Listed}.
"""


class NodeInfo(NamedTuple):
    """
    What a process says of itself when it joins.

    @ivar name: for people; need not be unique.
    @ivar host: the name of its machine.
    @ivar version: of dcm-ws.
    @ivar address: where clients reach it.
    """

    name: str
    host: str
    pid: int
    version: str
    address: str


class Registered(NamedTuple):
    """
    A node that has joined.

    @ivar system: the identifier of the database system.
    @ivar database: the oid of the database.
    """

    id: int
    system: str
    database: int


class Listed(NamedTuple):
    """
    A node as it is listed.

    @ivar started_at: ms since the epoch.
    @ivar unseen: seconds since it last said that it is there.
    @ivar fenced: it has ended, or did not answer.
    @ivar figures: JSON.
    @ivar head: the last position in the log.
    """

    id: int
    name: str
    host: str
    pid: int
    version: str
    address: str
    started_at: int
    unseen: float
    fenced: bool
    leader: bool
    draining: bool
    figures: str
    head: int


async def register(session: DatabaseConnection, info: NodeInfo) -> Registered:
    """
    Join the cluster.
    """
    with deadline(session, _ANSWER_SECONDS):
        return Registered(*(await session.runQuery(_REGISTER, info._asdict()))[0])


async def beat(
    session: DatabaseConnection, node: int, *, leader: bool, draining: bool, figures: Mapping[str, object]
) -> int:
    """
    Say that C{node} is there; return how many nodes are, or 0 if it is fenced.
    """
    parameters = {"node": node, "leader": leader, "draining": draining, "figures": json.dumps(figures)}
    with deadline(session, _ANSWER_SECONDS):
        rows = await session.runQuery(_BEAT, parameters)
    return int(rows[0][0]) if rows else 0


async def fence(session: DatabaseConnection, node: int, seconds: float) -> list[tuple[int, str]]:
    """
    Fence the nodes other than C{node} that have not been seen for so many seconds, in the session of the leader.

    @return: the ids and the names of those that were fenced now.
    """
    with deadline(session, _ANSWER_SECONDS):
        return [(id, name) for id, name in await session.runQuery(_FENCE, {"node": node, "seconds": seconds})]


async def leave(session: DatabaseConnection, node: int) -> None:
    """
    C{node} ends.
    """
    with deadline(session, _ANSWER_SECONDS):
        await session.runOperation(_LEAVE, {"node": node})
