"""
URLs of NATS servers.
"""

from __future__ import annotations

import pytest

from dcm_ws.nats.urls import NatsUrlError, Server, read_discovered, read_urls


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("nats://one", Server("one", 4222)),
        ("nats://one:5000/", Server("one", 5000)),
        ("one:5000", Server("one", 5000)),
        ("tls://one.example.com", Server("one.example.com", 4222, tls=True)),
        ("nats://[::1]:5000", Server("::1", 5000)),
        ("nats://ann:a%40b%2F@one", Server("one", 4222, user="ann", password="a@b/")),
        ("nats://s3cret@one", Server("one", 4222, token="s3cret")),
    ],
)
def test_urls(url: str, server: Server) -> None:
    """
    A URL gives the host and the port, whether the connection is encrypted, and a user or a token.
    """
    assert read_urls([url]) == [server]


def test_several() -> None:
    """
    Several URLs are given in several options, or in one with commas.
    """
    assert [server.host for server in read_urls(["nats://a, nats://b", "tls://c"])] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://one", "begins with nats:// or tls://"),
        ("nats://", "no host"),
        ("nats://:4222", "no host"),
        ("nats://one:port", "nats://host:port"),
        ("nats://one:99999", "nats://host:port"),
        ("nats://[::1", "nats://host:port"),
        ("nats://one/subject", "after the port"),
        ("nats://one?tls=1", "after the port"),
    ],
)
def test_wrong_urls(url: str, reason: str) -> None:
    """
    The reason is said, without the password.
    """
    with pytest.raises(NatsUrlError, match=reason) as raised:
        read_urls([url.replace("//", "//ann:s3cret@")])
    assert "s3cret" not in str(raised.value)


def test_secrets_are_not_shown() -> None:
    """
    Neither the representation nor the address for the log has a password.
    """
    for server in read_urls(["nats://ann:s3cret@one", "nats://s3cret@[::1]"]):
        assert "s3cret" not in f"{server!r} {server.shown}"
    assert server.shown == "[::1]:4222"


def test_discovered_servers() -> None:
    """
    A server that another one named has the credentials of the given ones, is encrypted if any of them is, and must have
    a certificate for the name of the first.
    """
    given = read_urls(["nats://one", "tls://ann:pw@two"])
    assert read_discovered("10.0.0.7:4223", given) == Server("10.0.0.7", 4223, True, "ann", "pw", name="one")
    assert read_discovered("[fe80::1]:4223", given[:1]) == Server("fe80::1", 4223, name="one")
    assert [read_discovered(wrong, given) for wrong in ("", ":4222", "one:port", "[::1")] == [None] * 4
