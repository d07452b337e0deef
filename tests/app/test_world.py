"""
The clocks and the randomness of a real process.
"""

from __future__ import annotations

import time

from dcm_ws.app.world import real_world


def test_clocks() -> None:
    """
    One clock is monotonic, in seconds; the other one shows the time of day, in milliseconds.
    """
    world = real_world()
    now, wall_ms = world.now(), world.wall_ms()
    assert 0 <= time.monotonic() - now < 60
    assert 0 <= time.time() * 1000 - wall_ms < 60_000


def test_random_strings() -> None:
    """
    Random strings have the length that is asked for, hold base-36 digits, and differ.
    """
    world = real_world()
    strings = {world.random(12) for _ in range(100)}
    assert len(strings) == 100
    assert {len(text) for text in strings} == {12}
    assert set("".join(strings)) <= set("0123456789abcdefghijklmnopqrstuvwxyz")
