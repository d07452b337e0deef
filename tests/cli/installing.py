"""
Installing the triggers with dcm-ws init-db, and what they then send.
"""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from dcm_ws.postgres.triggers import PAYLOAD_MAX
from tests.cli.running import run
from tests.integration.databases import PostgresServer


def init_db(folder: Path, server: PostgresServer, *arguments: str) -> str:
    """
    Apply init-db to a database, and return what it prints.
    """
    done = run(folder, "init-db", "--apply", *arguments, DATABASE_URL=server.url)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def init(folder: Path, server: PostgresServer, *arguments: str) -> str:
    """
    The same without the log, so that the triggers notify.
    """
    return init_db(folder, server, "--without-log", *arguments)


def sent(server: PostgresServer, *statements: str) -> list[dict[str, Any]]:
    """
    The payloads of the notifications that the statements send, each in a transaction of its own.
    """
    with closing(psycopg2.connect(server.url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("listen dcm_events")
            for statement in statements:
                cursor.execute(statement)
            cursor.execute("select 1")
        assert not [notice for notice in connection.notices if "dcm-ws" in notice], connection.notices
        payloads = [notify.payload for notify in connection.notifies]
    for payload in payloads:
        assert len(payload.encode()) <= PAYLOAD_MAX
    return [json.loads(payload, parse_constant=lambda word: pytest.fail(word)) for payload in payloads]
