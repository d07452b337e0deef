"""
dcm-ws publish, by WebSocket and by the database.
"""

from __future__ import annotations

import contextlib
import json
import signal
from pathlib import Path

import pytest

from dcm_ws.cli.terminal import harmless
from tests.cli.commands import ended, lines_of, publish, start, url
from tests.cli.running import run
from tests.integration.clients import hear
from tests.integration.databases import PostgresServer
from tests.integration.machine import until
from tests.integration.running import Service, service

pytestmark = pytest.mark.integration

INFO = {"channel": "global", "event": "system.info"}


def test_publish(tmp_path: Path, running: Service) -> None:
    """
    DATA comes from the command line or standard input; the id is printed.
    """
    client = running.connect()
    done = publish(tmp_path, running, "global", "system.info", '{"a": [1, "\u00fc"]}')
    frame = hear(client)
    assert (done.returncode, done.stdout.strip()) == (0, frame["id"])
    assert frame["data"] == {"a": [1, "\u00fc"]}
    done = run(tmp_path, "publish", "--url", url(running), "--json", "global", "system.info", "-", stdin="7\n")
    assert hear(client)["data"] == 7
    assert json.loads(done.stdout)["published"] is True


@pytest.mark.parametrize(
    "arguments",
    [(), ("global",), ("global", "a.b", "{no json"), ("agents/", "a.b"), ("global", "no dots"),
     ("global", "a.b", "--lines", "x"), ("--lines", "/none/such"), ("--via", "pigeon", "global", "a.b"),
     ("--key", "", "global", "a.b"), ("--key", "x" * 129, "global", "a.b"), ("--key", "k", "--lines", "-")],
)  # fmt: skip
def test_invalid_usage(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """
    Invalid usage ends with 2, before it connects.
    """
    done = run(tmp_path, "publish", "--url", "ws://127.0.0.1:1/", *arguments)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr


def test_the_position(tmp_path: Path, running: Service) -> None:
    """
    With --json, the position of an event that is logged is printed, too.
    """
    done = publish(tmp_path, running, "--json", "topics/a", "task.created", "1")
    fields = json.loads(done.stdout)
    assert fields["pos"] == running.stats()["log"]["head"]
    assert set(fields) == {"published", "message_id", "pos"}


def test_publish_once(tmp_path: Path, running: Service) -> None:
    """
    The same agent publishes an event with the same key once, in arguments and in lines; and needs to be an agent.
    """
    client = running.connect()
    ours = ("--agent-id", "ci")
    first = publish(tmp_path, running, "--key", "k", *ours, *INFO.values(), "1")
    assert "before" not in first.stderr
    again = publish(tmp_path, running, "--key", "k", *ours, *INFO.values(), "2")
    assert (again.returncode, again.stdout) == (0, first.stdout)
    assert "published before, with the same key" in again.stderr
    line = json.dumps(INFO | {"key": "k", "data": 3})
    done = run(tmp_path, "publish", "--url", url(running), *ours, "--json", "--lines", "-", stdin=line)
    assert json.loads(done.stdout) == {"published": True, "message_id": first.stdout.strip(), "duplicate": True}
    other = publish(tmp_path, running, "--key", "k", "--agent-id", "other", *INFO.values(), "4")
    assert other.stdout != first.stdout
    assert [hear(client)["data"] for _ in range(2)] == [1, 4]
    nobody = publish(tmp_path, running, "--key", "k", *INFO.values())
    assert (nobody.returncode, nobody.stdout) == (1, "")
    assert "--agent-id" in nobody.stderr


def test_publish_lines(tmp_path: Path, running: Service) -> None:
    """
    Invalid lines are reported by number, and the others are published, in order.
    """
    client = running.connect()
    (tmp_path / "events").write_text(
        '{"channel": "global", "event": "system.info", "data": 1}\n'
        "\n"
        "nonsense\n"
        '{"channel": "nowhere", "event": "system.info"}\n'
        '{"channel": "global", "event": "not.in-catalogue"}\n'
        '{"channel": "global", "event": "system.info", "colour": 1}\n'
        f'{{"channel": "global", "event": "system.info", "data": "{"x" * (1 << 20)}"}}\n'
        '{"channel": "global", "event": "system.info", "data": 2}'
    )
    done = publish(tmp_path, running, "--lines", "events")
    assert done.returncode == 1
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == [
        *("line 3", "line 4", "line 5", "line 6", "line 7"),
        done.stderr.splitlines()[-1].partition(":")[0],
    ]
    assert "2 published, 5 not" in done.stderr
    assert [hear(client)["data"], hear(client)["data"]] == [1, 2]


def test_publish_lines_at_the_rate_limit(tmp_path: Path) -> None:
    """
    Events over the rate limit are sent again later, in order; so are the messages of bench.
    """
    with service("--rate-limit", "50/s", "--rate-burst", "3") as running:
        client = running.connect()
        text = lines_of(*({**INFO, "data": number} for number in range(20)))
        done = run(tmp_path, "publish", "--url", url(running), "--lines", "-", stdin=text)
        assert (done.returncode, len(done.stdout.split())) == (0, 20), done.stderr
        assert [hear(client)["data"] for _ in range(20)] == list(range(20))
        arguments = ("--connections", "2", "--messages", "20", "--rate", "1000", "--json")
        done = run(tmp_path, "bench", "--url", url(running), *arguments)
        assert done.returncode == 0, done.stderr
        figures = json.loads(done.stdout)
        assert (figures["received"], figures["waited"] > 0) == (40, True)


def test_publish_waits_for_its_lines(tmp_path: Path) -> None:
    """
    While a pipe is idle, it answers the pings of the service.
    """
    with service("--heartbeat-interval", "0.2", "--heartbeat-timeout", "1") as running:
        process = start(tmp_path, "publish", "--url", url(running), "--lines", "-")
        until(lambda: running.stats()["connectedClients"] == 1)
        # a client that connected later and does not answer pings has been closed
        assert running.connect_raw().close_code() == 4000
        assert process.stdin is not None
        process.stdin.write(lines_of(INFO))
        process.stdin.close()
        process.stdin = None
        status, said = ended(process)
        assert status == 0 and "1 published, 0 not" in said, said


def test_interrupted_while_it_waits_for_lines(tmp_path: Path, running: Service) -> None:
    """
    The first Ctrl-C ends it with 130, although its pipe is idle, and it says from which line to continue.
    """
    process = start(tmp_path, "publish", "--url", url(running), "--lines", "-")
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(lines_of(INFO, INFO) + '{"chan')
    process.stdin.flush()
    assert process.stdout.readline() and process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert ended(process) == (130, "2 published, 0 not; stopped at line 3\n")


def test_interrupted_while_it_reads_data(tmp_path: Path) -> None:
    """
    Ctrl-C ends it with 130 while it reads DATA.
    """
    process = start(tmp_path, "publish", "global", "system.info", "-")
    assert process.stdin is not None
    # more than a pipe holds, so that it is being read
    process.stdin.write("1" * 200_000)
    process.stdin.flush()
    process.send_signal(signal.SIGINT)
    assert ended(process) == (130, "")


def test_lost_connection(tmp_path: Path, running: Service) -> None:
    """
    A lost connection ends it with 1, and it says from which line to continue.
    """
    process = start(tmp_path, "publish", "--url", url(running), "--lines", "-")
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(lines_of(INFO) + "nonsense\n" + lines_of(INFO))
    assert process.stdout.readline() and process.stdout.readline()
    assert running.stop() == 0
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(lines_of(INFO))
    status, said = ended(process)
    assert status == 1 and "2 published, 1 not; stopped at line 4, which may have been published" in said, said
    assert "Traceback" not in said


def test_byte_order_mark(tmp_path: Path, running: Service) -> None:
    """
    A byte order mark at the beginning is skipped, in a file and in DATA.
    """
    client = running.connect()
    (tmp_path / "events").write_text("\ufeff" + lines_of({**INFO, "data": 1}), encoding="utf-8")
    assert publish(tmp_path, running, "--lines", "events").returncode == 0
    done = run(tmp_path, "publish", "--url", url(running), *INFO.values(), "-", stdin="\ufeff2")
    assert done.returncode == 0, done.stderr
    assert [hear(client)["data"], hear(client)["data"]] == [1, 2]


@pytest.mark.parametrize("data", ["NaN", "[Infinity]", "1e999", r'"\ud800"', r'{"\udc00": 1}', "\ud800"])
@pytest.mark.parametrize("via", ["ws", "db"])
def test_data_that_is_not_json(tmp_path: Path, data: str, via: str) -> None:
    """
    DATA that is not JSON is refused before it connects.
    """
    nowhere = {"DATABASE_URL": "postgresql://127.0.0.1:1/none"}
    arguments = ("publish", "--via", via, "--url", "ws://127.0.0.1:1/", *INFO.values())
    stdin = None if data == "\ud800" else data
    # an argument that is not UTF-8
    given = data if stdin is None else "-"
    done = run(tmp_path, *arguments, given.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape"),
               stdin=stdin, **nowhere)  # fmt: skip
    assert done.returncode == 2 and "DATA is not JSON" in done.stderr and "Traceback" not in done.stderr


def test_lines_that_are_not_json(tmp_path: Path, running: Service, database: PostgresServer) -> None:
    """
    Lines that are not JSON are reported by number, without control characters.
    """
    text = "".join(
        f'{{"channel": "global", "event": "system.info", {rest}}}\n'
        for rest in ('"data": NaN', '"data": 1e999', r'"data": "\ud800"', '"\\u009b31m\u202e": 1', '"data": \u202e')
    ) + lines_of(INFO)
    for way in (("--url", url(running)), ("--via", "db")):
        done = run(tmp_path, "publish", *way, "--lines", "-", stdin=text, DATABASE_URL=database.url)
        assert done.returncode == 1 and "1 published, 5 not" in done.stderr, done.stderr
        told = done.stderr.splitlines()
        assert [line.partition(":")[0] for line in told[:5]] == [f"line {number}" for number in range(1, 6)]
        assert harmless("".join(told)) == "".join(told)


def test_publish_by_the_database(tmp_path: Path, database: PostgresServer) -> None:
    """
    --via db publishes with NOTIFY; an event that is too long for it is an error.
    """
    with service("--database-url", database.url) as running:
        client = running.connect()
        variables = {"DATABASE_URL": database.url}
        assert run(tmp_path, "publish", "--via", "db", "global", "any.event", '"\u00fc"', **variables).returncode == 0
        done = run(tmp_path, "publish", "--via", "db", "--key", "k", "global", "any.event", **variables)
        assert (done.returncode, "--via ws" in done.stderr) == (1, True)
        assert hear(client)["data"] == "\u00fc"
        big = json.dumps("\u00fc" * 3990)
        done = run(tmp_path, "publish", "--via", "db", "global", "any.event", "-", stdin=big, **variables)
        assert done.returncode == 1 and "NOTIFY takes 7999" in done.stderr
