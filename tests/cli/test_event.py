"""
dcm-ws event: on the database, without a service.
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

AT = 1_795_000_000_000
PAGE = {
    "clock": AT,
    "names": {"1": "ann", "2": "b\u202eob"},
    "audiences": [[1, 2]],
    "sent": [5, 0, 0],
    "again": [[5, [-5000, 1, -5000, 2]]],
    "acked": [[5, [-5250, 2]]],
    "seldom": [[5, 15_000, "ann", "dead", "attempts"]],
}


@pytest.fixture
def tables(server: PostgresServer) -> PostgresServer:
    make_tables(server)
    server.execute(
        """insert into dcm_ws.log (pos, event_id, channel, event, data, at, sender, mirrored)
        values (5, 'msg_5', 'topics/a', 'task.created', '{}', %s, ',"from":"boss"', true)""",
        AT,
    )
    return server


def event(folder: Path, server: PostgresServer, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = run(folder, "event", *arguments, DATABASE_URL=server.url, TZ="UTC")
    assert done.returncode == status, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done


def note(server: PostgresServer, **more: object) -> None:
    server.execute("insert into dcm_ws.ledger (first, upto, entries) values (5, 5, %s)", json.dumps(PAGE | more))


def test_what_became_of_an_event(tmp_path: Path, tables: PostgresServer) -> None:
    """
    The event, a line for each agent, and what happened in its order.
    """
    note(tables)
    note(tables)
    lines = event(tmp_path, tables, "msg_5").stdout.splitlines()
    day = "2026-11-18"
    assert [line.split() for line in lines[:6]] == [
        ["id", "msg_5"],
        ["event", "task.created"],
        ["channel", "topics/a"],
        ["pos", "5"],
        ["published", day, "11:06:40.000"],
        ["by", "boss"],
    ]
    head, ann, bob, _, *history = lines[6:]
    assert head.split()[:3] == ["AGENT", "STATE", "SENT"]
    assert ann.split() == ["ann", "dead", "2", day, "11:06:40.000", day, "11:06:45.000", "-", day, "11:06:55.000"]
    assert bob.split()[1:3] == ["acknowledged", "2"]
    assert "\u202e" not in bob
    assert [line.split()[1:] for line in history][-2:] == [
        ["11:06:45.250", bob.split()[0], "acknowledged"],
        ["11:06:55.000", "ann", "dead", "attempts"],
    ]
    assert len(history) == 6


def test_json(tmp_path: Path, tables: PostgresServer) -> None:
    """
    As GET /v1/events/ID answers, for all agents or for one.
    """
    note(tables)
    shown = json.loads(event(tmp_path, tables, "msg_5", "--json").stdout)
    assert (shown["id"], shown["pos"], shown["from"], shown["total"]) == ("msg_5", 5, "boss", 2)
    assert [one["state"] for one in shown["agents"]] == ["dead", "acknowledged"]
    shown = json.loads(event(tmp_path, tables, "msg_5", "--json", "--agent", "ann").stdout)
    assert [one["agent_id"] for one in shown["agents"]] == ["ann"]


def test_many_agents(tmp_path: Path, tables: PostgresServer) -> None:
    """
    A table of the first ones; no history that nobody can read.
    """
    names = {str(number): f"agent-{number:03}" for number in range(1, 201)}
    note(tables, names=names, audiences=[list(range(1, 201))], again=[], acked=[], seldom=[])
    lines = event(tmp_path, tables, "msg_5", "--limit", "50").stdout.splitlines()
    assert lines[-1] == "and 150 more; --limit shows more"
    assert len(lines) == 6 + 1 + 50 + 1


def test_event_that_went_to_nobody(tmp_path: Path, tables: PostgresServer) -> None:
    said = event(tmp_path, tables, "msg_5").stdout
    assert said.splitlines()[-1] == "it went to no agent, as far as the ledger knows"


def test_event_that_there_is_not(tmp_path: Path, tables: PostgresServer) -> None:
    said = event(tmp_path, tables, "msg_6\u202e", status=1).stderr
    assert "the log has no event 'msg_6" in said and "\u202e" not in said
