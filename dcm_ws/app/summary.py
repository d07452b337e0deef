"""
Log lines once a minute, in place of one for each event that may happen very often.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from dcm_ws.app.logs import Seldom, shown
from dcm_ws.core.hub import Hub
from dcm_ws.http.origins import Target

_log = Logger(namespace="dcm_ws.service.DCMService")


class Summary:
    """
    Counts deliveries that were given up, bad notifications and refused web pages, and logs their numbers.

    @param now: monotonic seconds.

    @ivar interval: seconds between two calls of L{write}.
    """

    interval = 60.0

    def __init__(self, hub: Hub, now: Callable[[], float]) -> None:
        self._hub = hub
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
        given_up, self._given_up = self._hub.given_up - self._given_up, self._hub.given_up
        bad, self._bad = self._hub.bad_notifications - self._bad, self._hub.bad_notifications
        if given_up > 0:
            _log.warn("{n} deliveries given up in the last minute", n=given_up)
        if bad:
            _log.warn("{n} bad notifications in the last minute; the last one: {reason!a}", n=bad, reason=self._why_bad)
