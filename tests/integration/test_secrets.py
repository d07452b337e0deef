"""
Secrets: where they come from, how they are replaced while the service runs, and that they are never seen.
"""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from dcm_ws.protocol.web_tokens import sign_web_token
from tests.integration.attacks import Attacker, push
from tests.integration.clients import ask, client_frame, close_of, handshake, hear, say, silence, unsubscribe_global
from tests.integration.databases import TOOLS, PostgresServer, postgres
from tests.integration.machine import until
from tests.integration.running import Service, service
from tests.integration.tokens import make_token

pytestmark = pytest.mark.integration

OLD = "the-old-secret-of-forty-two-characters-long"
NEW = "the-new-secret-of-forty-two-characters-long"
OTHER = "another secret, with blanks and commas in it"


def is_good(running: Service, secret: str) -> bool:
    """
    Is a token good that is signed with C{secret}?
    """
    client = running.connect()
    answer = ask(client, type="auth", token=make_token("ann", secret=secret), id=1)
    client.close()
    return answer["success"] is True


def replace(running: Service, file: Path, text: str, said: str) -> None:
    """
    Write the file again, and have the service read it.
    """
    file.write_text(text)
    before = running.log.count(said)
    running.process.send_signal(signal.SIGHUP)
    until(lambda: running.log.count(said) > before)


def production(database: PostgresServer, **variables: str) -> dict[str, str]:
    """
    The environment of a service in production.
    """
    return {"DCM_ENV": "production", "DATABASE_URL": database.url, **variables}


# where they come from


def test_several_secrets(database: PostgresServer) -> None:
    """
    WS_AUTH_SECRETS: tokens of each are good, of no other.
    """
    with service(env=production(database, WS_AUTH_SECRETS=f"{NEW}, {OLD}")) as running:
        assert [is_good(running, secret) for secret in (NEW, OLD, OTHER)] == [True, True, False]


def test_short_secret() -> None:
    """
    In development a secret may be short, and a JSON Web Token may be signed with it; the log says once that this is
    unsafe, in our words.
    """
    with service(env={"WS_AUTH_SECRET": "short"}) as running:
        token = sign_web_token("short", "ann", None, time.time_ns() // 1_000_000, 60_000)
        for _ in range(2):
            assert hear(running.connect(f"/?token={token}"))["success"]
        assert running.get("/stats", Authorization=f"Bearer {token}")[0] == 200
        said = "1 of 1 secrets (WS_AUTH_SECRET) have fewer than 32 characters"
        running.read_log_until("joined")
        assert running.log.count(said) == 1
        assert "Warning" not in running.log
    with service() as running:
        # the default one is for development, and everybody knows it
        assert "fewer than 32 characters" not in running.log


def test_file_with_a_secret_in_each_line(database: PostgresServer, tmp_path: Path) -> None:
    """
    WS_AUTH_SECRET_FILE: each line is a secret, as a whole; it goes before the variables that hold secrets.
    """
    file = tmp_path / "secrets"
    file.write_text(f"\n{NEW}\r\n  {OTHER}  \n\n")
    env = production(database, WS_AUTH_SECRET_FILE=str(file), WS_AUTH_SECRET=OLD, WS_AUTH_SECRETS=OLD)
    with service(env=env) as running:
        assert [is_good(running, secret) for secret in (NEW, OTHER, OLD)] == [True, True, False]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (None, "cannot read"),
        ("", "contains no secret"),
        (" \n\n", "contains no secret"),
        ("short\n", "32 characters or more"),
        (f"{NEW}\nshort", "32 characters or more"),
        (f"dcm-dev-secret-change-me\n{NEW}", "and not the default one"),
    ],
)
def test_bad_file(database: PostgresServer, tmp_path: Path, text: str | None, complaint: str) -> None:
    """
    In production the service does not start with a file that is missing, empty, or has a secret that is too weak.
    """
    file = tmp_path / "secrets"
    if text is not None:
        file.write_text(text)
    with pytest.raises(AssertionError) as refused, service(env=production(database, WS_AUTH_SECRET_FILE=str(file))):
        pass
    assert complaint in str(refused.value)
    assert NEW not in str(refused.value)


# replacing them


def test_rotation(database: PostgresServer, tmp_path: Path) -> None:
    """
    SIGHUP: the new secret is good, then the old one no longer is, and the connection that its token opened stays.
    """
    file = tmp_path / "secrets"
    file.write_text(OLD)
    with service(env=production(database, WS_AUTH_SECRET_FILE=str(file))) as running:
        client = running.connect(f"/?token={make_token('ann', secret=OLD)}")
        assert hear(client)["success"] is True
        assert hear(client)["event"] == "agent.connected"
        unsubscribe_global(client)
        replace(running, file, f"{NEW}\n{OLD}\n", "secrets taken over: 2 in use")
        assert (is_good(running, NEW), is_good(running, OLD)) == (True, True)
        replace(running, file, f"{NEW}\n", "secrets taken over: 1 in use")
        assert (is_good(running, NEW), is_good(running, OLD)) == (True, False)
        with pytest.raises(InvalidStatus):
            running.connect(f"/?token={make_token('ann', secret=OLD)}")
        silence(client)
        assert ask(client, type="subscribe", channel="topics/t", id=1)["success"] is True
        for path in ("/health", "/stats"):
            assert b"channelStats" in running.get(path, Authorization=f"Bearer {make_token('bob', secret=NEW)}")[2]
            assert b"channelStats" not in running.get(path, Authorization=f"Bearer {make_token('bob', secret=OLD)}")[2]


@pytest.mark.parametrize("text", ["", "short", f"{NEW}\nshort", None])
def test_bad_file_later(database: PostgresServer, tmp_path: Path, text: str | None) -> None:
    """
    SIGHUP with a missing or invalid file: the secrets stay unchanged, and the log says why.
    """
    file = tmp_path / "secrets"
    file.write_text(OLD)
    with service(env=production(database, WS_AUTH_SECRET_FILE=str(file))) as running:
        client = running.connect()
        if text is None:
            file.unlink()
        else:
            file.write_text(text)
        running.process.send_signal(signal.SIGHUP)
        running.read_log_until("the secrets stay as they are: ")
        assert (is_good(running, OLD), is_good(running, NEW)) == (True, False)
        silence(client)
        assert OLD not in running.log and NEW not in running.log
        # and repaired it is taken
        replace(running, file, NEW, "secrets taken over: 1 in use")
        assert (is_good(running, OLD), is_good(running, NEW)) == (False, True)


def test_many_signals(database: PostgresServer, tmp_path: Path) -> None:
    """
    SIGHUP may come at any time and as often as it likes.
    """
    file = tmp_path / "secrets"
    file.write_text(OLD)
    with service(env=production(database, WS_AUTH_SECRET_FILE=str(file))) as running:
        client = running.connect(f"/?token={make_token('ann', secret=OLD)}")
        hear(client)
        for _ in range(200):
            running.process.send_signal(signal.SIGHUP)
            assert running.process.poll() is None
        until(lambda: "secrets taken over" in running.log)
        assert is_good(running, OLD)
        say(client, type="ping")
        while hear(client).get("type") != "pong":
            pass
        assert running.stop() == 0
        assert close_of(client)[0] == 1012


def test_new_database_password(tmp_path: Path) -> None:
    """
    DB_PASSWORD_FILE is read again on SIGHUP: the next connection to the database takes the new password.
    """
    file = tmp_path / "password"
    file.write_text("p@ss w:rd/1\n")
    with postgres() as server:
        server.execute("create role bridge login password 'p@ss w:rd/1'")
        # from now on those who are not dcm need a password
        rules = "host all dcm 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        place = Path(server.execute("show hba_file")[0][0])
        place.write_text(rules)
        server.execute("select pg_reload_conf()")
        env = {
            "DB_HOST": "127.0.0.1",
            "DB_PORT": str(server.port),
            "DB_NAME": "postgres",
            "DB_USER": "bridge",
            "DB_PASSWORD_FILE": str(file),
            "LOG_LEVEL": "debug",
        }
        # not with service(), which turns the database off where it sees no URL
        running = Service(env=env)
        try:
            assert running.health()["database"]["state"] == "up"
            client = running.connect()
            server.execute("alter role bridge password 'the second one'")
            replace(running, file, "the second one", "secrets taken over")
            silence(client)
            assert server.kill_backends("dcm-ws listen%") == 1
            for state in ("down", "up"):
                event = hear(client, timeout=30)
                assert (event["data"]["component"], event["data"]["state"]) == ("database", state)
            server.notify(json.dumps({"channel": "global", "event": "system.info", "data": "heard"}))
            assert hear(client)["data"] == "heard"
        finally:
            running.stop(signal.SIGKILL)
            running.forget_clients()
        for password in ("p@ss w:rd/1", "p%40ss", "the second one", "the%20second"):
            assert password not in running.log
        assert "Traceback" not in running.log and "Unhandled" not in running.log


# never seen


def test_nothing_in_the_log(database: PostgresServer, tmp_path: Path) -> None:
    """
    At the most talkative level, with every way to show a token and to fail with it, no secret is in the log.
    """
    file = tmp_path / "secrets"
    file.write_text(f"{NEW}\n{OLD}\n")
    host, _, rest = database.url.partition("@")
    url = f"{host}:PASSWORD-of-the-database@{rest}"
    variables = {"WS_AUTH_SECRET_FILE": str(file), "LOG_LEVEL": "debug", "DATABASE_URL": url}
    good = [make_token(f"agent-{n}", secret=NEW) for n in range(4)]
    bad = [make_token(f"agent-{n}", secret=OTHER) for n in range(4)]
    late = [make_token(f"agent-{n}", secret=NEW, seconds=-5) for n in range(4)]
    with service(env=production(database, **variables)) as running:
        for tokens in (good, bad, late):
            try:
                running.connect(f"/?token={tokens[0]}&agent_id=x&session_id=PAYLOAD-session")
                running.connect("/", additional_headers={"Authorization": f"Bearer {tokens[1]}"})
            except InvalidStatus as refused:
                assert tokens is not good, refused
            client = running.connect()
            ask(client, type="auth", token=tokens[2], id=1)
            say(client, type="publish", channel="global", event="task.created", data="PAYLOAD-data")
            say(client, type="subscribe", channel="PAYLOAD-channel")
            say(client, type="PAYLOAD-type")
            client.send("PAYLOAD-nonsense")
            running.get("/health", Authorization=f"Bearer {tokens[3]}")
            running.get(f"/health?token={tokens[3]}")
            running.get(f"/nowhere/{tokens[3]}")
            push(running.socket(), f"GET /?token={tokens[3]} HTTP/9\r\nX: {tokens[3]}\r\n\r\n".encode())
            push(running.socket(), handshake(f"/ws?token={tokens[3]}", "Origin: https://evil.example"))
            push(running.socket(), handshake(f"/?token={tokens[3]}", f"Sec-WebSocket-Key: {tokens[3]}"))
            attacker = Attacker(running.socket())
            push(attacker.socket, client_frame(b"PAYLOAD-raw", 3))
            attacker.close_code()
        database.notify('{"channel":"PAYLOAD-channel","event":"PAYLOAD bad","data":1}', "PAYLOAD-nonsense")
        database.kill_backends()
        running.read_log_until("bad notification")
        replace(running, file, f"{NEW}\n", "secrets taken over")
        until(lambda: running.health()["database"]["state"] == "up")
        arguments = Path(f"/proc/{running.process.pid}/cmdline").read_bytes()
        assert running.stop() == 0
        log = running.log
    assert "debug" in log
    for token in (*good, *bad, *late):
        payload, _, signature = token.partition(".")
        assert payload not in log and signature not in log
    for secret in (NEW, OLD, OTHER, "PASSWORD", "PAYLOAD", "token="):
        assert secret not in log
        assert secret.encode() not in arguments


def test_nothing_in_a_failed_start(database: PostgresServer, tmp_path: Path) -> None:
    """
    A start that fails says why, and shows no secret: neither that of a URL that is none, nor that of a bad login.
    """
    for url in (
        f"postgresql://dcm:SECRET-1@127.0.0.1:{database.port}x/postgres",
        "postgresql://dcm:SECRET-1/2@127.0.0.1/postgres",
        "host=127.0.0.1 password=SECRET-1 port=nonsense",
        "SECRET-1",
    ):
        with pytest.raises(AssertionError) as refused:
            Service(env={"DATABASE_URL": url, "WS_AUTH_SECRET": "SECRET-2", "LOG_LEVEL": "debug"})
        assert "DATABASE_URL" in str(refused.value)
        assert "SECRET-1" not in str(refused.value).replace(f"{TOOLS}", "")
        assert "SECRET-2" not in str(refused.value)
