"""
The time between the signal to stop and the closing of connections, in which load balancers notice.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.task import deferLater
from twisted.logger import Logger

# as of the service: an operator may filter by this name
_log = Logger(namespace="dcm_ws.service.DCMService")


class DrainDelay:
    """
    Passes once, and may be skipped.

    @param seconds: how long it is.
    """

    def __init__(self, reactor: Any, seconds: float) -> None:
        self._reactor = reactor
        self._seconds = seconds
        self._passing: Any = None

    async def passed(self) -> None:
        """
        Wait until it has passed, or is skipped.
        """
        if not self._seconds:
            return
        _log.info("about to stop: clients are accepted for {seconds:g} s more", seconds=self._seconds)
        self._passing = deferLater(self._reactor, self._seconds)
        try:
            await self._passing
        except CancelledError:
            _log.info("the drain delay is skipped")
        self._seconds = 0.0

    def skip(self) -> bool:
        """
        Have it pass at once, also if it has not begun.  False if there is none, or it has passed.

        This may be called by a signal handler.
        """
        if not self._seconds:
            return False
        self._seconds = 0.0
        self._reactor.callFromThread(self._cancel)
        return True

    def _cancel(self) -> None:
        if self._passing is not None:
            self._passing.cancel()
