"""
What became of one event, put together from the pages of the ledger.
"""

from __future__ import annotations

from dcm_ws.core.fates import HISTORY_MAX, fates
from dcm_ws.core.ledger_pages import LedgerEntry, entries_of

PAGE = b'{"clock":1000,"names":{"1":"ann"},"sent":[7,5,0],"audiences":[[1]]}'


def test_entries_that_come_twice_count_once() -> None:
    """
    They were written, and that seemed to fail; or two nodes say the same.
    """
    (fate,) = fates([*entries_of([PAGE], 7), *entries_of([PAGE], 7)])
    assert (fate.agent, fate.sends, fate.first_sent) == ("ann", 1, 1005)


def test_pages_that_cannot_be_read_are_left_out() -> None:
    """
    Somebody has written into the table by hand.
    """
    broken = [
        b"{",
        b'{"sent":[7,5,0],"audiences":[[2]]}',
        b'{"sent":[7,5,3]}',
        b'{"sent":[7,5]}',
        b'{"acked":{"positions":[7],"marks":[]}}',
    ]
    assert [fate.agent for fate in fates(entries_of([*broken, PAGE], 7))] == ["ann"]


def test_order_of_what_happened_in_one_millisecond() -> None:
    """
    What is redriven is sent after that, and what is acknowledged was sent before.
    """
    entries = [LedgerEntry(1, "ann", what) for what in ("acknowledged", "dead", "sent", "redriven")]
    (fate,) = fates(entries)
    assert [entry.what for entry in fate.history] == ["redriven", "sent", "dead", "acknowledged"]


def test_ack_that_settles_several_things_is_one() -> None:
    """
    An agent has acknowledged an event on two connections, or at two nodes.
    """
    (fate,) = fates(LedgerEntry(at, "ann", "acknowledged") for at in (3, 2))
    assert [entry.at for entry in fate.history] == [2]
    assert fate.acknowledged == 2


def test_history_is_limited() -> None:
    """
    An event that was sent very often has the beginning of its history, and its end; the numbers are of all of it.
    """
    (fate,) = fates(LedgerEntry(at, "ann", "sent") for at in range(1000))
    assert fate.sends == 1000
    assert len(fate.history) == HISTORY_MAX
    assert [entry.at for entry in fate.history][-2:] == [HISTORY_MAX - 2, 999]
    assert fate.state == "sent"
