"""
Request heads that every server reads in the same way, and others.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcm_ws.http.heads import fault_of, origin_form

HOST = b"Host: dcm.example"


@pytest.mark.parametrize(
    "host",
    [
        b"dcm.example",
        b"dcm.example.",
        b"DCM.example:3849",
        b"127.0.0.1:80",
        b"[::1]",
        b"[fe80::1%25eth0]:65535",
        b"",
        b"dcm_ws",
        b"a:",
        b"%C3%A4.example",
        b"  dcm.example\t",
    ],
)
def test_hosts(host: bytes) -> None:
    """
    A host name or an address is valid, with or without a port.
    """
    assert fault_of([b"GET / HTTP/1.1", b"Host: " + host]) == ""


@pytest.mark.parametrize(
    "host",
    [
        b"a b",
        b"a/b",
        b"a?b",
        b"user@a",
        b"a, b",
        b"a:b",
        b"a:65536",
        b"a:999999",
        b"a:-1",
        b"a:1:2",
        b"::1",
        b"[::1",
        b"[::1]x",
        b"\xc3\xa4.example",
        b"%zz",
        b'"a"',
        b"http://a",
        b"a\xb2",
    ],
)
def test_what_is_not_a_host(host: bytes) -> None:
    """
    Anything else in the Host header is refused.
    """
    assert "Host header must be" in fault_of([b"GET / HTTP/1.1", b"Host: " + host])


@pytest.mark.parametrize(
    "head",
    [
        [b"GET / HTTP/1.0"],
        [b"GET / HTTP/1.0", HOST],
        [b"GET / HTTP/1.1", HOST, b"X-Host: a", b"x:", b"Y:\x1b[31m\xff\t"],
        [b"POST / HTTP/1.1", HOST, b"Content-Length: 5"],
        [b"POST / HTTP/1.1", HOST, b"transfer-encoding:  Chunked "],
        [b"POST / HTTP/1.1", HOST, b"Content-Length: " + b"9" * 18],
        [b"nonsense", HOST],
        [b"GET http://dcm.example HTTP/1.1", HOST],
        [b"GET HTTPS://DCM.example/http://a HTTP/1.1", HOST],
        [b"GET http://dcm.example:3849?a=http://b/ HTTP/1.1", HOST + b":3849"],
        [b"GET /http://a HTTP/1.1", HOST],
        [b"GET http://a/ HTTP/1.0"],
    ],
)
def test_good_heads(head: list[bytes]) -> None:
    """
    Heads that all servers read in the same way are valid; the request line is checked elsewhere.
    """
    assert fault_of(head) == ""


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ([], "one Host header"),
        ([HOST, HOST], "one Host header"),
        ([HOST, b"host: dcm.example"], "one Host header"),
        ([HOST, b" folded"], "on one line"),
        ([HOST, b"\tfolded: x"], "on one line"),
        ([HOST, b"X : 1"], "on one line"),
        ([HOST, b": 1"], "on one line"),
        ([HOST, b"no colon"], "on one line"),
        ([HOST, b"\xc3\xa4: 1"], "on one line"),
        ([b"Host : a"], "on one line"),
        ([HOST, b"X: a\nY: b"], "CR LF"),
        ([HOST, b"X: a\rY: b"], "CR LF"),
        ([HOST, b"X: a\0"], "CR LF"),
        ([HOST, b"Content-Length: 1", b"Content-Length: 1"], "one Content-Length"),
        ([HOST, b"Content-Length: 1", b"Transfer-Encoding: chunked"], "one Content-Length"),
        ([HOST, b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"], "one Content-Length"),
        ([HOST, b"Content-Length: +1"], "must be a number"),
        ([HOST, b"Content-Length: 1, 1"], "must be a number"),
        ([HOST, b"Content-Length: 0x1"], "must be a number"),
        ([HOST, b"Content-Length:"], "must be a number"),
        # Python refuses to read as a number what has more than 4,300 digits
        ([HOST, b"Content-Length: " + b"9" * 4301], "must be a number"),
        ([HOST, b"Content-Length: " + b"0" * 19], "must be a number"),
        ([HOST, b"Transfer-Encoding: identity"], "must be chunked"),
        ([HOST, b"Transfer-Encoding: gzip, chunked"], "must be chunked"),
        ([HOST, b"Transfer-Encoding: \x0bchunked"], "must be chunked"),
    ],
)
def test_bad_heads(lines: list[bytes], fault: str) -> None:
    """
    Heads that servers read in different ways are refused.
    """
    assert fault in fault_of([b"GET / HTTP/1.1", *lines])


@pytest.mark.parametrize(
    "target",
    [b"http://a/", b"https://dcm.example.evil", b"http://dcm.example@a/", b"http://dcm.example:80/", b"http:///"],
)
def test_two_hosts(target: bytes) -> None:
    """
    A whole URL and the Host header must not name different hosts.
    """
    assert "the same host" in fault_of([b"GET " + target + b" HTTP/1.1", HOST])


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/ws?a=b", b"/ws?a=b"),
        (b"http://a/ws?a=http://b/", b"/ws?a=http://b/"),
        (b"HTTPS://a", b"/"),
        (b"http://a?b", b"/?b"),
        (b"http://[::1]:80//ws", b"//ws"),
        (b"httpx/ws", b"httpx/ws"),
        (b"*", b"*"),
        (b"", b""),
    ],
)
def test_origin_form(target: bytes, path: bytes) -> None:
    """
    A whole URL is the same as its path and its query.
    """
    assert origin_form(target) == path


def test_old_requests() -> None:
    """
    HTTP/1.0 needs no Host header and allows one; it does not allow Transfer-Encoding.
    """
    assert "one Host" in fault_of([b"GET / HTTP/1.0", HOST, HOST])
    assert "chunked" in fault_of([b"GET / HTTP/1.0", HOST, b"Transfer-Encoding: chunked"])
    assert "CR LF" in fault_of([b"GET /\n HTTP/1.0"])


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=5))
def test_nothing_breaks(head: list[bytes]) -> None:
    """
    Any lines give a reason or none, without an exception; two Host headers always give one.
    """
    assert isinstance(fault_of(head), str)
    assert fault_of([*head, HOST, HOST])
