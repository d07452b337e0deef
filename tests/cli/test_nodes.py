"""
dcm-ws nodes: on the database, without a service.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.cli.running import run
from tests.integration.databases import PostgresServer
from tests.integration.owed import make_tables

pytestmark = pytest.mark.integration

NODE = """
    insert into dcm_ws.node (name, host, pid, version, address, seen_at, fenced, leader, draining, figures)
    values (%s, 'host', 7, '1.0', '127.0.0.1:3849', now() - interval '2 seconds', %s, %s, %s, %s)
"""


@pytest.fixture
def tables(server: PostgresServer) -> PostgresServer:
    make_tables(server)
    return server


def nodes(folder: Path, server: PostgresServer, *arguments: str) -> subprocess.CompletedProcess[str]:
    """
    Run the command.
    """
    done = run(folder, "nodes", *arguments, DATABASE_URL=server.url, TZ="UTC")
    assert "Traceback" not in done.stderr
    return done


def test_nodes_are_listed(tmp_path: Path, tables: PostgresServer) -> None:
    """
    Each with what it does, and with how far it is behind the log.
    """
    tables.execute(
        "insert into dcm_ws.log (pos, event_id, channel, event, data, at, mirrored)"
        " values (5, 'msg_5', 'topics/a', 'task.created', 'null', 0, true)"
    )
    figures = json.dumps({"clients": 3, "agents": 2, "pos": 4})
    for name, fenced, leader, draining in (
        *(("old", True, False, False), ("first", False, True, False)),
        *(("second", False, False, False), ("third", False, False, True)),
    ):
        tables.execute(NODE, name, fenced, leader, draining, figures)
    done = nodes(tmp_path, tables, "--json")
    found = {one["node"]: one for one in map(json.loads, done.stdout.splitlines())}
    assert {name: one["state"] for name, one in found.items()} == {
        "old": "gone",
        "first": "leads",
        "second": "follows",
        "third": "drains",
    }
    first = found["first"]
    assert (first["clients"], first["agents"], first["pos"], first["behind"]) == (3, 2, 4, 1)
    assert 2 <= first["seen"] < 60
    assert found["old"]["behind"] is None
    lines = nodes(tmp_path, tables).stdout.splitlines()
    assert lines[0].split()[:4] == ["ID", "NODE", "ADDRESS", "STATE"]
    assert [line.split()[1:4] for line in lines[1:]] == [
        [name, "127.0.0.1:3849", one["state"]] for name, one in found.items()
    ]


def test_nobody_leads(tmp_path: Path, tables: PostgresServer) -> None:
    """
    It is said if no node numbers the events.
    """
    tables.execute(NODE, "n1", False, False, False, "{}")
    assert "no node numbers the events now" in nodes(tmp_path, tables).stderr


def test_no_nodes(tmp_path: Path, tables: PostgresServer) -> None:
    """
    That is an error, and so is a database without the log.
    """
    done = nodes(tmp_path, tables)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no service on this database was started with --cluster lately" in done.stderr
    tables.execute("drop schema dcm_ws cascade")
    done = nodes(tmp_path, tables)
    assert done.returncode == 1 and "dcm-ws init-db --apply" in done.stderr
