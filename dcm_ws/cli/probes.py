"""
Questions that C{dcm-ws check} asks a database.
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
Seconds that one step with the database, or with a port, may take.
"""

_HOLDERS = 4
# in the error message of a pooler that lends a connection for one statement only
_STATEMENT_POOLING = "statement pooling"


class SlowError(Exception):
    """
    The database did not answer in time.
    """


@contextmanager
def deadlines() -> Iterator[None]:
    """
    A context in which no step with a database takes longer than L{DEADLINE}; otherwise psycopg2 would wait for a
    pooler indefinitely.
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
    Connect in autocommit mode.
    """
    connection = psycopg2.connect(url, application_name="dcm-ws check")
    connection.autocommit = True
    return connection


def ask(connection: Any, sql: str, *parameters: object) -> Any:
    """
    Run a query; returns its only row.
    """
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchone()


def pooler_mode(url: str) -> str | None:
    """
    Return the mode of a pooler that loses notifications because it shares connections: C{statement} or C{transaction};
    None if each of our connections has a server process of its own.

    In transaction mode the pooler lends a server process for the time of a transaction.  So a connection that opens a
    transaction gets the server process that another connection has just used.
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


def notification_arrives(url: str) -> bool:
    """
    Whether a notification, on a channel with a random name, gets from one connection to another.
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
    Return the seconds that the database's clock is ahead of ours, compared in the middle of the round trip.
    """
    before = time.time()
    theirs = ask(connection, "select extract(epoch from pg_catalog.clock_timestamp())")[0]
    return float(theirs) - (before + time.time()) / 2
