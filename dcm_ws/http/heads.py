"""
Request heads that different servers read in different ways (RFC 9112, sections 3.2, 5.1, 5.2, 6.1 and 11.2).

A proxy and the service must see the same requests, with the same headers, for the same host.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

_name = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_not_in_a_line = re.compile(rb"[\0\r\n]")
_host = re.compile(
    rb"(?:\[[0-9A-Za-z:.%_~-]+\]|(?:[0-9A-Za-z._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)(?::([0-9]{0,5}))?", re.ASCII
)
_absolute = re.compile(rb"https?://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)
_PORT_MAX = 65_535
# far more than clients send, and few enough to be converted quickly
_DIGITS_MAX = 18


def origin_form(target: bytes) -> bytes:
    """
    The path and the query of a request target, which may be a whole URL (RFC 9112, section 3.2.2).
    """
    found = _absolute.fullmatch(target)
    if found is None:
        return target
    rest = found.group(2)
    return rest if rest.startswith(b"/") else b"/" + rest


def fault_of(head: Sequence[bytes]) -> str:
    """
    The reason why a request head is invalid; empty if it is valid.

    @param head: the request line and the header lines, without their ends.
    """
    request, *lines = head
    if any(map(_not_in_a_line.search, head)):
        return "Lines must end with CR LF and hold no NUL"
    values: defaultdict[bytes, list[bytes]] = defaultdict(list)
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not _name.fullmatch(name):
            return "Each header line must be a name, a colon and a value, on one line"
        values[name.lower()].append(value.strip(b" \t"))
    return _host_fault(values[b"host"], request) or _length_fault(
        values[b"content-length"], values[b"transfer-encoding"], request
    )


def _host_fault(hosts: Sequence[bytes], request: bytes) -> str:
    if len(hosts) != 1:
        return "" if not hosts and request.endswith(b" HTTP/1.0") else "There must be one Host header"
    found = _host.fullmatch(hosts[0])
    if found is None or int(found.group(1) or 0) > _PORT_MAX:
        return "The Host header must be a host name or an address, with or without a port"
    absolute = _absolute.fullmatch(request.partition(b" ")[2].partition(b" ")[0])
    if absolute and absolute.group(1).lower() != hosts[0].lower():
        return "The Host header must name the same host as the request's URL"
    return ""


def _length_fault(lengths: Sequence[bytes], encodings: Sequence[bytes], request: bytes) -> str:
    if len(lengths) + len(encodings) > 1:
        return "There may be one Content-Length or one Transfer-Encoding header"
    if lengths and not (lengths[0].isdigit() and len(lengths[0]) <= _DIGITS_MAX):
        return "Content-Length must be a number"
    if encodings and (encodings[0].lower() != b"chunked" or request.endswith(b" HTTP/1.0")):
        return "Transfer-Encoding must be chunked, in HTTP/1.1"
    return ""
