"""
dcm-ws check, with real databases.
"""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from dcm_ws.cli.check_database import compare_clocks
from dcm_ws.cli.check_settings import masked
from dcm_ws.version import VERSION
from tests.cli.commands import another_service
from tests.cli.running import check, run
from tests.integration.certificates import Certificate
from tests.integration.databases import PostgresServer, pgbouncer, postgres
from tests.integration.machine import free_port
from tests.integration.running import service

pytestmark = pytest.mark.integration


def red(found: dict[str, Any]) -> list[str]:
    return [name for name, finding in found.items() if not finding["good"]]


def test_good(tmp_path: Path, database: PostgresServer) -> None:
    """
    With a complete database, everything is green, and the exit code is 0.
    """
    variables = {"DATABASE_URL": database.url, "WS_PORT": str(free_port())}
    assert run(tmp_path, "init-db", "--apply", **variables).returncode == 0
    status, found = check(tmp_path, **variables)
    assert (status, red(found)) == (0, [])
    assert list(found) == ["settings", "secret", "port", "database", "listen", "tables", "triggers", "log", "clock"]
    assert found["listen"]["text"] == "a notification arrived"
    shown = run(tmp_path, "check", **variables)
    assert shown.returncode == 0 and "RED" not in shown.stdout


def test_no_tables(tmp_path: Path) -> None:
    """
    Missing tables are red, and the hint names the command that creates them.
    """
    with postgres() as empty:
        status, found = check(tmp_path, "--ws-port", "0", DATABASE_URL=empty.url)
    assert (status, red(found)) == (1, ["tables"])
    assert "init-db --apply" in found["tables"]["hint"]
    assert "not installed" in found["triggers"]["text"] and "init-db" in found["triggers"]["text"]


def test_a_table_without_its_trigger(tmp_path: Path) -> None:
    """
    A table that was created again without its trigger is red, and following the hint makes it green.
    """
    with postgres() as server:
        variables = {"DATABASE_URL": server.url}
        assert run(tmp_path, "init-db", "--apply", **variables).returncode == 0
        assert "installed, version" in check(tmp_path, "--ws-port", "0", **variables)[1]["triggers"]["text"]
        server.execute("drop table subtasks; create table subtasks (id int)")
        status, found = check(tmp_path, "--ws-port", "0", **variables)
        assert (status, red(found)) == (1, ["triggers"])
        assert "subtasks" in found["triggers"]["text"] and "init-db --apply" in found["triggers"]["hint"]
        assert run(tmp_path, "init-db", "--apply", **variables).returncode == 0
        assert check(tmp_path, "--ws-port", "0", **variables)[0] == 0


def test_stopped(tmp_path: Path) -> None:
    """
    A database that does not answer is red, and the exit code is 1.
    """
    port = free_port()
    url = f"postgresql://dcm:sesame@127.0.0.1:{port}/postgres"
    status, found = check(tmp_path, "--ws-port", "0", DATABASE_URL=url)
    assert (status, red(found)) == (1, ["database"])
    assert f"pg_isready -h 127.0.0.1 -p {port};" in found["database"]["hint"]
    assert "refused" in found["database"]["text"] and "listen" not in found
    shown = run(tmp_path, "check", "--ws-port", "0", DATABASE_URL=url)
    assert "sesame" not in shown.stdout + shown.stderr and "password=***" in shown.stdout


def test_silent(tmp_path: Path) -> None:
    """
    The command does not wait for a database that accepts connections and does not answer.
    """
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"postgresql://dcm@127.0.0.1:{mute.getsockname()[1]}/postgres"
        status, found = check(tmp_path, "--ws-port", "0", DATABASE_URL=url)
    assert status == 1 and "no answer within" in found["database"]["text"]


@pytest.mark.parametrize("mode,size", [("transaction", 5), ("transaction", 1), ("statement", 5)])
def test_pooled(tmp_path: Path, database: PostgresServer, mode: str, size: int) -> None:
    """
    A pooler that loses notifications is detected, and its mode is named, whatever its size.
    """
    with pgbouncer(database, mode, size) as url:
        status, found = check(tmp_path, "--ws-port", "0", DATABASE_URL=url)
    assert status == 1 and "listen" in red(found)
    assert f"a pooler in {mode} mode" in found["listen"]["text"]


def test_pooled_in_session_mode(tmp_path: Path, database: PostgresServer) -> None:
    """
    A pool in session mode is green.
    """
    with pgbouncer(database, "session", 20) as url:
        _, found = check(tmp_path, "--ws-port", "0", DATABASE_URL=url)
    assert found["listen"]["good"], found


def test_port_taken(tmp_path: Path) -> None:
    """
    A port on which another program listens is red, and the hint names the command that finds that program.
    """
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, found = check(tmp_path, "--no-database", "--ws-port", str(port))
    assert (status, red(found)) == (1, ["port"])
    assert f"ss -ltnp 'sport = :{port}'" in found["port"]["hint"]


def test_a_service_that_runs(tmp_path: Path) -> None:
    """
    A port on which a dcm-ws listens is green, also if the service would listen on all addresses.
    """
    with service() as running:
        for host in ("127.0.0.1", "0.0.0.0"):
            status, found = check(tmp_path, "--no-database", "--ws-port", str(running.port), "--host", host)
            assert (status, red(found)) == (0, [])
            assert f"dcm-ws {VERSION} is running here" in found["port"]["text"]


def test_a_service_that_runs_with_tls(tmp_path: Path) -> None:
    """
    A dcm-ws with TLS is recognised whatever its certificate.
    """
    listen = ("--listen", Certificate(tmp_path, "elsewhere.invalid").endpoint(free_port()))
    with service(*listen):
        status, found = check(tmp_path, "--no-database", *listen)
    assert status == 0 and "is running here" in found["port"]["text"]


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\n\r\n{}", b"HTTP/1.1 200 OK\r\n\r\n[1]", b"\xff\x00" * 99])
def test_another_program(tmp_path: Path, answer: bytes) -> None:
    """
    A port on which a program answers that is not dcm-ws is red.
    """
    with another_service(answer) as where:
        status, found = check(tmp_path, "--no-database", "--ws-port", str(urlsplit(where).port))
    assert (status, red(found)) == (1, ["port"]) and "not dcm-ws" in found["port"]["text"]


def test_unix_sockets(tmp_path: Path) -> None:
    """
    A Unix socket needs a writable folder, and a path that is free.
    """

    def look(path: str) -> dict[str, Any]:
        found: dict[str, Any] = check(tmp_path, "--no-database", "--listen", f"unix:{path}")[1]["port"]
        return found

    assert look("free.sock")["good"] and look(str(tmp_path / "free.sock"))["good"]
    nowhere = look(str(tmp_path / "none" / "a.sock"))
    assert not nowhere["good"] and "is not a folder" in nowhere["text"]
    assert f"mkdir -p {tmp_path}/none," in nowhere["hint"]
    assert not look("x" * 200)["good"]
    with service("--listen", f"unix:{tmp_path}/s.sock") as running:
        used = look("s.sock")
        assert used["good"] and f"dcm-ws {VERSION} is running here" in used["text"]
        running.stop(signal.SIGKILL)
    left = look("s.sock")
    assert left["good"] and "left behind" in left["text"]
    # the service does replace it
    with service("--listen", f"unix:{tmp_path}/s.sock"):
        pass
    (tmp_path / "file").write_text("")
    assert "there already is a file" in look("file")["text"] and not look("file")["good"]


def test_sockets_of_systemd(tmp_path: Path) -> None:
    """
    Sockets of systemd are green: they exist only when systemd starts the service.
    """
    status, found = check(tmp_path, "--no-database", "--listen", "systemd:domain=INET:index=0")
    assert (status, red(found)) == (0, [])
    assert "systemd" in found["port"]["text"]


@pytest.mark.parametrize(
    "arguments,variables,origin",
    [
        (("--production",), {}, "option"),
        (("--dcm-env", "production"), {}, "option"),
        ((), {"DCM_ENV": "production"}, "environment"),
        ((), {"NODE_ENV": "production"}, "environment"),
        (("--no-database",), {}, "default"),
    ],
)
def test_one_mode_has_one_value(
    tmp_path: Path, arguments: tuple[str, ...], variables: dict[str, str], origin: str
) -> None:
    """
    production and dcm-env never contradict each other, however the mode was given.
    """
    done = run(tmp_path, "check", "--json", *arguments, **variables)
    rows = {row["name"]: (row["value"], row["from"]) for row in json.loads(done.stdout)["settings"]}
    on = origin != "default"
    assert rows["production"] == ("on" if on else "off", origin)
    assert rows["dcm-env"] == ("production" if on else "development", origin)


@pytest.mark.parametrize("url", ["postgresql://u:s3cr@et@127.0.0.1/db", "postgresql://u:s3cr/et@127.0.0.1/db"])
def test_a_password_that_is_not_encoded(tmp_path: Path, url: str) -> None:
    """
    No command shows any part of a password that is not percent-encoded.
    """
    for command in (("check",), ("init-db", "--apply"), ("publish", "--via", "db", "global", "a.b")):
        done = run(tmp_path, *command, DATABASE_URL=url)
        said = done.stdout + done.stderr
        assert done.returncode == 1 and "DATABASE_URL" in said
        assert "s3cr" not in said and "et@" not in said, said


def test_invalid_settings(tmp_path: Path) -> None:
    """
    Settings that serve refuses are red, with the message of serve; an unknown option is invalid usage.
    """
    status, found = check(tmp_path, "--production")
    assert (status, red(found)) == (1, ["settings"])
    assert "WS_AUTH_SECRET of 32" in found["settings"]["text"]
    assert run(tmp_path, "check", "--no-such-thing").returncode == 2
    status, found = check(tmp_path, DCM_ENV="prod")
    assert (status, red(found)) == (1, ["settings"]) and "not 'prod'" in found["settings"]["text"]


def test_weak_secret(tmp_path: Path) -> None:
    """
    A short secret is red, in development too.
    """
    _, found = check(tmp_path, "--no-database", "--ws-port", "0", WS_AUTH_SECRET="short")
    assert red(found) == ["secret"]


def test_where_settings_come_from(tmp_path: Path) -> None:
    """
    Each setting is shown with its origin, and secrets are masked wherever they come from.
    """
    (tmp_path / "dcm-ws.toml").write_text('ws-auth-secret = "sesame-open"\nmax-depth = 7\n')
    variables = {"LOG_LEVEL": "warn", "DB_PASSWORD": "hidden", "DB_PORT": "1", "DB_HOST": "127.0.0.1"}
    done = run(tmp_path, "check", "--json", "--ws-port", "0", **variables)
    rows = {row["name"]: (row["value"], row["from"]) for row in json.loads(done.stdout)["settings"]}
    assert rows["ws-port"] == ("0", "option")
    assert rows["log-level"] == ("warn", "environment")
    assert rows["max-depth"] == ("7", str(tmp_path / "dcm-ws.toml"))
    assert rows["max-pending"] == ("10000", "default")
    assert rows["ws-auth-secret"] == ("***", str(tmp_path / "dcm-ws.toml"))
    assert rows["db-password"] == ("***", "environment")
    assert "db-name" not in rows
    assert "sesame" not in done.stdout and "hidden" not in done.stdout


def test_what_is_ignored(tmp_path: Path) -> None:
    """
    Settings that are ignored are named, and are not an error.
    """
    status, found = check(tmp_path, "--no-database", "--ws-port", "0", DB_HOST="h", DB_PASSWORD="hidden")
    assert (status, red(found)) == (0, [])
    assert found["ignored"]["text"] == "DB_HOST=h and DB_PASSWORD are ignored: --no-database is used"


def test_masking() -> None:
    """
    An invalid URL is not shown at all.
    """
    for url in ("postgresql://u:p%zz@h/d", "postgresql://u:p@ss@h/d", "postgresql://u:12/3@h/d"):
        assert masked("database-url", url) == "***"
    assert "p4ss" not in masked("database-url", "host=h password=p4ss sslpassword=p4ss")


def test_clocks() -> None:
    """
    Clocks may differ by five seconds.
    """
    assert compare_clocks(4.9).good and compare_clocks(-4.9).good
    assert not compare_clocks(5.1).good and not compare_clocks(-5.1).good
