"""
Copies the log while it is written, so that what retention or a restore removes is known.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any

import psycopg2
import psycopg2.extensions

from tests.chaos.durable.history import History, Row

_EVERY = 0.3
_COLUMNS = "pos, event_id, channel, event, data, mirrored, key"


class Scribe:
    """
    Copies the log of the server at a URL.
    """

    def __init__(self, url: str, history: History) -> None:
        self._url = url
        self._history = history
        self._upto = 0
        self._epoch = ""
        self._stopped = False
        # several threads may call copy()
        self._one = threading.Lock()

    async def live(self) -> None:
        """
        Copy what is new again and again until L{stop}.
        """
        while not self._stopped:
            with contextlib.suppress(psycopg2.Error):
                await asyncio.to_thread(self.copy, self._url)
            await asyncio.sleep(_EVERY)

    def stop(self) -> None:
        """
        Copy nothing more.
        """
        self._stopped = True

    def copy(self, url: str, *, all_of_it: bool = False) -> None:
        """
        Copy what is new.

        @param all_of_it: read the whole log again; a position must still have the same event.
        @raise psycopg2.Error: the database cannot be read.
        """
        with self._one, contextlib.closing(psycopg2.connect(url, connect_timeout=3)) as connection:
            connection.set_session(isolation_level=psycopg2.extensions.ISOLATION_LEVEL_REPEATABLE_READ, readonly=True)
            with connection, connection.cursor() as cursor:
                cursor.execute("select epoch from dcm_ws.meta")
                (epoch,) = cursor.fetchone()
                if epoch != self._epoch or all_of_it:
                    self._upto = 0
                cursor.execute(f"select {_COLUMNS} from dcm_ws.log where pos > %s order by pos", (self._upto,))
                self._take(epoch, cursor)
                self._epoch = epoch
                if all_of_it:
                    self._finish(epoch, cursor)

    def _take(self, epoch: str, cursor: Any) -> None:
        rows = self._history.log.setdefault(epoch, {})
        for values in cursor:
            row = Row(*values)
            if rows.setdefault(row.pos, row) != row:
                self._history.wrongs.append(f"the log has {row} where it had {rows[row.pos]}")
            self._upto = row.pos

    def _finish(self, epoch: str, cursor: Any) -> None:
        """
        What can be read only at the end.
        """
        cursor.execute("select min(pos) from dcm_ws.log")
        self._history.floors[epoch] = cursor.fetchone()[0] or 1
        rows = self._history.log[epoch].values()
        ids, keys = {row.id for row in rows}, {row.key for row in rows if row.key is not None}
        cursor.execute("select event_id, key, channel, data from dcm_ws.inbox")
        # what was published again under its key is not numbered
        self._history.left = [left for left in cursor if left[0] not in ids and left[1] not in keys]
        cursor.execute("select agent, event_id from dcm_ws.dead")
        self._history.dead = set(cursor.fetchall())
