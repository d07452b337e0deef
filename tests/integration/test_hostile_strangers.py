"""
Hostile clients in production, where one must say who one is: strangers, forgers, other people's pages, liars.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from tests.integration.attacks import besieged, push, read_to_the_end, status
from tests.integration.clients import ask, ask_past_events, close_of, handshake, hear, say, silence
from tests.integration.databases import PostgresServer
from tests.integration.machine import until
from tests.integration.running import Service, production_service, service
from tests.integration.sharing import SharedServices
from tests.integration.tokens import SECRET, make_token

pytestmark = pytest.mark.integration


@pytest.fixture
def running(services: SharedServices, database: PostgresServer) -> Iterator[Service]:
    shared = services.get("--auth-timeout", "60", "--rate-limit", "off", in_production=database)
    with besieged(shared, production=True) as running:
        yield running


def forged(claims: object, secret: str = SECRET) -> str:
    """
    A token with any claims whatever.
    """
    payload = json.dumps(claims).encode()
    signature = hmac.new(secret.encode(), payload, hashlib.sha256).hexdigest()
    return f"{base64.urlsafe_b64encode(payload).decode().rstrip('=')}.{signature}"


def test_publishing_into_private_channels(running: Service, agent: str) -> None:
    """
    A stranger publishes into nobody's channel: it is refused, and the agent hears nothing.
    """
    client = running.connect(f"/?token={make_token(agent, 'work')}")
    assert hear(client)["success"] is True
    assert hear(client)["event"] == "agent.connected"
    stranger = running.connect(f"/?agent_id={agent}&session_id=work")
    for channel in (f"agents/{agent}", "sessions/work", "topics/t", "global", "metrics"):
        answer = ask(stranger, type="publish", channel=channel, event="task.created", data={}, id=channel)
        assert (answer["success"], answer["code"]) == (False, "NOT_AUTHORIZED")
        answer = ask(stranger, type="subscribe", channel=channel, id=channel)
        assert (answer["success"], answer["code"]) == (False, "NOT_AUTHORIZED")
    silence(client)


def test_strangers_hear_nothing(running: Service, agent: str) -> None:
    """
    Whatever a stranger does short of authenticating, it gets no event; nor does one who failed to.
    """
    stranger = running.connect(f"/?agent_id={agent}")
    failed = running.connect()
    assert ask(failed, type="auth", token=make_token(agent, secret="x" * 40))["code"] == "TOKEN_INVALID"
    assert ask(failed, type="auth", agent_id=agent)["code"] == "TOKEN_REQUIRED"
    speaker = running.connect(f"/?token={make_token(agent)}")
    hear(speaker)
    for channel in (f"agents/{agent}", "topics/t", "global"):
        ask_past_events(speaker, type="publish", channel=channel, event="task.created", data="secret", id=channel)
    for client in (stranger, failed):
        silence(client)


@pytest.mark.parametrize(
    "token",
    [
        make_token("ann", secret="another secret of some thirty characters"),
        make_token("ann", secret=""),
        make_token("ann").rpartition(".")[0],
        make_token("ann").rpartition(".")[0] + ".",
        make_token("ann").rpartition(".")[0] + "." + "0" * 64,
        make_token("ann")[:-1],
        make_token("ann") + "0",
        make_token("ann").upper(),
        make_token("eve").rpartition(".")[0] + "." + make_token("ann").rpartition(".")[2],
        "A" + make_token("ann"),
        make_token("ann", seconds=-1),
        make_token("ann", seconds=-1e9),
        # well signed, and nonsense all the same
        forged({"agent_id": "ann"}),
        forged({"agent_id": "", "issued_at": 0, "expires_at": 8e15}),
        forged({"agent_id": "a\n", "issued_at": 0, "expires_at": 8e15}),
        forged({"agent_id": ["ann"], "issued_at": 0, "expires_at": 8e15}),
        forged({"agent_id": "ann", "issued_at": 0, "expires_at": "never"}),
        forged({"agent_id": "ann", "issued_at": 0, "expires_at": 1e308}),
        forged({"agent_id": "ann", "issued_at": 0, "expires_at": None}),
        forged([]),
        # as other kinds of tokens are forged
        "eyJhbGciOiJub25lIn0.eyJhZ2VudF9pZCI6ImFubiJ9.",
        "../../../etc/passwd.0",
        "\u0130" * 100,
    ],
    # the tokens have the time in them, and each process that runs tests makes its own
    ids=lambda _: "token",
)
def test_forged_and_expired_tokens(running: Service, token: str) -> None:
    """
    A token that was forged, cut, mixed up or has expired authenticates nobody, neither in a message nor in the query.
    """
    client = running.connect()
    answer = ask(client, type="auth", token=token, id=1)
    assert answer["success"] is False
    assert answer["code"] in ("TOKEN_INVALID", "TOKEN_EXPIRED")
    assert ask(client, type="subscribe", channel="topics/t", id=2)["code"] == "NOT_AUTHORIZED"
    with pytest.raises(InvalidStatus) as refused:
        connect(
            f"ws://127.0.0.1:{running.port}/",
            additional_headers={"Authorization": f"Bearer {token.encode().decode('latin-1')}"},
        ).__enter__()
    assert refused.value.response.status_code == 401
    assert running.stats()["authenticatedClients"] == 0


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "file://", "http://127.0.0.1.evil.example", "https://127.0.0.1:1", "HTTP://X"],
)
def test_page_of_another_origin(running: Service, origin: str) -> None:
    """
    In production a page from elsewhere may not connect, not even with a token that its reader's browser has.
    """
    before = running.stats()["limits"]["allowedOrigin"]
    with pytest.raises(InvalidStatus) as refused:
        connect(f"ws://127.0.0.1:{running.port}/?token={make_token('ann')}", origin=Origin(origin)).__enter__()
    assert refused.value.response.status_code == 403
    assert json.loads(refused.value.response.body)["code"] == "ORIGIN_NOT_ALLOWED"
    assert running.stats()["limits"]["allowedOrigin"] == before + 1


def test_page_of_the_same_host(running: Service) -> None:
    """
    In production a page of the service's own host may connect, and so may a program, which sends no origin.
    """
    for origin in (f"http://127.0.0.1:{running.port}", f"https://127.0.0.1:{running.port}", None):
        assert running.connect(origin=origin).connected["type"] == "connected"


def test_origin_hidden_in_another_header(running: Service) -> None:
    """
    Two origins in one request, in whatever way, are not the one that suits.
    """
    for header in (
        "Origin: http://127.0.0.1:%d",
        "X: y\x85Origin: http://127.0.0.1:%d",
        "X: y\nOrigin: http://127.0.0.1:%d",
    ):
        plain = running.socket()
        request = handshake("/", "Origin: https://evil.example", header % running.port).replace(
            b"Host: 127.0.0.1", b"Host: 127.0.0.1:%d" % running.port
        )
        push(plain, request)
        assert status(read_to_the_end(plain)) in (400, 403)


def test_stranger_who_stays_silent(database: PostgresServer) -> None:
    """
    Who has not authenticated in time is closed with 4001, however lively it is otherwise.
    """
    with production_service(database.url, "--auth-timeout", "5") as running, besieged(running, production=True):
        clients = [running.connect() for _ in range(20)]
        for _ in range(50):
            assert ask(clients[0], type="ping")["type"] == "pong"
        for client in clients:
            assert close_of(client)[0] == 4001
        assert running.stats()["limits"]["authTimeout"] == 20


def test_x_forwarded_for_without_a_proxy() -> None:
    """
    Whose X-Forwarded-For nobody asked for is not believed: one machine stays one machine, whatever it says.
    """
    with service("--max-connections-per-ip", "3") as running, besieged(running):
        for number in range(2):
            running.connect(additional_headers={"X-Forwarded-For": f"192.0.2.{number}"})
        with pytest.raises(InvalidStatus) as refused:
            for number in range(2, 5):
                running.connect(additional_headers={"X-Forwarded-For": f"192.0.2.{number}"})
        assert refused.value.response.status_code == 503
        assert "192.0.2." not in running.log
        running.forget_clients()
        until(lambda: running.stats()["connectedClients"] == 0)


@pytest.mark.parametrize(
    "header",
    [
        "X-Forwarded-For: 192.0.2.%d, 198.51.100.7",
        "X: y\x85X-Forwarded-For: 192.0.2.%d",
        "X: y\x0bX-Forwarded-For: 192.0.2.%d",
    ],
)
def test_x_forwarded_for_through_a_proxy(header: str) -> None:
    """
    Behind a proxy that is trusted, what counts is what the proxy added, and not what a client makes it pass on.
    """
    options = ("--trusted-proxy", "127.0.0.0/8", "--max-connections-per-ip", "2")
    with service(*options) as running, besieged(running):
        for number in range(3):
            lie = header % number
            added = () if lie.endswith("198.51.100.7") else ("X-Forwarded-For: 198.51.100.7",)
            plain = running.socket()
            # a proxy may put its own header before those that it passes on
            push(plain, handshake("/", *added, lie, f"N: {number}").decode().encode("latin-1"))
            answer = plain.recv(1 << 16)
            assert status(answer) == (101 if number < 2 else 503)
        assert "192.0.2." not in running.log


@pytest.mark.parametrize(
    "entry", ["198.51.100.7:4000%d", "::ffff:198.51.100.7", '"198.51.100.7:%d"', "192.0.2.%d,198.51.100.7"]
)
def test_one_client_however_its_proxy_writes_it(entry: str) -> None:
    """
    A client counts as one, whatever port or form its proxy writes; the log has its address alone.
    """
    options = ("--trusted-proxy", "127.0.0.0/8", "--max-connections-per-ip", "2")
    with service(*options) as running, besieged(running):
        for number in range(3):
            plain = running.socket()
            push(plain, handshake("/", f"X-Forwarded-For: {entry % number if '%' in entry else entry}"))
            assert status(plain.recv(1 << 16)) == (101 if number < 2 else 503)
        until(lambda: running.log.count("joined from 198.51.100.7\n") == 2)


def test_no_address_in_x_forwarded_for() -> None:
    """
    What is not an address counts as the proxy: it is in the limit, and no byte of it is in the log.
    """
    options = ("--trusted-proxy", "127.0.0.0/8", "--max-connections-per-ip", "2")
    with service(*options) as running, besieged(running):
        for number, entry in enumerate((b"unix", b"\x1b[31mred", b"unknown")):
            plain = running.socket()
            push(plain, handshake("/", "X-Forwarded-For: ENTRY").replace(b"ENTRY", entry))
            assert status(plain.recv(1 << 16)) == (101 if number < 2 else 503)
        running.read_log_until("joined from 127.0.0.1\n")
        assert "\x1b" not in running.log
        running.forget_clients()
        until(lambda: running.stats()["connectedClients"] == 0)


def test_counts_without_a_token(running: Service) -> None:
    """
    A stranger reads the counts, and no name of a channel.
    """
    agent = running.connect(f"/?token={make_token('secret-agent', 'secret-session')}")
    hear(agent)
    for path in ("/health", "/stats"):
        for token in ("", make_token("eve", secret="x" * 40), make_token("eve", seconds=-1)):
            answer = running.get(path, Authorization=f"Bearer {token}")[2]
            assert b"secret" not in answer
        assert b"agents/secret-agent" in running.get(path, Authorization=f"Bearer {make_token('bob')}")[2]


def test_agent_that_pretends_to_be_another(running: Service, agent: str) -> None:
    """
    Who has a token is the agent that the token names, whatever else the message or the query says.
    """
    client = running.connect("/?agent_id=ann&session_id=anns")
    answer = ask(client, type="auth", token=make_token(agent), agent_id="ann", id=1)
    assert answer["subscriptions"] == [f"agents/{agent}", "global", "sessions/anns"]
    event = hear(client)
    assert (event["event"], event["data"]["agent_id"]) == ("agent.connected", agent)
    say(client, type="unsubscribe", channel="global")
