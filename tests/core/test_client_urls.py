"""
WebSocket URLs, and which of them lead to this machine.
"""

from __future__ import annotations

import pytest

from dcm_ws.client.urls import is_loopback, place_of


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("ws://h/ws", (False, "h", 80)),
        ("WSS://h:8443", (True, "h", 8443)),
        ("wss://[::1]/", (True, "::1", 443)),
        ("ws://h:99999/", None),
        ("ws://h:x/", None),
        ("http://h/", None),
        ("ws:///ws", None),
        ("h", None),
    ],
)
def test_urls(url: str, place: tuple[bool, str, int] | None) -> None:
    """
    Anything but a WebSocket URL is an error at once.
    """
    if place is None:
        with pytest.raises(ValueError, match="not the address of a WebSocket"):
            place_of(url, tls=False)
    else:
        assert place_of(url, tls=place[0]) == place
    with pytest.raises(ValueError, match="there is no TLS"):
        place_of("ws://h/", tls=True)


@pytest.mark.parametrize(
    "host",
    [
        *["localhost", "LocalHost.", "dcm.localhost", "127.0.0.1", "127.255.255.254", "127.1", "2130706433", "0.0.0.0"],
        *["::1", "0:0:0:0:0:0:0:1", "::ffff:127.0.0.1", "::1%lo", "::"],
    ],
)
def test_loopback(host: str) -> None:
    """
    Names and addresses of this machine, however they are spelled.
    """
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["example.com", "localhost.example.com", "notlocalhost", "10.0.0.1", "128.0.0.1", "::2", "fe80::1%eth0", ""]
)
def test_not_loopback(host: str) -> None:
    """
    Hosts to which a proxy may be the way.
    """
    assert not is_loopback(host)
