"""
Sleeps that may end early, as they do when a connection is lost.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from dcm_ws.postgres.connection import DatabaseConnection


class Sleep:
    """
    The sleeps of one coroutine.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._sleep: Deferred[None] | None = None

    async def rest(self, seconds: float) -> None:
        """
        Sleep for so long, unless L{end} is called.
        """
        self._sleep = deferLater(self._reactor, seconds)
        with suppress(CancelledError):
            await self._sleep
        self._sleep = None

    def end(self) -> None:
        """
        End the sleep, if there is one.
        """
        if self._sleep is not None:
            self._sleep.cancel()

    def watch(self, connection: DatabaseConnection) -> list[str]:
        """
        From now on, the loss of C{connection} ends the sleep.

        @return: gets the reason when it is lost.
        """
        reasons: list[str] = []

        def lost(reason: str) -> None:
            reasons.append(reason)
            self.end()

        connection.lost = lost
        return reasons
