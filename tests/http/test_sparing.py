"""
Results that are reused if they are asked for too often.
"""

from __future__ import annotations

from twisted.internet.task import Clock

from dcm_ws.http.sparing import Sparing


def test_sparing(clock: Clock) -> None:
    """
    Results are new if they are asked for now and then; if they are asked for all the time, ten are made a second.
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
    Results are kept for a limited number of keys.
    """
    sparing: Sparing[int, int] = Sparing(lambda key: key, clock.seconds, most=1)
    for number in range(100):
        assert sparing(number) == number
    assert len(sparing._last._results) <= 8
