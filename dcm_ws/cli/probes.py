"""
What C{dcm-ws check} finds out about a database.
"""

from __future__ import annotations

import secrets
import select
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import psycopg2
from psycopg2 import extensions

DEADLINE = 5.0
"""
Seconds that one step with the database may take.
"""

_HOLDERS = 4
# what a pooler says where it gives a connection for one statement alone
_STATEMENT_POOLING = "statement pooling"


class SlowError(Exception):
    """
    The database did not answer in time.
    """


@contextmanager
def deadlines() -> Iterator[None]:
    """
    Within, no step with a database takes longer than L{DEADLINE}; psycopg2 by itself would wait for a pooler
    indefinitely.
    """

    def wait(connection: Any) -> None:
        end = time.monotonic() + DEADLINE
        while (state := connection.poll()) != extensions.POLL_OK:
            read = [connection] if state == extensions.POLL_READ else []
            write = [connection] if state == extensions.POLL_WRITE else []
            left = end - time.monotonic()
            if left <= 0 or not any(select.select(read, write, [], left)):
                raise SlowError(f"no answer within {DEADLINE:g} s")

    extensions.set_wait_callback(wait)
    try:
        yield
    finally:
        extensions.set_wait_callback(None)


def connect(url: str) -> Any:
    """
    A connection without transactions of its own.
    """
    connection = psycopg2.connect(url, application_name="dcm-ws check")
    connection.autocommit = True
    return connection


def ask(connection: Any, sql: str, *parameters: object) -> Any:
    """
    The only row of an answer.
    """
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchone()


def pooler(url: str) -> str | None:
    """
    How a pooler between here and the database shares its connections, where NOTIFY cannot come through; None where
    each connection here has one of its own there.

    In transaction mode a connection there is free between two statements: one that holds a transaction open gets
    the very server process that another connection has just used.
    """
    with ExitStack() as stack:
        first = stack.enter_context(closing(connect(url)))
        ours = ask(first, "select pg_catalog.pg_backend_pid()")[0]
        for _ in range(_HOLDERS):
            other = stack.enter_context(closing(connect(url)))
            try:
                with other.cursor() as cursor:
                    cursor.execute("begin")
                    cursor.execute("select pg_catalog.pg_backend_pid()")
                    theirs = cursor.fetchone()[0]
            except psycopg2.Error as error:
                if _STATEMENT_POOLING in str(error):
                    return "statement"
                raise
            if theirs == ours:
                return "transaction"
        return "transaction" if ask(first, "select pg_catalog.pg_backend_pid()")[0] != ours else None


def hears(url: str) -> bool:
    """
    Does a notification, on a channel of our own, come from one connection to another?
    """
    channel, canary = f"dcm_ws_check_{secrets.token_hex(8)}", secrets.token_hex(8)
    with closing(connect(url)) as listener, closing(connect(url)) as sender:
        with listener.cursor() as cursor:
            cursor.execute(f"listen {channel}")
        ask(sender, "select pg_catalog.pg_notify(%s, %s)", channel, canary)
        end = time.monotonic() + DEADLINE
        while (left := end - time.monotonic()) > 0:
            if select.select([listener], [], [], left)[0]:
                listener.poll()
            if any(notify.payload == canary for notify in listener.notifies):
                return True
    return False


def clock_difference(connection: Any) -> float:
    """
    Seconds that the database's clock is ahead of ours; taken in the middle of the round trip.
    """
    before = time.time()
    theirs = ask(connection, "select extract(epoch from pg_catalog.clock_timestamp())")[0]
    return float(theirs) - (before + time.time()) / 2
