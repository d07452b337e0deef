"""
The state of a client's connection: who watches it, and what is logged about it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar

from dcm_ws.client.core import State
from dcm_ws.client.errors import DCMError
from dcm_ws.client.gaps import Gap

_T = TypeVar("_T")

REPEATED = 60.0
"""
Seconds in which the same failure of the connection is logged as a warning only once.
"""


class Status(ABC):
    """
    What a client shows of its connection.

    @ivar state: what it is doing.
    @ivar last_close: the code and the reason of the last close, or why there was no connection.
    @ivar last_error: the exception with which the last attempt to connect failed (asyncio only); None if it was closed
        otherwise.
    @ivar gaps: number of gaps since the start.
    @ivar last_gap: the last of them; None if there was none.
    @ivar retry_at: when it connects again (seconds since the epoch); None unless C{waiting}.
    """

    def __init__(self) -> None:
        self.state = State.IDLE
        self.last_close: tuple[int | None, str] | None = None
        self.last_error: BaseException | None = None
        self.retry_at: float | None = None
        self.gaps = 0
        self.last_gap: Gap | None = None
        self._logged = ""
        self._logged_at = 0.0
        self._state_watchers: list[Callable[[State], object]] = []
        self._error_watchers: list[Callable[[DCMError], object]] = []
        self._gap_watchers: list[Callable[[Gap], object]] = []

    def on_state(self, watcher: Callable[[State], object]) -> Callable[[], None]:
        """
        Call C{watcher} with each new state.

        @return: a function that stops it.
        """
        return _add(self._state_watchers, watcher)

    def on_error(self, watcher: Callable[[DCMError], object]) -> Callable[[], None]:
        """
        Call C{watcher} with each error that no pending call can report: errors that answer no request, and
        subscriptions that are refused while the client is connecting.  Without a watcher they are logged.

        @return: a function that stops it.
        """
        return _add(self._error_watchers, watcher)

    def on_gap(self, watcher: Callable[[Gap], object]) -> Callable[[], None]:
        """
        Call C{watcher} with each L{Gap}: events that the client does not receive.  Without a watcher, and without a
        stream that has gaps, they are logged as warnings.

        @return: a function that stops it.
        """
        return _add(self._gap_watchers, watcher)

    def _become(self, state: State) -> None:
        if state is self.state:
            return
        self.state = state
        if state is not State.WAITING:
            self.retry_at = None
        self._notify(self._state_watchers, state)

    def _complain(self, error: DCMError) -> None:
        if self._error_watchers:
            self._notify(self._error_watchers, error)
        else:
            self._warn(str(error))

    def _skipped(self, gap: Gap, *, is_known: bool) -> None:
        """
        @param is_known: a stream has the gap.
        """
        self.gaps += 1
        self.last_gap = gap
        if self._gap_watchers:
            self._notify(self._gap_watchers, gap)
        elif not is_known:
            self._warn(str(gap))

    def _notify(self, watchers: list[Callable[[_T], object]], value: _T) -> None:
        for watcher in list(watchers):
            try:
                watcher(value)
            except Exception:
                # the other watchers and the client itself go on
                self._report("a watcher of the client failed")

    def _log_end(self, text: str, delay: float | None, now: float) -> None:
        """
        Log why there is no connection.  The same reason is logged as a warning only once in L{REPEATED} seconds.

        @param delay: seconds until the next attempt; None if there will be none.
        @param now: monotonic seconds.
        """
        repeated = text == self._logged and now - self._logged_at < REPEATED
        if not repeated:
            self._logged, self._logged_at = text, now
        then = "it will not connect again" if delay is None else f"next attempt in {delay:.1f} s"
        (self._debug if repeated else self._warn)(f"{text}; {then}")

    @abstractmethod
    def _warn(self, text: str) -> None:
        """
        Log a warning.
        """

    @abstractmethod
    def _debug(self, text: str) -> None:
        """
        Log C{text} at level debug.
        """

    @abstractmethod
    def _report(self, text: str) -> None:
        """
        Log an error with the exception that is being handled.
        """


def _add(watchers: list[_T], watcher: _T) -> Callable[[], None]:
    watchers.append(watcher)

    def remove() -> None:
        if watcher in watchers:
            watchers.remove(watcher)

    return remove
