"""
WebSocket URLs, and which of them lead to this machine.
"""

from __future__ import annotations

import pytest

from dcm_ws.client.urls import is_loopback, is_proxied, place_of


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("ws://h/ws", (False, "h", 80)),
        ("WSS://h:8443", (True, "h", 8443)),
        ("wss://[::1]/", (True, "::1", 443)),
        ("ws://h:99999/", None),
        ("ws://h:x/", None),
        ("http://h/", None),
        ("ws://h/#part", None),
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
    with pytest.raises(ValueError, match="does not use TLS"):
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


@pytest.mark.parametrize(
    ("url", "variables", "proxied"),
    [
        ("ws://h/", {}, False),
        ("ws://h/", {"no_proxy": "other"}, False),
        ("ws://h/", {"http_proxy": "http://p:1"}, True),
        ("ws://h/", {"https_proxy": "http://p:1"}, True),
        ("ws://h/", {"ftp_proxy": "http://p:1"}, False),
        ("wss://h/", {"http_proxy": "http://p:1"}, False),
        ("wss://h/", {"socks_proxy": "socks5://p:1"}, True),
        ("http://h/", {"https_proxy": "http://p:1"}, False),
        ("https://h/", {"https_proxy": "http://p:1"}, True),
        ("ws://h:3849/", {"http_proxy": "http://p:1", "no_proxy": "h"}, False),
        ("ws://h:3849/", {"http_proxy": "http://p:1", "no_proxy": "h:3849"}, False),
        ("ws://h/", {"http_proxy": "http://p:1", "no_proxy": "*"}, False),
        ("ws://[::1]:3849/", {"http_proxy": "http://p:1"}, False),
        ("ws://dcm.localhost/", {"http_proxy": "http://p:1", "no_proxy": ""}, False),
    ],
)
def test_proxies(monkeypatch: pytest.MonkeyPatch, url: str, variables: dict[str, str], proxied: bool) -> None:
    """
    The variables for the URL's scheme count, except for hosts that no_proxy names and for this machine.
    """
    for kind in ("http", "https", "ftp", "socks", "all", "no", "ws", "wss"):
        for name in (f"{kind}_proxy", f"{kind}_proxy".upper()):
            monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert is_proxied(url) is proxied
