"""
Who holds how much of messages that are not complete.
"""

from __future__ import annotations

from dcm_ws.core.counters import Count
from dcm_ws.http.partial import PartialMessages


def test_largest_goes() -> None:
    """
    Over the limit the one that holds most has to go, and of several the first.
    """
    crowded_out = Count()
    partial: PartialMessages[str] = PartialMessages(100, crowded_out)
    assert partial.hold("ann", 40, stranger=False) is None
    assert partial.hold("bob", 40, stranger=False) is None
    assert partial.hold("cy", 30, stranger=False) == "ann"
    assert partial.hold("ann", 0, stranger=False) is None
    assert partial.hold("cy", 70, stranger=False) == "cy"
    assert (partial.total, crowded_out.value) == (110, 2)
    for name in ("cy", "bob", "nobody"):
        assert partial.hold(name, 0, stranger=False) is None
    assert partial.total == 0


def test_strangers_have_a_small_part() -> None:
    """
    Those who have not authenticated crowd each other out, and nobody else; who authenticates is no stranger any more.
    """
    partial: PartialMessages[str] = PartialMessages(800, Count())
    assert partial.hold("agent", 600, stranger=False) is None
    assert partial.hold("one", 60, stranger=True) is None
    assert partial.hold("two", 50, stranger=True) == "one"
    assert partial.hold("one", 0, stranger=True) is None
    assert partial.hold("two", 50, stranger=False) is None
    assert partial.hold("three", 100, stranger=True) is None
    assert partial.hold("three", 0, stranger=False) is None
    assert partial.total == 650
