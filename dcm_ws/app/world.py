"""
The clocks and the randomness of a real process.
"""

from __future__ import annotations

import secrets
import time

from dcm_ws.core.ids import base36
from dcm_ws.core.ports import World


def real_world() -> World:
    """
    The clocks and the source of randomness that every service uses outside tests.
    """
    return World(now=time.monotonic, wall_ms=_wall_ms, random=_random_base36)


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _random_base36(length: int) -> str:
    return base36(secrets.randbelow(36**length)).rjust(length, "0")
