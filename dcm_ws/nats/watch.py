"""
Watches a connection to a NATS server: pings, and ends a connection that is silent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from dcm_ws.nats.connection import NatsConnection

CONNECT_SECONDS = 3.0
"""
Seconds in which a server must have accepted the client.
"""

PING_SECONDS = 2.0
"""
Seconds between two pings.
"""

_SILENT_PINGS = 2
"""
Pings after which a connection on which nothing has come ends.
"""


@contextmanager
def watched(
    reactor: Any, connection: NatsConnection, probed: Callable[[float], object], now: Callable[[], float]
) -> Iterator[None]:
    """
    Watch a connection while the block runs.

    @param probed: called with the seconds that a ping took.
    @param now: monotonic seconds.
    """
    timer: Any = None
    silent = 0

    def check() -> None:
        if connection.was_accepted:
            look()
        else:
            connection.abort(f"no answer within {CONNECT_SECONDS:g} s")

    def look() -> None:
        nonlocal timer, silent
        silent = 0 if connection.alive else silent + 1
        if silent >= _SILENT_PINGS:
            connection.abort(f"no answer within {silent * PING_SECONDS:g} s")
            return
        connection.alive = False
        begun = now()
        connection.ping(lambda: probed(now() - begun))
        timer = reactor.callLater(PING_SECONDS, look)

    timer = reactor.callLater(CONNECT_SECONDS, check)
    try:
        yield
    finally:
        if timer.active():
            timer.cancel()
