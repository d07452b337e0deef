"""
Addresses as peers and proxies write them, and which of them is the client's.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcm_ws.http.addresses import UNIX, UNKNOWN, TrustedProxies, limit_key, normal_address, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        (" 192.0.2.1\t", "192.0.2.1"),
        ("192.0.2.1:40001", "192.0.2.1"),
        ('"192.0.2.1:40001"', "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("2001:DB8:0:0:0::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:40001", "2001:db8::1"),
        ('"[2001:db8::1]:40001"', "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::FFFF:c000:201", "192.0.2.1"),
        ("[::ffff:192.0.2.1]:40001", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%eth0]:40001", "fe80::1"),
        ("fe80::1%\x1b[31m", "fe80::1"),
    ],
)
def test_one_form(text: str, address: str) -> None:
    """
    Every spelling of an address gives the same address.
    """
    assert str(parse_address(text)) == address
    assert normal_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        '""',
        "unknown",
        "unix",
        "_hidden",
        "localhost",
        "192.0.2",
        "192.0.2.1:",
        "192.0.2.1:x",
        "192.0.2.1:-1",
        "192.0.2.1:123456",
        "192.0.2.1/24",
        "192.0.2.01",
        "192.0.2.1%eth0:1",
        "[192.0.2.1]",
        "[192.0.2.1]:1",
        "[2001:db8::1",
        "2001:db8::1]",
        "[[2001:db8::1]]",
        "[2001:db8::1]x",
        "'192.0.2.1'",
        "192.0.2.1\x1b[31m",
        "192.0.2.1\n",
        "\x85192.0.2.1",
        "\u0661\u0669\u0662.0.2.1",
        "3221225985",
        "1" * 5000,
    ],
)
def test_what_is_not_an_address(text: str) -> None:
    """
    Names, obfuscated hops, half an address and control characters are not an address.
    """
    assert parse_address(text) is None


def test_peers() -> None:
    """
    The address of a peer stays the same, and nothing else of it reaches the log.
    """
    assert normal_address(UNIX) == UNIX
    assert normal_address("\x1b[31m") == UNKNOWN


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        (UNKNOWN, UNKNOWN),
        (UNIX, UNIX),
        ("2001:db8:1:2::3", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::3", "2001:db8:1:3::/64"),
        ("::1", "::/64"),
    ],
)
def test_limits_count_networks_of_ipv6(address: str, key: str) -> None:
    """
    A limit per address counts a network of 64 bits as one: its owner has 2^64 addresses.
    """
    assert limit_key(address) == key


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "address"),
    [
        ((), "10.0.0.1", "192.0.2.1", "10.0.0.1"),
        (("10.0.0.1",), "10.0.0.1", "", "10.0.0.1"),
        (("10.0.0.1",), "10.0.0.1", " , ,", "10.0.0.1"),
        (("10.0.0.1",), "10.0.0.1", "192.0.2.1", "192.0.2.1"),
        (("10.0.0.1",), "10.0.0.2", "192.0.2.1", "10.0.0.2"),
        # what the client wrote is on the left of what the proxy adds
        (("10.0.0.1",), "10.0.0.1", "203.0.113.9, 192.0.2.1", "192.0.2.1"),
        (("10.0.0.0/8",), "10.0.0.1", "203.0.113.9, 192.0.2.1, 10.1.2.3,10.9.9.9", "192.0.2.1"),
        (("10.0.0.0/8",), "10.0.0.1", "203.0.113.9, 192.0.2.1:5, , 10.1.2.3:443,", "192.0.2.1"),
        # only proxies: the one farthest away
        (("10.0.0.0/8",), "10.0.0.1", "10.0.0.2, 10.0.0.3", "10.0.0.2"),
        (("10.0.0.0/8", "192.0.2.0/24"), "10.0.0.1", "192.0.2.1", "192.0.2.1"),
        # what is not an address counts as the peer, also further left
        (("10.0.0.0/8",), "10.0.0.1", "192.0.2.1, unknown", "10.0.0.1"),
        (("10.0.0.0/8",), "10.0.0.1", "192.0.2.1, _hidden, 10.0.0.2", "10.0.0.1"),
        (("10.0.0.0/8",), "10.0.0.1", "192.0.2.1, \x85, 10.0.0.2", "10.0.0.1"),
        (("10.0.0.0/8",), "10.0.0.1", "192.0.2.1\x1b[31m", "10.0.0.1"),
        # and does not spoil what a proxy added on its right
        (("10.0.0.0/8",), "10.0.0.1", "unknown, 192.0.2.1", "192.0.2.1"),
        # a client cannot claim to be on the Unix socket
        (("10.0.0.0/8", UNIX), "10.0.0.1", "192.0.2.1, unix", "10.0.0.1"),
        ((UNIX, "10.0.0.1"), "10.0.0.1", "192.0.2.1, 10.0.0.1", "192.0.2.1"),
        (("::1",), "::1", "2001:db8::1", "2001:db8::1"),
        (("2001:db8::/32",), "::1", "2001:db8::1", "::1"),
        (("2001:db8::/32",), "2001:db8::9", "2001:db9::1, [2001:DB8:0::1]:443", "2001:db9::1"),
        (("fe80::/10",), "fe80::1%eth0", "192.0.2.1", "192.0.2.1"),
        # a port that listens on IPv6 has IPv4 clients, too
        (("10.0.0.0/8",), "::ffff:10.0.0.1", "192.0.2.1", "192.0.2.1"),
        (("10.0.0.0/8",), "::ffff:192.0.2.9", "192.0.2.1", "192.0.2.9"),
        (("10.0.0.0/8",), "10.0.0.1", "192.0.2.1, ::ffff:10.0.0.2", "192.0.2.1"),
        (("::ffff:10.0.0.0/104",), "10.0.0.1", "192.0.2.1", "192.0.2.1"),
        (("::ffff:10.0.0.1",), "10.0.0.2", "192.0.2.1", "10.0.0.2"),
        (("2001:db8::1",), "2001:db8::1", "192.0.2.1", "192.0.2.1"),
        ((UNIX,), UNIX, "192.0.2.1", "192.0.2.1"),
        ((UNIX,), UNIX, "unix:", UNIX),
        (("10.0.0.1",), UNIX, "192.0.2.1", UNIX),
        ((UNIX,), "10.0.0.1", "192.0.2.1", "10.0.0.1"),
    ],
)
def test_trusted_proxies(trusted: tuple[str, ...], peer: str, forwarded: str, address: str) -> None:
    """
    The client's address is the rightmost one that is not a trusted proxy's.
    """
    assert TrustedProxies(trusted).client(peer, forwarded) == address


@given(st.text(alphabet='0123456789.,: aunkow_[]%"\x85\x1b', max_size=60))
def test_what_clients_write_through_a_proxy(lie: str) -> None:
    """
    Behind a trusted proxy, the client's address is the one that the proxy saw, whatever the client sends.
    """
    proxies = TrustedProxies(("10.0.0.1", UNIX))
    assert proxies.client("10.0.0.1", f"{lie}, 192.0.2.1") == "192.0.2.1"
    assert proxies.client(UNIX, f"{lie}, [2001:DB8::1]:5") == "2001:db8::1"
    assert proxies.client("192.0.2.2", lie) == "192.0.2.2"


@given(st.ip_addresses(), st.integers(1, 65535))
def test_one_client_has_one_key(address: IPv4Address | IPv6Address, port: int) -> None:
    """
    A client is counted once, whatever port and spelling its proxy writes.
    """
    proxies = TrustedProxies(("unix",))
    spelled = f"[{address.exploded.upper()}]:{port}" if address.version == 6 else f"{address}:{port}"
    assert limit_key(proxies.client(UNIX, spelled)) == limit_key(normal_address(str(address)))


@pytest.mark.parametrize("name", ["", "proxy.example.com", "10.0.0.0/33", "10.0.0.1/8", "unix ", "10.0.0"])
def test_what_is_not_a_proxy(name: str) -> None:
    """
    A name that is neither an address nor a network is refused when the service starts.
    """
    with pytest.raises(ValueError):
        TrustedProxies((name,))
