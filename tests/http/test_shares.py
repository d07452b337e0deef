"""
Limits for connections of one kind.
"""

from __future__ import annotations

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress

from dcm_ws.http.addresses import UNIX
from dcm_ws.http.shares import Share, address_of


def test_share_per_address() -> None:
    """
    Each address has its own limit; when one of its connections ends, another is accepted.
    """
    share = Share(most=4, per_address=2)
    for _ in range(2):
        assert not share.refuses("192.0.2.1")
        share.enter("192.0.2.1")
    assert share.refuses("192.0.2.1")
    assert not share.refuses("192.0.2.2")
    share.leave("192.0.2.1")
    assert not share.refuses("192.0.2.1")
    assert (len(share), share.crowded.value, share.full.value) == (1, 1, 0)


def test_share_in_all() -> None:
    """
    No more connections than the limit are accepted at once, whatever their addresses, also those without one.
    """
    share = Share(most=3, per_address=2)
    for address in ("192.0.2.1", "192.0.2.2", UNIX):
        assert not share.refuses(address)
        share.enter(address)
    assert share.refuses(UNIX) and share.refuses("192.0.2.3")
    share.leave(UNIX)
    assert not share.refuses("192.0.2.3")
    assert (len(share), share.crowded.value, share.full.value) == (2, 0, 2)


def test_unix_sockets_are_not_limited_by_address() -> None:
    """
    All clients of a Unix socket have the same address, which the limit per address does not apply to.
    """
    share = Share(per_address=1)
    for _ in range(5):
        assert not share.refuses(UNIX)
        share.enter(UNIX)
    assert len(share) == 5


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("192.0.2.1", "192.0.2.2", False),
    ],
)
def test_ipv6_networks_count_together(one: str, other: str, same: bool) -> None:
    """
    The addresses of one network of 64 bits count as one, since a single host may use all of them.
    """
    share = Share(per_address=1)
    share.enter(one)
    assert share.refuses(other) is same
    share.leave(one)
    assert not share.refuses(one) and not share.refuses(other)


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        (IPv4Address("TCP", "192.0.2.1", 80), "192.0.2.1"),
        (IPv6Address("TCP", "2001:db8::1", 80), "2001:db8::1"),
        (UNIXAddress("/run/x"), UNIX),
    ],
)
def test_address_of(peer: IAddress, address: str) -> None:
    """
    Only the address, without the port.
    """
    assert address_of(peer) == address
