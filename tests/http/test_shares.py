"""
The counts of connections, what is spread over the reactor's turns, and what is made sparingly.
"""

from __future__ import annotations

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock

from dcm_ws.http.addresses import UNIX
from dcm_ws.http.shares import Share, address_of
from dcm_ws.http.sparing import Sparing
from dcm_ws.http.turns import Turns


def test_share_per_address() -> None:
    """
    One address has its own room; when one of its connections ends there is room for another.
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
    No more than the limit have room at once, whatever their addresses, also those without one.
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
    Everybody who connects by a Unix socket has the same address, which says nothing about who they are.
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
    The address alone, without the port.
    """
    assert address_of(peer) == address


class TurnClock(Clock):
    """
    A reactor whose turns take a second.
    """

    def callLater(self, delay: float, *call: object, **arguments: object) -> object:  # type: ignore[override]
        return super().callLater(max(delay, 1), *call, **arguments)  # type: ignore[arg-type]


def test_turns() -> None:
    """
    So many jobs are done in a turn, in order; the others wait for the next ones, and new jobs wait behind them.
    """
    clock, done = TurnClock(), []
    turns = Turns(clock, 3)
    at_once = [turns.do(lambda number=number: done.append(number)) for number in range(8)]  # type: ignore[misc]
    assert at_once == [True] * 3 + [False] * 5
    assert (done, len(turns)) == ([0, 1, 2], 5)
    clock.advance(1)
    assert done == [0, 1, 2, 3, 4, 5]
    assert not turns.do(lambda: done.append(8))
    clock.advance(1)
    assert done == list(range(9))
    clock.advance(1)
    assert turns.do(lambda: done.append(9))
    assert done == list(range(10))
    clock.advance(2)
    assert clock.getDelayedCalls() == []


def test_turns_after_a_job_that_fails() -> None:
    """
    A job that fails does not keep those behind it from being done.
    """
    clock, done = TurnClock(), []
    turns = Turns(clock, 2)
    for number in range(2):
        turns.do(lambda number=number: done.append(number))  # type: ignore[misc]
    turns.do(lambda: 1 / 0)
    turns.do(lambda: done.append(3))
    with pytest.raises(ZeroDivisionError):
        clock.advance(1)
    clock.advance(1)
    assert (done, len(turns)) == ([0, 1, 3], 0)


def test_sparing(clock: Clock) -> None:
    """
    Results are fresh for who asks now and then; if they are asked for all the time, ten are made a second.
    """
    made = []

    def make(key: str) -> int:
        made.append(key)
        return len(made)

    sparing = Sparing(make, clock.seconds, most=10)
    assert [sparing("a") for _ in range(50)] == [*range(1, 11), *[10] * 40]
    clock.advance(0.1)
    assert [sparing("a") for _ in range(3)] == [11, 11, 11]
    # what has never been made has to be
    assert sparing("b") == 12
    for _ in range(1000):
        clock.advance(0.001)
        sparing("a")
    assert 21 <= len(made) <= 23
    clock.advance(10)
    made.clear()
    assert sparing("b") == 1


def test_sparing_forgets_keys(clock: Clock) -> None:
    """
    The results of many keys are not kept.
    """
    sparing = Sparing(lambda key: key, clock.seconds, most=1)
    for number in range(100):
        assert sparing(number) == number
    assert len(sparing._results) <= 8
