"""
The ids that the service gives: unique across servers and restarts without asking anyone.
"""

from __future__ import annotations

from dcm_ws.core.ports import World

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def base36(number: int) -> str:
    """
    Return a number that is not negative in the digits C{0-9a-z}.
    """
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits or "0"


def client_id(world: World) -> str:
    """
    Return the id of a client that connects now.
    """
    return f"ws_{base36(world.wall_ms())}_{world.random(8)}"


def event_prefix(world: World) -> str:
    """
    Return what the ids of all events of this run begin with; the number of the event follows.
    """
    return f"msg_{base36(world.wall_ms())}{world.random(12)}_"
