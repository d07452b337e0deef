"""
Which web pages may connect, however their origin and the host are written.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcm_ws.http.origins import SAME_HOST, AllowedOrigins, Target


@pytest.mark.parametrize("patterns", [(), ("*",), (SAME_HOST,), ("https://a.com",)])
def test_programs_send_no_origin(patterns: tuple[str, ...]) -> None:
    """
    A client that sends no origin is not a page, and may connect.
    """
    assert AllowedOrigins(patterns).allows(None, "example.com")


@pytest.mark.parametrize(
    ("pattern", "origin", "allowed"),
    [
        ("*", "https://anything.example", True),
        ("*", "null", True),
        ("https://a.com", "https://a.com", True),
        ("https://a.com/", "https://a.com", True),
        ("HTTPS://A.com", "https://a.COM", True),
        ("https://a.com", " https://a.com ", True),
        ("https://a.com", "http://a.com", False),
        ("https://a.com", "https://a.com:444", False),
        ("https://a.com", "https://b.a.com", False),
        ("https://a.com", "https://a.com.evil.example", False),
        ("https://a.com", "https://user@a.com", False),
        ("https://a.com", "https://a.com/path", False),
        ("https://a.com", "null", False),
        ("https://a.com", "", False),
        # one origin, written in several ways
        ("https://a.com", "https://a.com:443", True),
        ("https://a.com:443", "https://a.com", True),
        ("http://a.com:80", "http://a.com", True),
        ("http://a.com:443", "http://a.com", False),
        ("https://a.com", "https://a.com.", True),
        ("https://a.com.", "https://a.com", True),
        ("https://a.com.:8443", "https://a.com:8443", True),
        ("https://bücher.example", "https://xn--bcher-kva.example", True),
        ("https://xn--bcher-kva.example", "https://Bücher.example", True),
        ("https://xn--bcher-kva.example", "https://b\xc3\xbccher.example", True),
        ("https://*.bücher.example", "https://a.xn--bcher-kva.example:443", True),
        ("https://a\u0378.com", "https://a.com", False),
        ("http://[::1]", "http://[0:0:0:0:0:0:0:1]", True),
        ("http://[0:0::1]:8080", "http://[::1]:8080", True),
        ("http://127.0.0.1", "http://[::ffff:127.0.0.1]", True),
        ("https://*.a.com", "https://b.a.com", True),
        ("https://*.a.com", "https://b.a.com:443", True),
        ("https://*.a.com", "https://c.b.a.com", True),
        ("https://*.a.com", "https://a.com", False),
        ("https://*.a.com", "https://evila.com", False),
        ("https://*.a.com", "https://b.a.com.evil.example", False),
        ("https://*.a.com", "https://b.a.com:8443", False),
        ("https://*.a.com", "https://evil.example/.a.com", False),
        ("https://*.a.com", "https://evil.example?.a.com", False),
        ("https://*.a.com", "https://evil.example:1.a.com", False),
        ("https://*.a.com", "https://*.a.com", False),
        ("https://*", "https://a.com:8443", True),
        ("*://localhost:*", "http://localhost:3000", True),
        ("*://localhost:*", "http://localhost", True),
        ("*://localhost:*", "http://localhost.evil.example:3000", False),
        ("http://[::1]:*", "http://[::1]:3000", True),
        ("http://[::1]:*", "http://::3000", False),
        ("http://a?c.com", "http://abc.com", False),
        ("http://[ab].com", "http://a.com", False),
        # origins that are not of the web
        ("null", "null", True),
        ("file://", "file://", True),
        ("file://", "file:///etc", False),
        ("chrome-extension://abcdef", "chrome-extension://abcdef", True),
        ("chrome-extension://*", "chrome-extension://abcdef", True),
    ],
)
def test_patterns(pattern: str, origin: str, allowed: bool) -> None:
    """
    An origin is allowed if it matches a pattern, in which only C{*} is a wildcard.
    """
    assert AllowedOrigins((pattern,)).allows(origin, "service.example") is allowed
    assert AllowedOrigins(("https://other.example", pattern)).allows(origin, "service.example") is allowed
    assert not AllowedOrigins(()).allows(origin, "service.example")


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        ("http://a.com", "a.com", True),
        ("https://a.com", "A.com ", True),
        ("http://a.com:3849", "a.com:3849", True),
        ("http://[::1]:3849", "[::1]:3849", True),
        ("http://[::1]:3849", "[0:0::1]:3849", True),
        ("http://[::1]", "[::2]", False),
        # the default port, written by one and left out by the other
        ("https://a.com", "a.com:443", True),
        ("https://a.com:443", "a.com", True),
        ("http://a.com", "a.com:80", True),
        ("https://a.com", "a.com:80", False),
        # the dot at the end of a full name
        ("https://a.com", "a.com.", True),
        ("https://a.com.", "a.com:443", True),
        ("https://a.com", "a.com..", False),
        ("https://xn--bcher-kva.example", "b\xc3\xbccher.example", True),
        # a proxy passes the name without its port
        ("http://a.com:3849", "a.com", True),
        ("https://a.com:8443", "a.com", True),
        ("http://a.com", "a.com:3849", False),
        ("https://a.com:8443", "a.com:8444", False),
        ("http://b.com", "a.com", False),
        ("http://a.com.evil.example", "a.com", False),
        ("http://a.com", "a.com:", False),
        ("http://a.com", "a.com:x", False),
        ("http://a.com", "b.com@a.com", False),
        ("http://a.com", "", False),
        ("null", "a.com", False),
        ("null", "null", False),
        ("null", "", False),
        ("a.com", "a.com", False),
        ("file://", "", False),
        ("http://*", "*", False),
        # pages of a server only
        ("chrome-extension://abc", "abc", False),
        ("ftp://a.com", "a.com", False),
    ],
)
def test_same_host(origin: str, host: str, allowed: bool) -> None:
    """
    The same host has the same name and, if the Host header names a port, the same port.
    """
    assert AllowedOrigins((SAME_HOST,)).allows(origin, host) is allowed
    assert AllowedOrigins(("https://other.example", SAME_HOST)).allows(origin, host) is allowed
    assert not AllowedOrigins(("https://other.example",)).allows(origin, host)


@pytest.mark.parametrize(
    ("names", "place", "local_port", "allowed"),
    [
        # without names a proxy may use any
        ((), "dcm.example.com", None, True),
        ((), "dcm.example.com:8443", 3849, True),
        ((), "dcm.example.com:3849", None, True),
        # a name that leads to a loopback address directly may be anyone's
        ((), "evil.example:3849", 3849, False),
        ((), "localhost.evil.example:3849", 3849, False),
        ((), "evil.example", 80, False),
        ((), "evil.example:80", 80, False),
        ((), "localhost", 80, True),
        ((), "dcm.example.com", 3849, True),
        ((), "localhost:3849", 3849, True),
        ((), "app.localhost:3849", 3849, True),
        ((), "127.0.0.1:3849", 3849, True),
        ((), "[::1]:3849", 3849, True),
        (("dcm.example.com",), "dcm.example.com", None, True),
        (("DCM.example.com.",), "dcm.example.com:3849", 3849, True),
        (("b\xfccher.example",), "xn--bcher-kva.example", None, True),
        (("dcm.example.com",), "evil.example", None, False),
        (("dcm.example.com",), "a.dcm.example.com", None, False),
        (("*.example.com", "other.example"), "a.dcm.example.com", None, True),
        (("*.example.com", "other.example"), "other.example", None, True),
        (("*.example.com",), "example.com", None, False),
        (("dcm.example.com",), "localhost:3849", 3849, True),
        (("dcm.example.com",), "192.0.2.1", None, True),
    ],
)
def test_own_names(names: tuple[str, ...], place: str, local_port: int | None, allowed: bool) -> None:
    """
    A page of the same host may connect under the service's own names, and not under one that somebody pointed at it.
    """
    origins = AllowedOrigins((SAME_HOST,), names)
    assert origins.allows(f"http://{place}", Target(place, local_port=local_port)) is allowed


@pytest.mark.parametrize("name", ["", "a b", "https://a.com", "a.com:443", "a..com", "a/b", "\u0378"])
def test_what_is_not_a_host_name(name: str) -> None:
    """
    A server name that can never match is refused.
    """
    with pytest.raises(ValueError):
        AllowedOrigins((), (name,))


@given(st.text(max_size=30), st.text(max_size=30))
def test_nothing_breaks(origin: str, host: str) -> None:
    """
    Any headers give a decision without an exception, and pages of other sites are never allowed.
    """
    origins = AllowedOrigins(("https://*.example.com", SAME_HOST))
    assert origins.allows(origin, host) in (True, False)
    assert not origins.allows(f"https://evil.test/{origin}", "dcm.example.com")
    assert not origins.allows("https://evil.test", f"{host}.example.com")
