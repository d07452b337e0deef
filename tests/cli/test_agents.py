"""
dcm-ws agents: on the database, without a service.
"""

from __future__ import annotations

import json
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from tests.cli.running import run
from tests.integration.databases import PostgresServer
from tests.integration.owed import bury, make_tables

pytestmark = pytest.mark.integration

AT = 1_795_000_000_000


@pytest.fixture
def tables(server: PostgresServer) -> PostgresServer:
    make_tables(server)
    return server


class Agents:
    """
    Runs the command.
    """

    def __init__(self, folder: Path, server: PostgresServer) -> None:
        self._folder = folder
        self._url = server.url

    def __call__(self, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        done = run(self._folder, "agents", *arguments, DATABASE_URL=self._url, TZ="UTC")
        assert done.returncode == status, (done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done

    def listed(self, *arguments: str) -> dict[str, dict[str, Any]]:
        lines = map(json.loads, self("--json", *arguments).stdout.splitlines())
        return {line["agent"]: line for line in lines}


@pytest.fixture
def agents(tmp_path: Path, tables: PostgresServer) -> Agents:
    return Agents(tmp_path, tables)


def checkpoint(server: PostgresServer, agent: str, **state: object) -> None:
    server.execute("insert into dcm_ws.agent (agent, state) values (%s, %s)", agent, json.dumps(state))


def change(server: PostgresServer, **changes: object) -> None:
    server.execute("insert into dcm_ws.ack (changes) values (%s)", json.dumps(changes))


def publish(server: PostgresServer, pos: int, channel: str, event: str = "task.created") -> None:
    server.execute(
        "insert into dcm_ws.log (pos, event_id, channel, event, data, at, mirrored)"
        " values (%s, %s, %s, %s, '{}', %s, %s)",
        *(pos, f"msg_{pos}", channel, event, AT + pos * 1000, channel != "global"),
    )


def test_the_journal_counts(agents: Agents, tables: PostgresServer) -> None:
    """
    The state of an agent is its checkpoint with all changes that were written since.
    """
    checkpoint(tables, "a", sent=5, channels={"topics/a": 0}, owed={"4": ["msg_4", 2], "5": ["msg_5", 1]}, durable=True)
    checkpoint(tables, "b", sent=1, channels={"topics/b": 0})
    change(
        tables, a={"settled": [4], "owed": {"6": ["msg_6", 1]}, "sent": 6}, c={"gone": True, "channels": {"global": 7}}
    )
    change(tables, a={"left": AT}, b={"gone": True}, c={"sent": 3})
    found = agents.listed()
    assert set(found) == {"a", "c"}
    assert found["a"] == {
        "agent": "a",
        "connected": False,
        "left": AT,
        "durable": True,
        "owed": 2,
        "waiting": 0,
        "oldest": None,
        "dead": 0,
        "sent": 6,
        "channels": {"topics/a": 6},
    }
    assert found["c"]["connected"] and found["c"]["channels"] == {"global": 7}
    assert agents.listed("a") == {"a": found["a"]}


def test_what_waits_in_the_log(agents: Agents, tables: PostgresServer) -> None:
    """
    What was published to the channels of an agent since it was sent events counts once, even if it comes on global,
    too; what nobody acknowledges does not count.
    """
    for pos, channel, event in (
        (1, "topics/a", "task.created"),
        (2, "topics/a", "subtask.running"),
        (3, "topics/b", "message.new"),
        (4, "global", "task.failed"),
        (5, "topics/a", "capacity.update"),
        (6, "topics/a", "task.created"),
    ):
        publish(tables, pos, channel, event)
    channels = {"left": AT, "durable": True}
    checkpoint(tables, "a", sent=1, channels={"topics/a": 0, "topics/b": 3}, owed={"1": ["msg_1", 3]}, **channels)
    checkpoint(tables, "all", sent=2, channels={"topics/a": 0, "global": 0}, **channels)
    checkpoint(tables, "none", sent=6, channels={"topics/a": 0, "global": 0}, **channels)
    bury(tables, "none", 1)
    bury(tables, "none", 2)
    found = agents.listed()
    assert [(one["owed"], one["waiting"], one["oldest"], one["dead"]) for one in found.values()] == [
        (1, 2, AT + 1000, 0),
        (0, 3, AT + 3000, 0),
        (0, 0, None, 2),
    ]


def test_tables(agents: Agents, tables: PostgresServer) -> None:
    """
    Those that owe most come first; what they owe is shown of a single one.
    """
    publish(tables, 1, "topics/a")
    checkpoint(tables, "a\x1b[1m", channels={"topics/a": 1}, left=AT)
    owed = {str(pos): [f"msg_{pos}", 2] for pos in range(1, 31)}
    checkpoint(tables, "b", sent=30, channels={"topics/a": 0, "global": 0}, owed=owed, durable=True)
    done = agents()
    head, first, second = done.stdout.splitlines()
    assert head.split() == ["AGENT", "STATE", "SINCE", "DURABLE", "OWED", "WAITING", "OLDEST", "DEAD", "CHANNELS"]
    assert first.split() == ["b", "connected", "-", "yes", "30", "0", "2026-11-18", "11:06:41", "0", "2"]
    assert second.split() == ["a\\x1b[1m", "away", "2026-11-18", "11:06:40", "no", "0", "0", "-", "0", "1"]
    assert "no service uses the durable log now" in done.stderr
    shown = agents("b").stdout
    assert "msg_20" in shown and "msg_21" not in shown and "and 10 more" in shown
    assert "not in the log any more" in shown and "task.created" in shown
    limited = agents("--limit", "1")
    assert len(limited.stdout.splitlines()) == 2 and "there are 2 agents" in limited.stderr


def test_a_service_that_runs(agents: Agents, tables: PostgresServer) -> None:
    """
    Whoever holds the lock of the leader uses the durable log.
    """
    checkpoint(tables, "a")
    with closing(psycopg2.connect(tables.url)) as leader:
        leader.cursor().execute("select pg_advisory_lock(1684237687, 1)")
        assert agents().stderr == ""


def test_nothing_known(agents: Agents) -> None:
    assert agents().stderr.startswith("no agents\n")
    assert agents("nobody\x1b[1m", status=1).stderr == "Error: nothing is known of agent 'nobody\\\\x1b[1m'\n"
    agents("--limit", "0", status=2)
    agents("a", "b", status=2)


def test_what_cannot_be_read_is_left_out(agents: Agents, tables: PostgresServer) -> None:
    """
    Somebody may have written into the tables by hand.
    """
    checkpoint(tables, "a", sent=-1)
    checkpoint(tables, "b", sent=2)
    change(tables, b={"owed": 5})
    done = agents("--json")
    assert [json.loads(line)["agent"] for line in done.stdout.splitlines()] == ["b"]
    assert done.stderr.count("cannot be read") == 2


def test_database_without_the_durable_log(agents: Agents, tables: PostgresServer) -> None:
    tables.execute("drop schema dcm_ws cascade")
    assert "dcm-ws init-db --apply" in agents(status=1).stderr
