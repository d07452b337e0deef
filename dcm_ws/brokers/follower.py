"""
What a node of a cluster does while another one leads: it reads the log as it grows, publishes into the inbox, and tries
to get the leader's lock.

Nothing that the leader says is needed for that: notifications only make the next look come sooner.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg2
from twisted.logger import Logger

from dcm_ws.brokers.batches import Batches
from dcm_ws.brokers.election import LOCK_SECONDS, ChangeTo, look_seconds, share
from dcm_ws.brokers.lag import Lag
from dcm_ws.brokers.log_rows import Row, keys_to_json, to_json
from dcm_ws.brokers.membership import Membership
from dcm_ws.brokers.naps import Naps
from dcm_ws.brokers.numbering import ROWS, ROWS_BYTES
from dcm_ws.brokers.postgres_log import LogState, PostgresLog
from dcm_ws.core.publish_queue import Waiting
from dcm_ws.postgres import agent_rows
from dcm_ws.postgres.connection import DatabaseConnection, DatabaseUnavailableError, deadline, one_line
from dcm_ws.postgres.log_place import LogPlace, has_event
from dcm_ws.postgres.statements import statement
from dcm_ws.postgres.upkeep import Upkeep

_log = Logger(namespace="dcm_ws.log")

_LOOK = statement("following/look")
_PUBLISH = statement("following/publish")
_AGAIN = statement("following/again")
_RENEW = statement("following/renew")
_STEP_SECONDS = 120.0
_ASK_SECONDS = 10.0
_PAUSE = 0.1


class Follower:
    """
    The L{Election<dcm_ws.brokers.election.Election>} of a node of a cluster.

    @param log: receives the events.
    @param batches: what clients publish here.
    @param upkeep: knows what is kept.
    @param random: returns a number from 0 to 1.
    """

    shares = True

    def __init__(
        self,
        log: PostgresLog,
        batches: Batches,
        upkeep: Upkeep,
        membership: Membership,
        lag: Lag,
        random: Callable[[], float],
    ) -> None:
        self._log = log
        self._delivery = log.delivery
        self._batches = batches
        self._upkeep = upkeep
        self._membership = membership
        self._lag = lag
        self._random = random
        # what was published with keys and has no answer yet: by id
        self._keyed: dict[str, Waiting] = {}

    async def win(self, session: DatabaseConnection, naps: Naps, change_to: ChangeTo) -> None:
        await share(session, naps, change_to)
        await self._membership.join(session)
        log, delivery, epoch = self._log, self._delivery, ""
        while naps.runs() or self._batches.has_waiting:
            naps.woken = False
            await self._membership.tend(session, leads=False)
            # then no rows are asked for; it may be done before the answer comes
            is_delivering = delivery.has_waiting
            leads, now_epoch, head, rows = await self._look(session, 0 if is_delivering or not log.is_open else ROWS)
            if leads:
                return
            if not log.is_open or now_epoch not in (epoch, log.epoch):
                if not await self._open(session, change_to):
                    await naps.rest(LOCK_SECONDS)
                epoch = log.epoch
                continue
            if epoch != log.epoch:
                # a new session: is what was delivered still there?
                if not await self._is_whole(session, head):
                    continue
                epoch = log.epoch
            if log.state is not LogState.FOLLOWING:
                change_to(LogState.FOLLOWING, "")
            is_behind = delivery.fetched < head and not is_delivering
            if is_behind and (rows[0].pos if rows else head) > delivery.fetched + 1 and await self._has_lost(session):
                log.lose()
                continue
            if is_behind:
                delivery.read(rows, head)
                self._lag.measure(rows)
            if self._upkeep.is_due():
                with deadline(session, _STEP_SECONDS):
                    await self._upkeep.look(session)
            if self._batches.has_waiting:
                await self._publish(session, naps, change_to)
            elif self._keyed:
                await self._answer_again(session)
            if len(rows) < ROWS and not self._batches.has_waiting:
                await naps.sleep(look_seconds(self._membership.count, self._random()))
        raise DatabaseUnavailableError("the service stops")

    async def lead(self, session: DatabaseConnection) -> None:
        # what a service without a cluster still writes of agents, if it was stopped in the middle, is refused
        await agent_rows.claim(session)
        self._membership.hurry()
        self._keyed.clear()

    async def tend(self, session: DatabaseConnection) -> None:
        await self._membership.tend(session, leads=True)

    async def leave(self, session: DatabaseConnection) -> None:
        await self._membership.leave(session)

    def is_outdated(self) -> None:
        # there is nothing for its clients here any more, and other nodes may be of the newer version
        self._membership.give_up()

    async def _look(self, session: DatabaseConnection, most: int) -> tuple[bool, str, int, list[Row]]:
        with deadline(session, _STEP_SECONDS):
            found = await session.runQuery(_LOOK, {"after": self._delivery.fetched, "most": most, "bytes": ROWS_BYTES})
        self._log.looked()
        leads, epoch, head = found[0][:3]
        return leads, epoch, head, [Row(*one[3:]) for one in found if one[3] is not None]

    async def _open(self, session: DatabaseConnection, change_to: ChangeTo) -> bool:
        """
        Begin with the log, which is another one than before, or was not known.  False if only the leader can say which
        one it is.
        """
        with deadline(session, _STEP_SECONDS):
            place = await LogPlace.settled(session)
            if place is None:
                change_to(LogState.CONNECTING, "the node that leads has to look at the log first")
                return False
            await self._upkeep.begin(session, place)
        if self._log.is_open:
            _log.warn("the log is another one than before: clients are told to load their state again")
        self._log.open(place, self._upkeep.first)
        return True

    async def _is_whole(self, session: DatabaseConnection, head: int) -> bool:
        """
        Does the log have what was delivered here last?  If not, its positions are not good any more.
        """
        last = self._delivery.last
        with deadline(session, _ASK_SECONDS):
            if last[0] <= head and await has_event(session, last):
                return True
            _log.warn("the log has lost its end: it gets a new epoch")
            await session.runOperation(_RENEW, {"epoch": self._log.epoch})
        return False

    async def _has_lost(self, session: DatabaseConnection) -> bool:
        """
        Was something dropped from the log before it was read here?
        """
        with deadline(session, _STEP_SECONDS):
            await self._upkeep.look(session)
        return self._upkeep.first > self._delivery.fetched + 1

    async def _publish(self, session: DatabaseConnection, naps: Naps, change_to: ChangeTo) -> None:
        batch = self._batches.take()
        if not batch:
            return
        for waiting in batch:
            if waiting.draft.key:
                self._keyed[waiting.draft.id] = waiting
        try:
            with deadline(session, _STEP_SECONDS):
                await session.runQuery(_PUBLISH, {"events": to_json([waiting.draft for waiting in batch])})
        except psycopg2.Error as error:
            if session.pollable().closed:
                raise
            if not self._batches.refused(batch, error):
                change_to(LogState.DOWN, one_line(error))
                await naps.rest(_PAUSE)

    async def _answer_again(self, session: DatabaseConnection) -> None:
        """
        Answer those whose keys the log knew already: their events do not get there.
        """
        self._keyed = {id: one for id, one in self._keyed.items() if one.published.waiting}
        if not self._keyed:
            return
        waiting = keys_to_json([one.draft for one in self._keyed.values()])
        with deadline(session, _ASK_SECONDS):
            found: list[Any] = await session.runQuery(_AGAIN, {"waiting": waiting, "old": self._upkeep.hour_ago})
        for event_id, pos, first_id in found:
            self._log.publishes.again(event_id, pos, first_id)
