"""
Whether a connection has a server process of its own, or shares it with others through a connection pool.
"""

from __future__ import annotations

import os
import socket
from typing import Any

from psycopg2.extensions import make_dsn

from dcm_ws.postgres.connection import DatabaseConnection, DatabaseError, Place, connect, deadline

SHARED = (
    "the log needs sessions of its own, but a connection pool in transaction mode is in between;"
    " connect to PostgreSQL itself, or to a pool in session mode"
)
"""
Why the log cannot be written through such a pool.
"""

_SECONDS = 3.0


async def process(connection: DatabaseConnection) -> int:
    """
    The number of the server process that answers now.

    Behind a pooler it is another one than in C{info.backend_pid}: the pooler answers the handshake with a number of its
    own.
    """
    number: int = (await connection.runQuery("select pg_catalog.pg_backend_pid()"))[0][0]
    return number


async def shares_process(connection: DatabaseConnection, place: Place) -> bool:
    """
    Whether a pool lends the server process of this connection to another one that begins a transaction.

    It has to be known before a lock is taken: locks and settings of the session would stay behind in the pool.
    """
    with deadline(connection, _SECONDS):
        ours = await process(connection)
    if ours == connection.pollable().info.backend_pid:
        return False
    other = DatabaseConnection(connection.own_reactor)
    try:
        await connect(other, same_server(connection, place), "dcm-ws probe")
        with deadline(other, _SECONDS):
            await other.runOperation("begin")
            theirs = await process(other)
        with deadline(connection, _SECONDS):
            return theirs == ours or await process(connection) != ours
    except DatabaseError as error:
        # a pool in session mode may have no second connection; one in statement mode refuses transactions
        return "statement pooling" in str(error)
    finally:
        other.close()


def same_server(connection: DatabaseConnection, place: Place) -> Place:
    """
    Returns the place of this connection's server, if the connection string names several.
    """
    info = connection.pollable().info
    with socket.socket(fileno=os.dup(connection.fileno())) as ours:
        peer: Any = ours.getpeername() if ours.family in (socket.AF_INET, socket.AF_INET6) else None
    hostaddr = {"hostaddr": peer[0]} if peer else {}
    return Place(make_dsn(place.dsn, host=info.host, port=info.port, **hostaddr), place.own)
