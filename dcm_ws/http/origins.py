"""
Which web pages may connect: compares their C{Origin} with the host that they connect to and with the allowed origins.

Browsers write an origin in one way, but proxies, libraries and operators do not.  Names are therefore compared in one
form, and the scheme's default port may be written or left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from ipaddress import IPv4Address
from typing import NamedTuple

import idna

from dcm_ws.http.addresses import parse_address

SAME_HOST = "same-host"
"""
In the list of allowed origins: the host that the client itself connects to.
"""

_DEFAULT_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}

_scheme = re.compile(r"[a-z][a-z0-9+.-]*")
_label = re.compile(r"[a-z0-9_*-]+")
_place = re.compile(r"(\[[^\[\]]*\]|[^:\[\]/?#@]+)(?::([0-9]{1,5}))?")


class Target(NamedTuple):
    """
    What a client connects to, as far as its request shows.

    @ivar host: the C{Host} header, or what a trusted proxy reports in its place.
    @ivar scheme: what a trusted proxy reports; empty if unknown.
    @ivar local_port: the port of a loopback address that the connection was made to; None for any other address.
    """

    host: str
    scheme: str = ""
    local_port: int | None = None


class _Origin(NamedTuple):
    """
    A page's origin (RFC 6454), in its one form.
    """

    scheme: str
    name: str
    port: int | None


class AllowedOrigins:
    """
    The web pages that may connect.  A program that is not a browser sends no C{Origin}, and may always connect.

    @param patterns: origins such as C{https://*.example.com}, in which C{*} matches anything; L{SAME_HOST}; or
        just C{*}, which allows every origin.
    @param names: with any, same-host is allowed under these names, C{localhost} and IP addresses only.  Without any,
        under every name, except in connections to a loopback address itself, which a page of any site can make by
        pointing its own name there (DNS rebinding).
    @raise ValueError: one of C{names} is not a host name.
    """

    def __init__(self, patterns: Iterable[str], names: Iterable[str] = ()) -> None:
        patterns = tuple(patterns)
        self._all = "*" in patterns
        self._same_host = SAME_HOST in patterns
        self._literal = {pattern.strip().lower().rstrip("/") for pattern in patterns}
        self._patterns = [_pattern(pattern) for pattern in self._literal]
        self._names = [_own_name(name) for name in names]

    def allows(self, origin: str | None, target: Target | str) -> bool:
        """
        @param origin: the C{Origin} header, if there is one.
        @param target: what the client connects to; the C{Host} header if nothing more is known.
        """
        if origin is None or self._all:
            return True
        text = _utf8(origin).strip().lower()
        page = _read_origin(text)
        if page is None:
            # "null", or text that browsers do not send: compared as it is, without wildcards
            return "*" not in text and text.rstrip("/") in self._literal
        return self._fits(page) or (
            self._same_host and self._is_same_host(page, Target(target) if isinstance(target, str) else target)
        )

    def _fits(self, page: _Origin) -> bool:
        place = f"{page.scheme}://{page.name}"
        spellings = [place] if page.port is None else [f"{place}:{page.port}"]
        if page.port is not None and page.port == _DEFAULT_PORTS.get(page.scheme):
            spellings.append(place)
        return any(fnmatchcase(spelling, pattern) for pattern in self._patterns for spelling in spellings)

    def _is_same_host(self, page: _Origin, target: Target) -> bool:
        found = _place.fullmatch(_utf8(target.host).strip())
        if found is None or _name(found.group(1)) != page.name or page.scheme not in _DEFAULT_PORTS:
            return False
        port = int(found.group(2)) if found.group(2) else None
        # of a page of that host, also if Host leaves out a default port
        direct = target.local_port is not None and page.port == target.local_port
        if port == _DEFAULT_PORTS.get(target.scheme.lower()):
            # written out, it says no more than leaving it out
            port = None
        return (port is None or port == page.port) and self._is_own(page.name, direct)

    def _is_own(self, name: str, direct: bool) -> bool:
        if name == "localhost" or name.endswith(".localhost") or parse_address(name) is not None:
            # these are resolved without a name server
            return True
        if self._names:
            return any(fnmatchcase(name, own) for own in self._names)
        return not direct


def _read_origin(text: str) -> _Origin | None:
    scheme, slashes, rest = text.partition("://")
    found = _place.fullmatch(rest)
    if not slashes or not _scheme.fullmatch(scheme) or found is None:
        return None
    name = _name(found.group(1))
    if name is None or "*" in name:
        return None
    return _Origin(scheme, name, int(found.group(2)) if found.group(2) else _DEFAULT_PORTS.get(scheme))


def _name(text: str) -> str | None:
    """
    The one form of a host: lower case, ASCII (RFC 5890), without the dot at its end, IPv6 shortened; None if it is
    neither a name nor an address.  A label of a pattern may have C{*} in it.
    """
    if text.startswith("["):
        address = parse_address(text)
        return None if address is None else str(address) if isinstance(address, IPv4Address) else f"[{address}]"
    labels = text.lower().removesuffix(".").split(".")
    try:
        labels = [label if label.isascii() else idna.encode(label, uts46=True).decode() for label in labels]
    except idna.IDNAError:
        return None
    return ".".join(labels) if all(map(_label.fullmatch, labels)) else None


def _own_name(text: str) -> str:
    name = _name(text)
    if name is None:
        raise ValueError(f"{text!r} is not a host name")
    return name


def _pattern(text: str) -> str:
    """
    An allowed origin in the form that origins are compared in, for L{fnmatchcase}.
    """
    scheme, slashes, place = text.partition("://")
    host, colon, port = place.rpartition(":")
    if not colon or "]" in port:
        host, colon, port = place, "", ""
    name = _name(host) if slashes else None
    if name is not None:
        text = f"{scheme}://{name}{colon}{port}"
    # fnmatch has brackets of its own, and so have IPv6 addresses
    return text.replace("[", "[[]").replace("?", "[?]")


def _utf8(header: str) -> str:
    """
    A header decoded as UTF-8, if it is valid; HTTP headers are decoded as ISO 8859-1 at first.
    """
    try:
        return header.encode("iso-8859-1").decode()
    except UnicodeError:
        return header
