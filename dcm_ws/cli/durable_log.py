"""
The tables of the durable log, for commands that work on the database itself, with or without a service that runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import click
import psycopg2
from psycopg2 import errors

from dcm_ws.cli.terminal import one_line
from dcm_ws.postgres.statements import statement

_CONNECT_SECONDS = 10

_MISSING = (errors.UndefinedTable, errors.InvalidSchemaName)


@contextmanager
def connected(url: str) -> Iterator[Any]:
    """
    A connection to the database, closed at the end.

    @raise click.ClickException: the database cannot be reached, has no durable log, or refuses what was asked of it.
    """
    try:
        with closing(
            psycopg2.connect(url, connect_timeout=_CONNECT_SECONDS, application_name="dcm-ws command")
        ) as connection:
            yield connection
    except _MISSING:
        raise click.ClickException(
            "this database has no durable log: dcm-ws init-db --apply creates it; without it, dead letters and what"
            " agents are owed are in the memory of the service only"
        ) from None
    except errors.InsufficientPrivilege as error:
        raise click.ClickException(
            f"{_reason(error)}: connect as the role that created the durable log, or as a member of it"
        ) from None
    except errors.LockNotAvailable:
        raise click.ClickException("nothing was changed: the dead letters are in use; try again") from None
    except psycopg2.Error as error:
        raise click.ClickException(_reason(error)) from None


@contextmanager
def transaction(connection: Any, name: str | None = None) -> Iterator[Any]:
    """
    A cursor in a transaction of its own; what has to wait for a lock fails after some seconds.

    @param name: if it is given, the server sends the rows of the cursor's only query a few at a time.
    """
    with connection:
        with connection.cursor() as cursor:
            cursor.execute(statement("agents/session"))
        with connection.cursor(name) as cursor:
            if name is not None:
                # rows may have data of a megabyte
                cursor.itersize = 20
            yield cursor


def _reason(error: psycopg2.Error) -> str:
    return one_line(error.diag.message_primary or str(error) or type(error).__name__)
