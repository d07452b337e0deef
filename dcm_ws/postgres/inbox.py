"""
The inbox of the listener: notifications that have arrived and are not published yet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from dcm_ws.postgres.listen_connection import ListenConnection

# an operator may filter by this name
_log = Logger(namespace="dcm_ws.listener.NotifyListener")

INBOX_MAX = 10_000
"""
Notifications that may wait to be published.  Beyond that, the connection is not read until most of them are published.
"""

_LOW = INBOX_MAX // 10
_SLICE_SECONDS = 0.005
_SLICE_CHECK = 16


class Inbox:
    """
    Publishes notifications in order, for a few milliseconds in each turn of the reactor.

    @param heard: called with each payload; an exception of it is logged.
    @param together: calls what it is given, and then writes the events that this published.
    @param written: called with the seconds from the arrival of notifications until their events were written, and with
        the number of these notifications.
    @param now: monotonic seconds.

    @ivar source: the connection to pause while too many wait; None if there is none.
    @ivar received: how many notifications have arrived.
    @ivar pauses: how often the connection was paused.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        heard: Callable[[str], object],
        together: Callable[[Callable[[], object]], object],
        written: Callable[[float, int], object],
        now: Callable[[], float],
    ) -> None:
        self._reactor = reactor
        self._heard = heard
        self._together = together
        self._written = written
        self._now = now
        self._waiting: deque[str] = deque()
        self._arrived_at = 0.0
        self._arrived = 0
        self._publishing = False
        self.source: ListenConnection | None = None
        self.received = 0
        self.pauses = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def receive(self, payloads: list[str]) -> None:
        """
        Take what has arrived in one read.
        """
        self.received += len(payloads)
        if not self._arrived:
            self._arrived_at = self._now()
        self._arrived += len(payloads)
        self._waiting.extend(payloads)
        if len(self._waiting) > INBOX_MAX and self.source is not None:
            self.source.paused = True
            self.pauses += 1
        if not self._publishing:
            self._publish()

    def _publish(self) -> None:
        self._together(self._slice)
        source = self.source
        if source is not None and source.paused and len(self._waiting) <= _LOW:
            source.resume()
        self._publishing = bool(self._waiting)
        if self._publishing:
            self._reactor.callLater(0, self._publish)
        else:
            arrived, self._arrived = self._arrived, 0
            self._written(self._now() - self._arrived_at, arrived)

    def _slice(self) -> None:
        waiting, heard = self._waiting, self._heard
        until = self._now() + _SLICE_SECONDS
        count = 0
        while waiting:
            try:
                heard(waiting.popleft())
            except Exception:
                _log.failure("a notification could not be published")
            count += 1
            if count % _SLICE_CHECK == 0 and self._now() >= until:
                break
