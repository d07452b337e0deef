"""
Those who publish with SQL: several processes, each with several sessions, whose transactions are committed, rolled
back, or take a while.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import psycopg2
import psycopg2.errors
import psycopg2.extensions

from tests.chaos.durable.history import DONE, UNDONE, UNKNOWN, Call, padding

ROLE = "chaos_writer"
EVENTS = ("task.created", "subtask.running", "message.new", "session.created", "chaos.happened")
_LEVELS = (
    psycopg2.extensions.ISOLATION_LEVEL_READ_COMMITTED,
    psycopg2.extensions.ISOLATION_LEVEL_READ_COMMITTED,
    psycopg2.extensions.ISOLATION_LEVEL_REPEATABLE_READ,
)
_PUBLISH = (
    "select dcm_ws.publish(%s, %s, %s::text, %s)",
    "select dcm_ws.publish(%s, %s, %s::json, %s)",
    "select dcm_ws.publish(%s, %s, %s::jsonb, %s)",
)
_INSERT = "insert into chaos_rows (channel, event, data) values (%s, %s, %s)"
_FAIL = "select chaos_fail(%s, %s, %s)"
_NOTIFY = "select pg_notify('dcm_events', %s)"
SETUP = f"""
create role {ROLE} login;
create table chaos_rows (channel text, event text, data jsonb);
create table chaos_prepared (n int);
grant insert on chaos_rows to {ROLE};
create function chaos_publish() returns trigger language plpgsql as $$
begin
    perform dcm_ws.publish(new.channel, new.event, new.data);
    return new;
end $$;
create trigger publish after insert on chaos_rows for each row execute function chaos_publish();
create function chaos_fail(channel text, event text, data text) returns void language plpgsql as $$
begin
    perform dcm_ws.publish(channel, event, data);
    raise exception 'what was published goes with the block';
exception when raise_exception then
    null;
end $$;
"""
"""
What the sessions need in the database.
"""
_RIVALRY = 4.0
"""
Seconds in which all sessions that want to publish under a common key use the same one.
"""


class SqlWriters:
    """
    Processes of sessions that publish.

    @param url: the URL of the database.
    @param until: the moment at which they stop.
    @param rate: transactions a second of each session.
    """

    def __init__(
        self, url: str, channels: Sequence[str], *, until: float, seed: int, processes: int, sessions: int, rate: float
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._running = []
        for number in range(processes):
            ours, theirs = context.Pipe()
            names = [f"sql-{number}-{session}" for session in range(sessions)]
            todo = (url, tuple(channels), names, until, seed, rate, theirs)
            process = context.Process(target=_write, args=todo, daemon=True)
            process.start()
            self._running.append((process, ours))

    def finish(self) -> tuple[list[Call], list[str]]:
        """
        Wait for their ends.

        @return: what they published, and what went wrong.
        """
        calls: list[Call] = []
        wrongs: list[str] = []
        for process, pipe in self._running:
            if pipe.poll(90):
                theirs, errors = pipe.recv()
                calls += theirs
                wrongs += errors
            else:
                wrongs.append("a process of SQL writers did not end")
                process.kill()
            process.join(10)
        return calls, wrongs


def _write(
    url: str,
    channels: Sequence[str],
    names: Sequence[str],
    until: float,
    seed: int,
    rate: float,
    pipe: Connection,
) -> None:
    wrongs: list[str] = []
    sessions = [_Session(name, url, channels, until, seed, rate, wrongs) for name in names]
    for session in sessions:
        session.start()
    for session in sessions:
        session.join()
    pipe.send(([call for session in sessions for call in session.calls], wrongs))


class _Session(threading.Thread):
    """
    One session of the database after another.
    """

    def __init__(
        self, name: str, url: str, channels: Sequence[str], until: float, seed: int, rate: float, wrongs: list[str]
    ) -> None:
        super().__init__(name=name)
        self.calls: list[Call] = []
        self._url = url.replace("://dcm@", f"://{ROLE}@")
        self._channels = channels
        self._until = until
        self._random = random.Random(f"{seed} {name}")
        self._rate = rate
        self._wrongs = wrongs
        self._number = 0
        self._sessions = 0
        self._connection: Any = None
        # keyed ones whose outcome is not known, and rolled back ones
        self._again: list[Call] = []

    def run(self) -> None:
        """
        Publish until the time is over.
        """
        while time.monotonic() < self._until:
            try:
                if self._connection is None:
                    self._connection = psycopg2.connect(self._url, application_name=f"chaos {self.name}")
                    self._sessions += 1
                self._transaction()
                time.sleep(self._random.expovariate(self._rate))
            except psycopg2.Error:
                self._lose()
                time.sleep(0.1)
            except Exception:
                self._wrongs.append(f"{self.name}: {traceback.format_exc()}")
                return
        self._lose()

    def _lose(self) -> None:
        if self._connection is not None:
            with suppress(psycopg2.Error):
                self._connection.close()
        self._connection = None

    def _transaction(self) -> None:
        batch: list[Call] = []
        committing = False
        opened = time.monotonic()
        outcome = UNDONE
        # a retry is alone: what else is in the transaction would be published again
        again = self._again.pop(0) if self._again else None
        try:
            self._connection.set_isolation_level(self._random.choice(_LEVELS))
            with self._connection.cursor() as cursor:
                if again is not None:
                    batch.append(self._publish(cursor, self._attempt(again)))
                else:
                    self._fill(cursor, batch)
            if again is None and self._random.random() < 0.2:
                self._connection.rollback()
            else:
                committing = True
                self._connection.commit()
                outcome = DONE
        except psycopg2.Error as error:
            if committing and not isinstance(error, psycopg2.errors.TransactionRollback):
                outcome = UNKNOWN
            raise
        finally:
            now = time.monotonic()
            for call in batch:
                call.ended, call.opened = now, opened
                if call.outcome != UNDONE:
                    call.outcome = outcome
            if outcome != DONE or self._random.random() < 0.3:
                self._again += [call for call in batch if call.key is not None and call.publisher == self.name]

    def _fill(self, cursor: Any, batch: list[Call]) -> None:
        for _ in range(self._random.choice((1, 1, 1, 1, 2, 3, 8))):
            batch.append(self._publish(cursor, self._next()))
        if self._random.random() < 0.2:
            self._savepoint(cursor, batch, depth=self._random.choice((1, 1, 2)))
        if self._random.random() < 0.05:
            failed = self._next()
            cursor.execute(_FAIL, (failed.channel, failed.event, self._data(failed)))
            failed.outcome = UNDONE
            batch.append(failed)
        chance = self._random.random()
        if chance < 0.02:
            time.sleep(self._random.uniform(0.5, 4.0))
        elif chance < 0.3:
            time.sleep(self._random.uniform(0, 0.03))
        if self._random.random() < 0.1:
            batch.append(self._publish(cursor, self._next()))

    def _savepoint(self, cursor: Any, batch: list[Call], depth: int) -> None:
        cursor.execute(f"savepoint s{depth}")
        mine = [self._publish(cursor, self._next()) for _ in range(self._random.choice((1, 2)))]
        if depth > 1:
            self._savepoint(cursor, mine, depth - 1)
        if self._random.random() < 0.5:
            cursor.execute(f"rollback to s{depth}")
            for call in mine:
                call.outcome = UNDONE
        elif self._random.random() < 0.7:
            cursor.execute(f"release s{depth}")
        batch += mine

    def _next(self) -> Call:
        """
        What to publish next.
        """
        chance = self._random.random()
        via = "sql" if chance < 0.75 else "trigger" if chance < 0.9 else "notify"
        name, number, key = self.name, 0, None
        channel, event = self._random.choice(self._channels), self._random.choice(EVENTS)
        if via == "sql" and self._random.random() < 0.25:
            key = "mine"
            if self._random.random() < 0.1:
                # all that use the key in these seconds publish the same event
                name, number = "rivals", int(time.monotonic() / _RIVALRY)
                channel, event = self._channels[number % len(self._channels)], EVENTS[0]
        if not number:
            self._number += 1
            number = self._number
        call = Call(name, number, via, f"{self.name}/{self._sessions}", channel, event, time.monotonic())
        call.key = key and f"{name} {number}"
        self.calls.append(call)
        return call

    def _attempt(self, before: Call) -> Call:
        call = Call(
            before.publisher, before.number, before.via, f"{self.name}/{self._sessions}", before.channel, before.event,
            time.monotonic(), before.key,
        )  # fmt: skip
        self.calls.append(call)
        return call

    def _publish(self, cursor: Any, call: Call) -> Call:
        data = self._data(call)
        call.began = time.monotonic()
        if call.via == "trigger":
            cursor.execute(_INSERT, (call.channel, call.event, data))
        elif call.via == "notify":
            small = json.loads(data)
            small["padding"] = ""
            cursor.execute(_NOTIFY, (json.dumps({"channel": call.channel, "event": call.event, "data": small}),))
        else:
            cursor.execute(self._random.choice(_PUBLISH), (call.channel, call.event, data, call.key))
            (call.id,) = cursor.fetchone()
        return call

    def _data(self, call: Call) -> str:
        data = {"publisher": call.publisher, "number": call.number, "padding": padding(call.number)}
        return json.dumps(data, ensure_ascii=self._random.random() < 0.5)
