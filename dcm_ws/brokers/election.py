"""
Who numbers the events: the process whose session holds the leader's lock of the database.

A process that is alone on its database keeps all others away.  The nodes of a cluster share it: those that do not lead
follow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from dcm_ws.brokers.naps import Naps
from dcm_ws.brokers.postgres_log import LogState
from dcm_ws.postgres.connection import DatabaseConnection, DatabaseUnavailableError, deadline

LEADER = 1
GATE = 2
MODE = 3
"""
The locks of the leader, of the gate in front of NOTIFY, and of the mode: a process without a cluster has it alone, the
nodes of a cluster share it.
"""

LOCK_SECONDS = 0.1
"""
Seconds between two tries to get a lock.  To wait in SQL would hold back VACUUM.
"""

LOOKS = 100
"""
Looks a second that all nodes of a cluster make together while nothing happens, if there are more than ten.
"""

LOOK_SECONDS_MOST = 1.0
"""
Seconds between two looks of a node, at most, on an average.
"""

LOCK = "select pg_catalog.pg_try_advisory_lock(1684237687, %s)"
LOCK_SHARED = "select pg_catalog.pg_try_advisory_lock_shared(1684237687, %s)"
UNLOCK = "select pg_catalog.pg_advisory_unlock(1684237687, %s)"
_FENCE_ALL = "update dcm_ws.node set fenced = true, leader = false where not fenced"
_ASK_SECONDS = 10.0

ChangeTo = Callable[[LogState, str], object]
"""
Receives the state of the log, and why it is in it.
"""


class Election(Protocol):
    """
    Makes a session that of the leader.

    @ivar shares: there may be other nodes, which have to be told that the log has grown.
    """

    shares: bool

    async def win(self, session: DatabaseConnection, naps: Naps, change_to: ChangeTo) -> None:
        """
        Return when C{session} holds the leader's lock.

        @param naps: waits, and knows if the service stops.
        @param change_to: called when the state of the log changes before that.
        @raise DatabaseError: it does not get it.
        """

    async def lead(self, session: DatabaseConnection) -> None:
        """
        The session holds the lock, and is about to read where the log ends.
        """

    async def tend(self, session: DatabaseConnection) -> None:
        """
        Called in each round of the leader.
        """

    async def leave(self, session: DatabaseConnection) -> None:
        """
        The service stops, and C{session} was made by it.
        """

    def is_outdated(self) -> None:
        """
        The database has a schema now that only newer versions know.
        """


class Alone:
    """
    The L{Election} of a service that does not share its database.
    """

    shares = False

    async def win(self, session: DatabaseConnection, naps: Naps, change_to: ChangeTo) -> None:
        while naps.runs():
            if not await _got(session, LOCK, LEADER):
                change_to(LogState.STANDBY, "another dcm-ws numbers the events of this database")
            elif await _got(session, LOCK, MODE):
                return
            else:
                await _got(session, UNLOCK, LEADER)
                change_to(LogState.STANDBY, "a cluster uses this database: start this dcm-ws with --cluster, too")
            await naps.rest(LOCK_SECONDS)
        raise DatabaseUnavailableError("the service stops")

    async def lead(self, session: DatabaseConnection) -> None:
        with deadline(session, _ASK_SECONDS):
            await session.runOperation(_FENCE_ALL)

    async def tend(self, session: DatabaseConnection) -> None:
        pass

    async def leave(self, session: DatabaseConnection) -> None:
        pass

    def is_outdated(self) -> None:
        pass


def look_seconds(nodes: int, random: float) -> float:
    """
    Seconds until a node that does not lead looks again, if nothing happens.  The more nodes there are, the less often
    each of them looks.  They do so at random times, so that one of them soon finds out that nobody leads, although a
    notification wakes all of them at the same time.

    @param random: from 0 to 1.
    """
    seconds = min(nodes / LOOKS, LOOK_SECONDS_MOST)
    return LOCK_SECONDS if seconds <= LOCK_SECONDS else 2 * seconds * random


async def share(session: DatabaseConnection, naps: Naps, change_to: ChangeTo) -> None:
    """
    Return when C{session} shares the database with the other nodes of a cluster.

    @raise DatabaseError: it does not.
    """
    while naps.runs():
        if await _got(session, LOCK_SHARED, MODE):
            return
        change_to(LogState.STANDBY, "a dcm-ws without --cluster uses this database")
        await naps.rest(LOCK_SECONDS)
    raise DatabaseUnavailableError("the service stops")


async def _got(session: DatabaseConnection, query: str, lock: int) -> bool:
    with deadline(session, _ASK_SECONDS):
        return bool((await session.runQuery(query, (lock,)))[0][0])
