"""
Who may open a WebSocket: origins, proxies, and what the query and the headers say.
"""

from __future__ import annotations

from http import HTTPStatus

import pytest

from dcm_ws.core.counts import LimitCounts
from dcm_ws.core.session import Origin
from dcm_ws.http.addresses import TrustedProxies
from dcm_ws.http.admission import Admission, Admitted, RefusedError
from dcm_ws.http.origins import SAME_HOST, AllowedOrigins, Target
from dcm_ws.protocol.commands import TOKEN_MAX
from dcm_ws.protocol.errors import ErrorCode, ProtocolError
from dcm_ws.protocol.tokens import Claims

CLAIMS = Claims("ann", None, 0)


def verify(token: str) -> Claims:
    """
    Accepts one token.
    """
    if token == "good":
        return CLAIMS
    if token == "late":
        raise ProtocolError(ErrorCode.TOKEN_EXPIRED, "Token expired; get a new one")
    raise ProtocolError(ErrorCode.TOKEN_INVALID, "Invalid token")


def make_admission(*origins: str, proxies: tuple[str, ...] = ()) -> Admission:
    return Admission(
        verify, origins=AllowedOrigins(origins or ("*",)), proxies=TrustedProxies(proxies), limits=LimitCounts()
    )


def refusal(admission: Admission, target: str, **headers: str) -> tuple[HTTPStatus, str]:
    with pytest.raises(RefusedError) as refused:
        admission.admit(target, {name.replace("_", "-"): value for name, value in headers.items()}, "192.0.2.1")
    assert refused.value.reason
    assert "good" not in refused.value.reason
    return refused.value.status, refused.value.code


# origins


def test_refused_origins_are_counted() -> None:
    """
    A page that may not connect gets 403, and is counted.
    """
    limits = LimitCounts()
    admission = Admission(verify, origins=AllowedOrigins((SAME_HOST,)), proxies=TrustedProxies(), limits=limits)
    assert refusal(admission, "/?token=good", origin="https://evil.example", host="a.com") == (
        403,
        "ORIGIN_NOT_ALLOWED",
    )
    # without a Host nothing is the same
    assert refusal(admission, "/", origin="https://evil.example") == (403, "ORIGIN_NOT_ALLOWED")
    assert admission.admit("/", {"origin": "https://a.com", "host": "a.com"}, "192.0.2.1")
    assert limits.allowed_origin.value == 2


def test_refused_origins_are_reported() -> None:
    """
    Each refused origin is reported with the target that it was compared with.
    """
    reported: list[tuple[str, Target]] = []
    admission = Admission(
        verify,
        origins=AllowedOrigins((SAME_HOST,)),
        proxies=TrustedProxies(("10.0.0.1",)),
        limits=LimitCounts(),
        refused=lambda origin, target: reported.append((origin, target)),
    )
    assert admission.admit("/", {"origin": "https://a.com", "host": "a.com"}, "192.0.2.1", 3849)
    headers = {"origin": "https://b.com", "host": "a.com", "x-forwarded-host": "c.com", "x-forwarded-proto": "https"}
    for peer in ("192.0.2.1", "10.0.0.1"):
        with pytest.raises(RefusedError):
            admission.admit("/", headers, peer, 3849)
    assert reported == [
        ("https://b.com", Target("a.com", local_port=3849)),
        ("https://b.com", Target("c.com", "https")),
    ]


@pytest.mark.parametrize(
    ("peer", "headers", "allowed"),
    [
        # nginx passes its own upstream's name as Host, unless configured otherwise
        ("10.0.0.1", {"host": "127.0.0.1:3849"}, False),
        ("10.0.0.1", {"host": "127.0.0.1:3849", "x-forwarded-host": "a.com:8443"}, True),
        ("10.0.0.1", {"host": "127.0.0.1:3849", "x-forwarded-host": "evil.example, a.com:8443"}, True),
        ("10.0.0.1", {"host": "127.0.0.1:3849", "x-forwarded-host": "a.com:8443, evil.example"}, False),
        ("10.0.0.1", {"host": "a.com:8443", "x-forwarded-host": "evil.example"}, False),
        ("10.0.0.1", {"host": "a.com:8443", "x-forwarded-host": " "}, True),
        ("192.0.2.1", {"host": "127.0.0.1:3849", "x-forwarded-host": "a.com:8443"}, False),
        ("192.0.2.1", {"host": "a.com:8443", "x-forwarded-host": "evil.example"}, True),
        # a port that is the scheme's default says no more than none
        ("10.0.0.1", {"host": "a.com:443", "x-forwarded-proto": "https"}, True),
        ("10.0.0.1", {"host": "a.com:443", "x-forwarded-proto": "http, wss"}, True),
        ("10.0.0.1", {"host": "a.com:80", "x-forwarded-proto": "https"}, False),
        ("10.0.0.1", {"host": "a.com:443"}, False),
        ("192.0.2.1", {"host": "a.com:443", "x-forwarded-proto": "https"}, False),
    ],
)
def test_hosts_that_proxies_report(peer: str, headers: dict[str, str], allowed: bool) -> None:
    """
    Only a trusted proxy can report the host and the scheme that the browser used.
    """
    admission = make_admission(SAME_HOST, proxies=("10.0.0.1",))
    headers = headers | {"origin": "https://a.com:8443"}
    if allowed:
        assert admission.admit("/", headers, peer)
    else:
        with pytest.raises(RefusedError):
            admission.admit("/", headers, peer)


# proxies


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("10.0.0.1", "192.0.2.1:40001", "192.0.2.1"),
        ("192.0.2.9", "192.0.2.1", "192.0.2.9"),
        ("10.0.0.1", "", "10.0.0.1"),
    ],
)
def test_address_of_the_client(peer: str, forwarded: str, address: str) -> None:
    """
    The address of an admitted client is the one that a trusted proxy reports, in normal form.
    """
    admission = make_admission(proxies=("10.0.0.1",))
    assert admission.admit("/", {"x-forwarded-for": forwarded}, peer) == Admitted(Origin(), address)


# query and headers


@pytest.mark.parametrize(
    ("target", "headers", "origin"),
    [
        ("/", {}, Origin()),
        ("/ws", {}, Origin()),
        ("/?", {}, Origin()),
        ("/?agent_id=ann&session_id=s:1", {}, Origin("ann", "s:1")),
        ("/?agent_id=ann&agent_id=eve", {}, Origin("ann")),
        ("/?agent_id=ann%40home", {}, Origin("ann@home")),
        ("http://example.com/ws?agent_id=ann", {}, Origin("ann")),
        ("/?other=%ff&x", {}, Origin()),
        ("/?token=good", {}, Origin(claims=CLAIMS)),
        ("/?token=good&token=bad", {}, Origin(claims=CLAIMS)),
        ("/", {"authorization": "Bearer good"}, Origin(claims=CLAIMS)),
        ("/", {"authorization": "bearer  good "}, Origin(claims=CLAIMS)),
        ("/?token=good", {"authorization": "Bearer bad"}, Origin(claims=CLAIMS)),
        ("/", {"authorization": "Basic Z29vZA=="}, Origin()),
        ("/", {"authorization": ""}, Origin()),
        ("/?observer=1&agent_id=ann", {}, Origin("ann", observer=True)),
        ("/?observer=true&token=good", {}, Origin(claims=CLAIMS, observer=True)),
        ("/?observer=&observer=1", {}, Origin(observer=True)),
        ("/?agent_id=&session_id=&token=&observer=", {"authorization": "Bearer"}, Origin()),
        ("/?agent_id&session_id=s", {"authorization": "Bearer "}, Origin(None, "s")),
        ("/?agent_id=&agent_id=ann", {}, Origin("ann")),
        ("/?token=", {"authorization": "Bearer good"}, Origin(claims=CLAIMS)),
        ("/?agent_id=general+purpose&session_id=team/lead", {}, Origin("general purpose", "team/lead")),
        ("/?agent_id=general%20purpose", {}, Origin("general purpose")),
        ("/?agent_id=%C3%A9quipe", {}, Origin("équipe")),
        ("/?agent_id=" + "équipe".encode().decode("iso-8859-1"), {}, Origin("équipe")),
    ],
)
def test_admitted(target: str, headers: dict[str, str], origin: Origin) -> None:
    """
    The query holds what the client claims; the token, in the query or in a header, proves who it is.
    """
    assert make_admission().admit(target, headers, "192.0.2.1") == Admitted(origin, "192.0.2.1")


@pytest.mark.parametrize("name", ["agent_id", "session_id"])
@pytest.mark.parametrize("value", ["+", "+a", "a%20", "x" * 129, "%ff", "\xff", "a%00", "%E2%80%AE", "%ED%A0%80"])
def test_malformed_ids(name: str, value: str) -> None:
    """
    A handshake with an invalid id is refused, even with a valid token.
    """
    assert refusal(make_admission(), f"/?{name}={value}") == (400, "INVALID_MESSAGE")
    assert refusal(make_admission(), f"/?token=good&{name}={value}") == (400, "INVALID_MESSAGE")


@pytest.mark.parametrize("value", ["0", "false", "2", "yes", "True", " 1", "%ff"])
def test_malformed_observer(value: str) -> None:
    """
    A handshake with an invalid C{observer} is refused, and the error names the parameter.
    """
    with pytest.raises(RefusedError, match="Malformed observer") as refused:
        make_admission().admit(f"/?token=good&observer={value}", {}, "192.0.2.1")
    assert (refused.value.status, refused.value.code) == (400, "INVALID_MESSAGE")


@pytest.mark.parametrize(
    ("token", "status", "code"),
    [
        ("x" * (TOKEN_MAX + 1), 400, "INVALID_MESSAGE"),
        ("x" * TOKEN_MAX, 401, "TOKEN_INVALID"),
        ("bad", 401, "TOKEN_INVALID"),
        ("late", 401, "TOKEN_EXPIRED"),
    ],
)
def test_bad_tokens(token: str, status: int, code: str) -> None:
    """
    A handshake with an invalid token is refused, whether the token is in the query or in a header.
    """
    assert refusal(make_admission(), f"/?token={token}") == (status, code)
    assert refusal(make_admission(), "/", authorization=f"Bearer {token}") == (status, code)
    # a good header does not mend a bad query
    assert refusal(make_admission(), f"/?token={token}", authorization="Bearer good") == (status, code)
