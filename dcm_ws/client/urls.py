"""
WebSocket URLs: their parts, and whether they lead to this machine.
"""

from __future__ import annotations

import socket
import urllib.request
from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit, urlunsplit

_PROXIES = {
    "ws": ("ws", "socks", "https", "http"),
    "wss": ("wss", "socks", "https"),
    "http": ("http",),
    "https": ("https",),
}
"""
The kinds of proxies that the package websockets, and urllib, use for a scheme.
"""


def place_of(url: str, *, tls: bool) -> tuple[bool, str, int]:
    """
    The parts of a WebSocket URL.

    @param tls: there are settings for TLS, which only C{wss://} uses.
    @return: whether it uses TLS, the host, and the port.
    @raise ValueError: it is not a WebSocket URL.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"not the address of a WebSocket: {url!r}: {error}") from None
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise ValueError(f"not the address of a WebSocket: {url!r}; use ws:// or wss://")
    if "#" in url:
        raise ValueError(f"not the address of a WebSocket: {url!r}: it has a fragment (RFC 6455, section 3)")
    secure = parts.scheme == "wss"
    if tls and not secure:
        raise ValueError(f"{url!r} does not use TLS; use wss://")
    return secure, parts.hostname, port or (443 if secure else 80)


def as_observer(url: str) -> str:
    """
    The URL with which a client connects as an observer (docs/protocol.md, Observers).
    """
    parts = urlsplit(url)
    return urlunsplit(parts._replace(query=f"{parts.query}&observer=1".lstrip("&")))


def is_loopback(host: str) -> bool:
    """
    Whether the host is a loopback address or name (RFC 6761, section 6.3), or the unspecified address, which leads to
    this machine, too.  A proxy cannot reach such a host.

    @param host: a name or an address, without brackets.
    """
    name = host.partition("%")[0].rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ip_address(name)
    except ValueError:
        try:
            # short forms that connect() accepts, such as 127.1
            address = ip_address(socket.inet_aton(name))
        except OSError:
            return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback or address.is_unspecified


def is_proxied(url: str) -> bool:
    """
    Whether a connection to the URL goes through a proxy that the environment or the system names.

    @param url: C{ws}, C{wss}, C{http} or C{https}, with a host.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_loopback(host) or urllib.request.proxy_bypass(host if parts.port is None else f"{host}:{parts.port}"):
        return False
    proxies = urllib.request.getproxies()
    return any(kind in proxies for kind in _PROXIES[parts.scheme])
