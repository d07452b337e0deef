"""
Reports the state of the service to systemd, or to another service manager with the same protocol: sd_notify(3).

The reports are datagrams, sent without waiting: a service manager that does not read must not stop the service.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from twisted.logger import Logger

from dcm_ws.app.timers import every

_log = Logger(namespace="dcm_ws.tap")

_RETRY_SECONDS = 1.0


class ServiceManager:
    """
    Says when the service is ready, reads its secrets again, and stops; and while it lives, that it does.

    @param environment: C{NOTIFY_SOCKET}, C{WATCHDOG_USEC} and C{WATCHDOG_PID} are removed from it, so that processes
        that are started later do not report in the name of the service.
    @param pid: of this process.

    @ivar watchdog: seconds between two signs of life, half of what the service manager allows; None if it expects none.
    """

    def __init__(
        self,
        reactor: Any,
        environment: MutableMapping[str, str],
        pid: int,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reactor = reactor
        self._monotonic = monotonic
        self._ready = self._failing = False
        self._unsent = ""
        address = environment.pop("NOTIFY_SOCKET", "")
        self.watchdog = _watchdog(environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", ""), pid)
        self._address: str | None = None
        if address[:1] in ("/", "@"):
            # an abstract socket
            self._address = address.replace("@", "\0", 1) if address[0] == "@" else address
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)
        elif address:
            _log.warn("NOTIFY_SOCKET={address} is not a Unix socket: it is ignored", address=address)

    def start_watchdog(self) -> None:
        """
        From now on, send signs of life, if they are expected.  They are sent until the process ends, so that one that
        hangs while it stops is noticed, too.
        """
        if self._address is not None and self.watchdog is not None:
            every(self.watchdog, "the sign of life", lambda: self._send("WATCHDOG=1"), self._reactor).startService()

    def ready(self) -> None:
        """
        The service serves clients.
        """
        self._ready = True
        self._report("READY=1", "STATUS=serving clients")

    @contextmanager
    def reload(self) -> Iterator[None]:
        """
        The service reads its secrets again while this lasts.
        """
        if self._ready:
            self._report("RELOADING=1", f"MONOTONIC_USEC={int(self._monotonic() * 1e6)}")
        try:
            yield
        finally:
            # a service that is not ready yet must not become so
            if self._ready:
                self.ready()

    def stopping(self, seconds: float) -> None:
        """
        The service stops.

        @param seconds: how long that may take.
        """
        self._ready = False
        self._report("STOPPING=1", "STATUS=draining clients", f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def _report(self, *variables: str) -> None:
        waiting, self._unsent = self._unsent, "\n".join(variables)
        if not waiting:
            self._send_report()

    def _send_report(self) -> None:
        """
        Send the last report; later, if the service manager does not read.
        """
        if self._send(self._unsent):
            self._unsent = ""
        else:
            self._reactor.callLater(_RETRY_SECONDS, self._send_report)

    def _send(self, text: str) -> bool:
        """
        Returns False if there is no room for the datagram now.
        """
        if self._address is None:
            return True
        try:
            self._socket.sendto(text.encode(), self._address)
        except BlockingIOError:
            return False
        except OSError as error:
            if not self._failing:
                _log.warn("the service manager cannot be notified: {error}", error=error)
            self._failing = True
        else:
            self._failing = False
        return True


def _watchdog(microseconds: str, of: str, pid: int) -> float | None:
    """
    @param of: the process from which signs of life are expected; every process that is started if it is empty.
    """
    if not microseconds.isdecimal() or int(microseconds) == 0 or of not in ("", str(pid)):
        return None
    return int(microseconds) / 2e6
