"""
Log lines once a minute, in place of one for each event that may happen very often.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from dcm_ws.app.logs import Seldom, shown
from dcm_ws.core.counts import Counts
from dcm_ws.http.origins import Target

_log = Logger(namespace="dcm_ws.service.DCMService")


class Summary:
    """
    Logs how many deliveries were given up, and how many notifications were bad; and web pages that may not connect.

    @param counts: of the service.
    @param now: monotonic seconds.

    @ivar interval: seconds between two calls of L{write}.
    """

    interval = 60.0

    def __init__(self, counts: Counts, now: Callable[[], float]) -> None:
        self._counts = counts
        self._given_up = 0
        self._bad = 0
        self._why_bad = ""
        self._pages = Seldom(now, self.interval)

    def bad_notification(self, reason: str) -> None:
        """
        The database has sent a notification that is not an event.
        """
        self._why_bad = reason
        _log.debug("bad notification: {reason!a}", reason=reason)

    def page_refused(self, origin: str, target: Target) -> None:
        """
        A web page of C{origin} may not connect to C{target}.
        """
        held = self._pages.held_back()
        if held is not None:
            _log.warn(
                "a web page may not connect: its Origin {origin} is not allowed, and is not the Host {host};"
                " see --allowed-origin, --server-name and --trusted-proxy ({held} more in the last minute)",
                origin=shown(origin),
                host=shown(target.host),
                held=held,
            )

    def write(self) -> None:
        """
        Log the numbers since the last call, if there are any.
        """
        given_up_before, self._given_up = self._given_up, self._counts.deliveries.given_up
        bad_before, self._bad = self._bad, self._counts.events.bad_notifications
        given_up, bad = self._given_up - given_up_before, self._bad - bad_before
        if given_up:
            _log.warn("{n} deliveries given up in the last minute", n=given_up)
        if bad:
            _log.warn("{n} bad notifications in the last minute; the last one: {reason!a}", n=bad, reason=self._why_bad)
