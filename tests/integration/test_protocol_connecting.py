"""
Protocol, section 1: who may connect, how, and what is said first.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from http.client import HTTPResponse
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from dcm_ws.version import SERVER
from tests.integration.clients import ask, client_frame, handshake, hear, say, silence
from tests.integration.running import Service, service
from tests.integration.sharing import SharedServices
from tests.integration.tokens import DEVELOPMENT_SECRET, make_token

pytestmark = pytest.mark.integration

CHARACTERS = "AZaz09_.:@-"


@pytest.fixture
def running(services: SharedServices) -> Iterator[Service]:
    with services.lend() as running:
        yield running


def refusal(running: Service, path: str, **headers: str) -> tuple[int, dict[str, Any]]:
    """
    The status and the JSON body with which an upgrade is refused.
    """
    with pytest.raises(InvalidStatus) as refused:
        connect(f"ws://127.0.0.1:{running.port}{path}", additional_headers=headers).__enter__()
    response = refused.value.response
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Content-Length"] == str(len(response.body))
    return response.status_code, json.loads(response.body)


def answer_to(running: Service, *parts: bytes) -> HTTPResponse:
    """
    What HTTP answers to bytes sent as they are.
    """
    plain = running.socket()
    for part in parts:
        plain.sendall(part)
    response = HTTPResponse(plain)
    response.begin()
    return response


@pytest.mark.parametrize("path", ["/", "/ws", "/?agent_id=a", "/ws?session_id=s", "/?agent_id=a&session_id=s&other=1"])
def test_paths(running: Service, path: str) -> None:
    """
    A WebSocket opens on / and on /ws, with query parameters or without them.
    """
    assert running.connect(path).connected["type"] == "connected"


def test_absolute_request_target(running: Service) -> None:
    """
    A request that names the whole URL, as through a proxy, is served too.
    """
    assert running.connect_raw("http://127.0.0.1/ws?agent_id=a").connected["type"] == "connected"


def test_connected_frame(running: Service) -> None:
    """
    The first frame says which client one is, when, and to which server one speaks.
    """
    before = time.time_ns() // 1_000_000
    frame = running.connect().connected
    after = time.time_ns() // 1_000_000
    found = re.fullmatch(r"ws_([0-9a-z]+)_([0-9a-z]{6,})", frame["client_id"])
    assert found
    assert before <= int(found.group(1), 36) <= after
    assert before <= frame["timestamp"] <= after
    assert frame == {
        "type": "connected",
        "client_id": frame["client_id"],
        "timestamp": frame["timestamp"],
        "authenticated": False,
        "server": SERVER,
        "epoch": frame["epoch"],
        "pos": 0,
    }
    assert SERVER == "dcm-ws/2.0.0"


def test_client_ids_differ(running: Service) -> None:
    """
    No two clients get the same client_id.
    """
    ids = {running.connect().connected["client_id"] for _ in range(20)}
    assert len(ids) == 20


def test_global_comes_by_itself(running: Service) -> None:
    """
    A client that has only connected hears what is published on global.
    """
    listener, publisher = running.connect(), running.connect()
    say(publisher, type="publish", channel="global", event="system.info", data=1)
    assert hear(listener)["channel"] == "global"


@pytest.mark.parametrize("path", ["/other", "/ws/", "/ws/more", "//", "/WS", "/health/ws"])
def test_any_other_path_is_not_found(running: Service, path: str) -> None:
    """
    An upgrade on any other path is answered 404.
    """
    status, body = refusal(running, path)
    assert status == 404
    assert body["code"] == "NOT_FOUND"


@pytest.mark.parametrize("path", ["/", "/ws", "/?agent_id=a"])
@pytest.mark.parametrize("accept", ["*/*", "application/json", "application/json, text/html;q=0.5"])
def test_upgrade_required(running: Service, path: str, accept: str) -> None:
    """
    A request with http:// for what needs ws:// receives an error in JSON that says so.
    """
    status, headers, body = running.get(path, Accept=accept)
    assert status == 426
    assert headers["Upgrade"] == "websocket"
    assert headers["Content-Type"] == "application/json"
    assert json.loads(body).keys() == {"error", "code", "timestamp"}


@pytest.mark.parametrize("path", ["/", "/ws"])
def test_browser_is_sent_to_the_live_page(running: Service, path: str) -> None:
    """
    A person who opens the address with a browser gets to /live.
    """
    browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
    status, headers, _ = running.get(path, Accept=browser)
    assert status == 302
    # relative: a proxy may have the service below a path of its own
    assert headers["Location"] == "live"


@pytest.mark.parametrize("name", ["agent_id", "session_id"])
@pytest.mark.parametrize("value", ["%20", "a%20", "%FF", "a%00", "a%0A", "%E2%80%AE", "x" * 129])
def test_malformed_id_in_the_query(running: Service, name: str, value: str) -> None:
    """
    An agent_id or session_id that does not fit the grammar refuses the upgrade with 400, and the error names it.
    """
    status, body = refusal(running, f"/?{name}={value}")
    assert status == 400
    assert body.keys() == {"error", "code", "timestamp"}
    assert name in body["error"]
    assert body["code"] == "INVALID_MESSAGE"
    assert abs(body["timestamp"] - time.time() * 1000) < 10_000


@pytest.mark.parametrize("value", ["a", CHARACTERS, "x" * 128])
def test_well_formed_ids_in_the_query(running: Service, value: str) -> None:
    """
    An agent_id and a session_id of all the allowed characters, up to 128 of them, are taken.
    """
    client = running.connect(f"/?agent_id={value}&session_id={value}")
    assert ask(client, type="subscribe", channel=f"agents/{value}", id=1)["success"] is True


@pytest.mark.parametrize(
    "path", ["/?agent_id=", "/?session_id=", "/?token=", "/ws?agent_id=&session_id=&token=&observer="]
)
@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer "])
@pytest.mark.parametrize("origin", [None, "http://127.0.0.1"])
def test_empty_parameters_are_absent(
    running: Service, path: str, authorization: str | None, origin: str | None
) -> None:
    """
    A parameter without a value, or a header without a token, is as if it were not there.
    """
    headers = {} if authorization is None else {"Authorization": authorization}
    # a page's handshake is read by other code than a program's
    client = running.connect(path, additional_headers=headers, origin=origin)
    answer = ask(client, type="auth", agent_id="ann", id=1)
    assert answer["subscriptions"] == ["agents/ann", "global"]


@pytest.mark.parametrize("value", ["x" * 4097])
def test_malformed_token_in_the_query(running: Service, value: str) -> None:
    """
    A token that is none by its length refuses the upgrade with 400.
    """
    status, body = refusal(running, f"/?token={value}")
    assert status == 400
    assert body.keys() == {"error", "code", "timestamp"}
    assert "token" in body["error"]


@pytest.mark.parametrize("how", ["query", "header"])
@pytest.mark.parametrize(
    ("token", "code"),
    [
        ("no-token", "TOKEN_INVALID"),
        (make_token("a", secret="another secret"), "TOKEN_INVALID"),
        (make_token(" a", secret=DEVELOPMENT_SECRET), "TOKEN_INVALID"),
        (make_token("a", secret=DEVELOPMENT_SECRET, seconds=-1), "TOKEN_EXPIRED"),
    ],
    # the tokens have the time in them, and each process that runs tests makes its own
    ids=["broken", "forged", "of nobody", "expired"],
)
def test_bad_token_refuses_the_upgrade(running: Service, token: str, code: str, how: str) -> None:
    """
    A token that is forged, broken or expired refuses the upgrade with 401, and the code says which.
    """
    if how == "query":
        status, body = refusal(running, f"/?token={token}")
    else:
        status, body = refusal(running, "/", Authorization=f"Bearer {token}")
    assert status == 401
    assert body.keys() == {"error", "code", "timestamp"}
    assert body["code"] == code


@pytest.mark.parametrize("how", ["query", "header", "header, other case"])
def test_good_token_authenticates_at_once(running: Service, agent: str, how: str) -> None:
    """
    A client that brings a token, in the query or as Bearer, gets the ack of an auth after its connected frame.
    """
    token = make_token(agent, "sess-1", secret=DEVELOPMENT_SECRET)
    if how == "query":
        client = running.connect(f"/?token={token}")
    else:
        scheme = "bearer" if "other" in how else "Bearer"
        client = running.connect(additional_headers={"Authorization": f"{scheme} {token}"})
    assert client.connected["authenticated"] is False
    ack = hear(client)
    assert (ack["type"], ack["id"], ack["success"]) == ("ack", None, True)
    assert {"global", f"agents/{agent}", "sessions/sess-1"} <= set(ack["subscriptions"])
    assert hear(client)["event"] == "agent.connected"


def test_other_authorization_is_no_token(running: Service) -> None:
    """
    An Authorization header of another scheme, as a proxy may leave it there, does not matter.
    """
    client = running.connect(additional_headers={"Authorization": "Basic YTpi"})
    silence(client)


def test_first_subprotocol_offered_is_spoken(running: Service) -> None:
    """
    A client that insists on a subprotocol gets the first one that it offers; one that offers none gets none.
    """
    assert running.connect(subprotocols=["dcm.v1", "json"]).subprotocol == "dcm.v1"
    assert running.connect().subprotocol is None


def test_frames_sent_with_the_handshake_are_not_lost(running: Service) -> None:
    """
    What a client sends along with its handshake, in one segment, is answered like everything else.
    """
    subscribe = json.dumps({"type": "subscribe", "channel": "topics/x", "id": "early"}).encode()
    client = running.connect_raw(more=client_frame(subscribe) + client_frame(b'{"type":"ping"}'))
    assert client.hear()["id"] == "early"
    assert client.hear()["type"] == "pong"


def test_handshake_byte_by_byte(running: Service) -> None:
    """
    A handshake may come in pieces of any size.
    """
    plain = running.socket()
    request = handshake("/ws")
    for start in range(0, len(request), 7):
        plain.sendall(request[start : start + 7])
    assert plain.recv(100).startswith(b"HTTP/1.1 101 ")


def test_old_websocket_version(running: Service) -> None:
    """
    A client of a draft version of WebSocket receives the version that the server supports.
    """
    answer = answer_to(running, handshake(version=8))
    assert answer.status == 426
    assert answer.headers["Sec-WebSocket-Version"] == "13"
    assert json.loads(answer.read()).keys() == {"error", "code", "timestamp"}


@pytest.mark.parametrize(
    "request_",
    [
        handshake().replace(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b""),
        handshake().replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"short"),
        handshake().replace(b"Connection: Upgrade\r\n", b""),
        handshake().replace(b"Host: 127.0.0.1\r\n", b""),
        handshake().replace(b"Sec-WebSocket-Version: 13\r\n", b""),
    ],
    ids=["no key", "bad key", "no Connection", "no Host", "no version"],
)
def test_broken_handshake(running: Service, request_: bytes) -> None:
    """
    A handshake that is none is refused with a JSON error, and the connection closed.
    """
    answer = answer_to(running, request_)
    assert answer.status == 400
    assert json.loads(answer.read()).keys() == {"error", "code", "timestamp"}
    assert answer.will_close


def test_head_of_exactly_the_limit(running: Service) -> None:
    """
    A request head of up to 16 KiB is taken.
    """
    padding = (16 << 10) - len(handshake("/", "X-Padding: "))
    answer = answer_to(running, handshake("/", f"X-Padding: {'x' * (padding)}"))
    assert answer.status == 101


def test_head_over_the_limit(running: Service) -> None:
    """
    A request head of more than 16 KiB is refused with 431, also where its end never comes.
    """
    whole = answer_to(running, handshake("/", f"X-Padding: {'x' * (16 << 10)}"))
    assert whole.status == 431
    assert json.loads(whole.read())["code"] == "REQUEST_HEADER_FIELDS_TOO_LARGE"
    endless = answer_to(running, b"GET / HTTP/1.1\r\nX-Padding: ", b"x" * (16 << 10))
    assert endless.status == 431


def test_slow_head(running: Service) -> None:
    """
    A connection that has not sent a complete request head within 5 s receives 408 and is closed, however much it sends.
    """
    plain = running.socket()
    silent = running.socket()
    started = time.monotonic()
    plain.settimeout(0.5)
    head = b""
    for letter in b"GET / HTTP/1.1\r\nX-Slow: " + b"x" * 100:
        plain.sendall(bytes((letter,)))
        try:
            head = plain.recv(1 << 16)
            break
        except TimeoutError:
            pass
    assert time.monotonic() - started > 4.9
    assert head.startswith(b"HTTP/1.1 408 ")
    assert json.loads(head.partition(b"\r\n\r\n")[2])["code"] == "REQUEST_TIMEOUT"
    answer = HTTPResponse(silent)
    answer.begin()
    assert answer.status == 408
    assert running.stats()["limits"]["handshakeTimeout"] == 2


@pytest.mark.parametrize(
    "channel",
    [
        "global",
        "metrics",
        f"agents/{CHARACTERS}",
        f"sessions/{CHARACTERS}",
        "sessions/" + "x" * 128,
        f"topics/{CHARACTERS}",
        "topics/a/b/c",
        "topics/" + "x" * 128,
    ],
)
def test_channels(running: Service, channel: str) -> None:
    """
    A channel of every kind can be subscribed to.
    """
    client = running.connect(f"/?agent_id={CHARACTERS}")
    assert ask(client, type="subscribe", channel=channel, id="s")["success"] is True


@pytest.mark.parametrize(
    "channel",
    [
        "",
        "Global",
        "global/",
        "metrics/x",
        "agents",
        "agents/",
        "agents/ a",
        "agents/" + "x" * 129,
        "sessions/",
        "sessions/a ",
        "sessions/a\n",
        "topics/",
        "topics/a\u2028b",
        "topics/\u202e",
        "topics/\0",
        "topics/" + "x" * 129,
        "bad/channel/path",
    ],
)
@pytest.mark.parametrize("kind", ["subscribe", "unsubscribe", "publish"])
def test_other_channels(running: Service, channel: str, kind: str) -> None:
    """
    Any other channel is INVALID_CHANNEL, and the text repeats it.
    """
    client = running.connect("/?agent_id=a")
    answer = ask(client, type=kind, channel=channel, event="task.created", id="s")
    assert answer["success"] is False
    assert answer["code"] == "INVALID_CHANNEL"
    assert answer["error"] == f"Invalid channel format: {channel}"


def test_too_many_connections() -> None:
    """
    Over the connection limit a client is closed with 1013; when another leaves there is room again.
    """
    with service("--max-connections", "2") as running:
        first, _second = running.connect(), running.connect()
        with pytest.raises(ConnectionClosed) as closed:
            running.connect()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1013
        assert running.stats()["closes"] == {"1013": 1}
        silence(first)
        first.close()
        assert running.connect().connected["type"] == "connected"
