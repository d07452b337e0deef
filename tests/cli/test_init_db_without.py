"""
dcm-ws init-db without the triggers: only the durable log, for applications that publish all events themselves.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.installing import init_db
from tests.cli.running import run
from tests.integration.databases import PostgresServer

pytestmark = pytest.mark.integration

_TABLES = "select count(*) from pg_tables where schemaname = 'public'"
_TRIGGERS = "select count(*) from pg_trigger where not tgisinternal"
_LOG = "select to_regclass('dcm_ws.log') is not null"


def test_only_the_log(tmp_path: Path, server: PostgresServer) -> None:
    """
    With --without-triggers, the schema of the log is created, and nothing else; it is removed in the same way.
    """
    said = init_db(tmp_path, server, "--without-triggers")
    assert said.startswith("log, version") and "triggers" not in said
    assert server.execute(_TABLES) == [(0,)]
    assert server.execute("select dcm_ws.publish('global', 'task.created', '{}')")[0][0].startswith("msg_")
    init_db(tmp_path, server)
    assert server.execute(_TRIGGERS) != [(0,)]
    said = init_db(tmp_path, server, "--remove", "--without-triggers")
    assert said.startswith("log removed") and "triggers" not in said
    assert server.execute(_LOG) == [(False,)]
    assert server.execute(_TRIGGERS) != [(0,)]


@pytest.mark.parametrize("arguments", [("--without-log",), ("--table", "sessions"), ("--replicated",)])
def test_invalid_combinations(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """
    --without-triggers leaves no triggers to choose, and something must be left.
    """
    done = run(tmp_path, "init-db", "--without-triggers", *arguments)
    assert done.returncode == 2
    assert "--without-triggers leaves only the log" in done.stderr
