"""
Addresses of clients, as peers and proxies write them, and which proxies are trusted.

Every address is converted to one form, so that one client has one address in the log and in the limits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

UNIX = "unix"
"""
The address given for a client on a Unix socket, which has none.
"""

UNKNOWN = "unknown"
"""
The address given for a peer whose transport reports an invalid one.
"""

IPV6_PREFIX = 64
"""
Leading bits of an IPv6 address that limits count by: the smallest network that a site gets (RFC 6177).
"""

_MAPPED_PREFIX = 96
_LONGEST = 128
_KEPT_MAX = 1024

_ipv4_with_port = re.compile(r"([0-9.]+):[0-9]{1,5}")
_bracketed = re.compile(r"\[([^\[\]]*)\](?::[0-9]{1,5})?")


def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """
    Read an address as proxies write it: with or without a port, brackets, quotes or a zone (RFC 7239, section 6).

    @return: without port and zone, an IPv4-mapped address as IPv4; None if C{text} is not an address.
    """
    if len(text) > _LONGEST:
        return None
    text = text.strip(" \t")
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = text[1:-1]
    bracketed = _bracketed.fullmatch(text)
    with_port = bracketed or _ipv4_with_port.fullmatch(text)
    number, percent, _ = (with_port.group(1) if with_port else text).partition("%")
    try:
        address = ip_address(number)
    except ValueError:
        return None
    if isinstance(address, IPv4Address):
        # brackets and zones belong to IPv6
        return None if bracketed or percent else address
    return address.ipv4_mapped or address


# only of peers, whose addresses are short
@lru_cache(maxsize=_KEPT_MAX)
def normal_address(text: str) -> str:
    """
    The one form of a peer's address; L{UNIX} stays, and what is not an address becomes L{UNKNOWN}.
    """
    return text if text == UNIX else str(parse_address(text) or UNKNOWN)


@lru_cache(maxsize=_KEPT_MAX)
def limit_key(address: str) -> str:
    """
    What a limit per address counts by: the address of IPv4, the network of L{IPV6_PREFIX} bits of IPv6.

    @param address: in its one form.
    """
    if ":" not in address:
        return address
    return str(ip_network((address, IPV6_PREFIX), strict=False))


class TrustedProxies:
    """
    Proxies whose C{X-Forwarded-*} headers are trusted.

    C{Forwarded} (RFC 7239) is not read: a proxy that sets one of the two headers passes the other on as the client
    wrote it.

    @param names: addresses, networks in CIDR notation, or L{UNIX}.
    @raise ValueError: a name is not one of these.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._unix = False
        self._networks: list[IPv4Network | IPv6Network] = []
        for name in names:
            if name == UNIX:
                self._unix = True
            else:
                self._networks.append(_network(name))

    def trusts(self, peer: str) -> bool:
        """
        True if the headers that C{peer} adds are trusted.

        @param peer: the address of the far end; L{UNIX} for a Unix socket.
        """
        if peer == UNIX:
            return self._unix
        return bool(self._networks) and self._contains(parse_address(peer))

    def client(self, peer: str, forwarded: str) -> str:
        """
        The client's address: the rightmost in C{forwarded} that is not a trusted proxy's, or the leftmost if all are.

        @param peer: the address of the far end; L{UNIX} for a Unix socket.
        @param forwarded: the C{X-Forwarded-For} headers, joined by commas: each proxy adds, on the right, the address
            that it was connected to from.  What is left of an untrusted address may be invented.
        @return: in its one form; the peer's if the entry that counts is not an address.
        """
        own = normal_address(peer)
        if not self.trusts(peer):
            return own
        address: IPv4Address | IPv6Address | None = None
        for hop in reversed(forwarded.split(",")):
            if not hop.strip(" \t"):
                continue
            address = parse_address(hop)
            if address is None:
                return own
            if not self._contains(address):
                break
        return own if address is None else str(address)

    def _contains(self, address: IPv4Address | IPv6Address | None) -> bool:
        return address is not None and any(address in network for network in self._networks)


def _network(name: str) -> IPv4Network | IPv6Network:
    """
    Parse a network; an IPv4-mapped one becomes IPv4, as addresses do.
    """
    network = ip_network(name)
    if isinstance(network, IPv6Network) and network.prefixlen >= _MAPPED_PREFIX:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((int(mapped), network.prefixlen - _MAPPED_PREFIX))
    return network
