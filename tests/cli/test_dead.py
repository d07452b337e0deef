"""
dcm-ws dead: on the database, without a service.
"""

from __future__ import annotations

import json
import os
import pty
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.running import PROGRAM, clean, run
from tests.forking import Popen
from tests.integration.databases import UNREACHABLE, PostgresServer, postgres
from tests.integration.machine import free_port
from tests.integration.owed import bury, make_tables

pytestmark = pytest.mark.integration

HOUR = 3_600_000


@pytest.fixture(scope="module")
def own() -> Iterator[PostgresServer]:
    with postgres() as server:
        yield server


@pytest.fixture
def tables(own: PostgresServer) -> PostgresServer:
    make_tables(own)
    return own


class Dead:
    """
    Runs the command.
    """

    def __init__(self, folder: Path, server: PostgresServer) -> None:
        self._folder = folder
        self._url = server.url

    def __call__(self, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        done = run(self._folder, "dead", *arguments, DATABASE_URL=self._url)
        assert done.returncode == status, (done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done

    def ids(self, *arguments: str) -> list[str]:
        lines = self("list", "--json", *arguments).stdout.splitlines()
        return [json.loads(line)["event_id"] for line in lines]


@pytest.fixture
def dead(tmp_path: Path, tables: PostgresServer) -> Dead:
    return Dead(tmp_path, tables)


def requests(server: PostgresServer) -> dict[str, str]:
    return dict(server.execute("select event_id, request from dcm_ws.dead where request is not null"))


def test_list_filters(dead: Dead, tables: PostgresServer) -> None:
    """
    Dead letters are listed from the oldest on, and the options choose among them.
    """
    now = time.time_ns() // 1_000_000
    bury(tables, "b", 2, died_at=now - 2 * HOUR, reason="poison")
    bury(tables, "a", 1, died_at=now - 3 * HOUR)
    bury(tables, "a", 3, died_at=now - HOUR // 2, reason="overflow")
    assert dead.ids() == ["msg_1", "msg_2", "msg_3"]
    assert dead.ids("--agent", "a") == ["msg_1", "msg_3"]
    assert dead.ids("--since", "150m") == ["msg_2", "msg_3"]
    assert dead.ids("--until", "1h") == ["msg_1", "msg_2"]
    assert dead.ids("--since", str(now - 2 * HOUR), "--until", str(now - HOUR // 2)) == ["msg_2"]
    assert dead.ids("--reason", "poison", "--reason", "overflow") == ["msg_2", "msg_3"]
    assert dead.ids("--agent", "nobody") == []


def test_times_without_an_offset_are_local(dead: Dead, tables: PostgresServer, tmp_path: Path) -> None:
    """
    C{list} shows local times, and C{--since} and C{--until} accept what it shows.
    """
    bury(tables, "a", 1, died_at=1_795_000_000_000)
    done = run(tmp_path, "dead", "list", DATABASE_URL=tables.url, TZ="Asia/Tokyo")
    assert "2026-11-18 20:06:40" in done.stdout
    for since, listed in (
        ("2026-11-18 20:06:40", True),
        ("2026-11-18T20:06:41", False),
        ("2026-11-18T11:06:40Z", True),
    ):
        done = run(tmp_path, "dead", "list", "--since", since, DATABASE_URL=tables.url, TZ="Asia/Tokyo")
        assert ("msg_1" in done.stdout) is listed, since


def test_limit_says_that_there_are_more(dead: Dead, tables: PostgresServer) -> None:
    for pos in range(1, 4):
        bury(tables, "a", pos)
    for more in ((), ("--json",)):
        done = dead("list", "--limit", "2", *more)
        assert "msg_2" in done.stdout and "msg_3" not in done.stdout
        assert "more than 2" in done.stderr
        assert dead("list", "--limit", "3", *more).stderr == ""


def test_list_without_letters(dead: Dead) -> None:
    done = dead("list")
    assert (done.stdout, done.stderr) == ("", "no dead letters\n")


def test_json_has_the_whole_letter(dead: Dead, tables: PostgresServer) -> None:
    bury(tables, "a", 7, data={"n": [1, "ü"]})
    assert json.loads(dead("list", "--json").stdout) == {
        "agent": "a",
        "event_id": "msg_7",
        "pos": 7,
        "channel": "topics/a",
        "event": "task.created",
        "data": {"n": [1, "ü"]},
        "at": 1_794_999_940_000,
        "deliveries": 3,
        "reason": "attempts",
        "died_at": 1_795_000_000_000,
        "redriven_at": None,
        "request": None,
    }


def test_what_a_terminal_would_act_on_is_escaped(dead: Dead, tables: PostgresServer) -> None:
    bury(tables, "a\x1b[31m", 1, data={"x\x9b": "\u202e\x1b]0;title\x07"}, event="task.\x1b[2J")
    for command in (("list",), ("show", "msg_1")):
        shown = dead(*command).stdout
        assert "\\x1b[31m" in shown and "task.\\x1b[2J" in shown
        assert all(char == "\n" or char.isprintable() for char in shown)
    as_json = dead("show", "msg_1", "--json").stdout
    assert as_json.isascii() and json.loads(as_json)["agent"] == "a\x1b[31m"


def test_show(dead: Dead, tables: PostgresServer) -> None:
    """
    An event may be a dead letter of several agents.
    """
    bury(tables, "a", 1, data={"task": {"id": 5}})
    bury(tables, "b", 1, data={"task": {"id": 5}}, reason="poison")
    bury(tables, "b", 2)
    shown = dead("show", "msg_1").stdout
    assert "attempts" in shown and "poison" in shown and '      "id": 5\n' in shown and "msg_2" not in shown
    assert "attempts" not in dead("show", "msg_1", "--agent", "b").stdout
    failed = dead("show", "msg_1", "--agent", "c", status=1)
    assert failed.stderr == "Error: there is no such dead letter\n"


def test_redrive_asks_the_service(dead: Dead, tables: PostgresServer) -> None:
    """
    Without a service the letters wait for one; they are chosen as in C{list}.
    """
    for pos in range(1, 5):
        bury(tables, "a", pos, died_at=1_795_000_000_000 + pos)
    bury(tables, "b", 5)
    done = dead("redrive", "--agent", "a", "--limit", "2", "--wait", "0.3")
    assert done.stdout == "2 dead letters to redrive: 0 taken by the service, 0 acknowledged\n"
    assert "no service has seen to the other 2 yet" in done.stderr and "--limit" in done.stderr
    assert requests(tables) == {"msg_1": "redrive", "msg_2": "redrive"}
    done = dead("redrive", "msg_5", "--wait", "0", "--json")
    assert json.loads(done.stdout) == {"letters": 1, "taken": 0, "acknowledged": 0}
    assert done.stderr == ""
    assert set(requests(tables)) == {"msg_1", "msg_2", "msg_5"}
    # what the service has done meanwhile counts
    tables.execute("update dcm_ws.dead set request = null, redriven_at = 1 where event_id = 'msg_1'")
    tables.execute("delete from dcm_ws.dead where event_id = 'msg_2'")
    assert dead("list", "--agent", "a").stdout.count("redriven") == 1
    done = dead("redrive", "--agent", "a", "--wait", "0")
    assert done.stdout.startswith("2 dead letters to redrive")
    assert set(requests(tables)) == {"msg_3", "msg_4", "msg_5"}


def test_purge_outranks_redrive(dead: Dead, tables: PostgresServer) -> None:
    bury(tables, "a", 1)
    bury(tables, "a", 2)
    dead("redrive", "--wait", "0")
    assert json.loads(dead("purge", "msg_1", "--yes", "--wait", "0", "--json").stdout) == {"letters": 1, "purged": 0}
    assert requests(tables) == {"msg_1": "purge", "msg_2": "redrive"}
    dead("redrive", "--wait", "0")
    assert requests(tables) == {"msg_1": "purge", "msg_2": "redrive"}
    assert dead("redrive", "msg_1", "--wait", "0", status=1).stderr.startswith("Error: there are no such dead letters")


@pytest.mark.parametrize("command", [("redrive",), ("purge", "--yes")])
def test_nothing_found_is_a_failure(dead: Dead, command: tuple[str, ...]) -> None:
    failed = dead(*command, "--agent", "nobody", status=1)
    assert failed.stderr == "Error: there are no such dead letters; nothing was done\n"


def answered(folder: Path, server: PostgresServer, answer: bytes) -> tuple[int, str]:
    """
    Run C{dead purge} on a terminal, and answer its question; returns its exit code and what the terminal shows.
    """
    ours, theirs = pty.openpty()
    with Popen(
        [PROGRAM, "dead", "purge", "--wait", "0"],
        cwd=folder,
        env=clean(folder, DATABASE_URL=server.url),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        os.write(ours, answer)
        status = process.wait(timeout=30)
        text = os.read(ours, 65_536).decode()
        os.close(ours)
    return status, text


def test_purge_asks_for_confirmation(dead: Dead, tables: PostgresServer, tmp_path: Path) -> None:
    bury(tables, "a", 1)
    bury(tables, "b", 2)
    assert "--yes" in dead("purge", status=2).stderr
    assert requests(tables) == {}
    status, text = answered(tmp_path, tables, b"n\n")
    assert status == 1 and "Delete 2 dead letters of 2 agents for good?" in text
    assert requests(tables) == {}
    status, text = answered(tmp_path, tables, b"y\n")
    assert status == 0, text
    assert requests(tables) == {"msg_1": "purge", "msg_2": "purge"}


@pytest.mark.parametrize("option", ["--since", "--until"])
@pytest.mark.parametrize("value", ["yesterday", "1w", "2026-13-01", "9999999999d", "-1h"])
def test_invalid_times(dead: Dead, option: str, value: str) -> None:
    assert "is not a time: use 30s" in dead("list", f"{option}={value}", status=2).stderr


def test_invalid_usage(dead: Dead) -> None:
    for arguments in (
        ("list", "--limit", "0"),
        ("list", "--reason", "boredom"),
        ("show",),
        ("redrive", "--wait", "-1"),
        ("bury",),
        ("list", "extra"),
    ):
        dead(*arguments, status=2)


def test_database_without_the_durable_log(dead: Dead, own: PostgresServer) -> None:
    own.execute("drop schema dcm_ws cascade")
    for command in (("list",), ("show", "msg_1"), ("redrive",), ("purge", "--yes")):
        assert "dcm-ws init-db --apply" in dead(*command, status=1).stderr


def test_role_without_rights(tables: PostgresServer, tmp_path: Path) -> None:
    """
    A role that may not read the dead letters is told so; one that may read them cannot redrive them.
    """
    bury(tables, "a", 1)
    tables.execute("drop role if exists reader; create role reader login")
    url = tables.url.replace("dcm@", "reader@")
    failed = run(tmp_path, "dead", "list", DATABASE_URL=url)
    assert failed.returncode == 1
    assert "permission denied" in failed.stderr and "connect as the role that created" in failed.stderr
    tables.execute("grant usage on schema dcm_ws to reader; grant select on dcm_ws.dead to reader")
    assert "msg_1" in run(tmp_path, "dead", "list", DATABASE_URL=url).stdout
    failed = run(tmp_path, "dead", "redrive", DATABASE_URL=url)
    assert failed.returncode == 1 and "permission denied" in failed.stderr
    tables.execute("drop owned by reader; drop role reader")


def test_no_database(tmp_path: Path) -> None:
    for variables in ({}, {"DATABASE_URL": UNREACHABLE.replace(":1/", f":{free_port()}/")}):
        failed = run(tmp_path, "dead", "list", **variables)
        assert failed.returncode == 1 and failed.stderr.startswith("Error: ") and "Traceback" not in failed.stderr


def test_letters_in_use(dead: Dead, tables: PostgresServer) -> None:
    """
    A lock that somebody holds on the table does not make the command wait for ever.
    """
    import psycopg2

    bury(tables, "a", 1)
    holder: Any = psycopg2.connect(tables.url)
    try:
        holder.cursor().execute("lock table dcm_ws.dead in share mode")
        assert "in use" in dead("redrive", status=1).stderr
    finally:
        holder.close()
    assert requests(tables) == {}


def test_help_has_examples(dead: Dead) -> None:
    for command in ((), ("list",), ("show",), ("redrive",), ("purge",)):
        text = dead(*command, "--help").stdout
        assert "Examples:" in text and "Exit codes:" in text
