"""
What the clients for asyncio and for Twisted have alike: what can be seen of them, and who watches.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar

from dcm_ws.client.core import ClientCore, State
from dcm_ws.client.errors import DCMError

_T = TypeVar("_T")

REPEATED = 60.0
"""
Seconds in which the same failure of the connection is logged as a warning only once.
"""


class Client(ABC):
    """
    @ivar state: what it is doing.
    @ivar last_close: the code and the reason of the last close, or why there was no connection.
    @ivar last_error: the exception with which the last attempt to connect failed; None if it was closed otherwise.
    """

    def __init__(self, core: ClientCore) -> None:
        self.state = State.IDLE
        self.last_close: tuple[int | None, str] | None = None
        self.last_error: BaseException | None = None
        self._logged = ""
        self._logged_at = 0.0
        self._core = core
        self._state_watchers: list[Callable[[State], object]] = []
        self._error_watchers: list[Callable[[DCMError], object]] = []

    @property
    def agent_id(self) -> str | None:
        """
        Who the server takes it for.
        """
        return self._core.agent_id

    @property
    def ended(self) -> str:
        """
        How the last connection ended, or why there was none; empty while there is one, and before the first.
        """
        return self._core.ended

    @property
    def channels(self) -> list[str]:
        """
        What it is, or will be, subscribed to.
        """
        return list(self._core.subscriptions.channels)

    def on_state(self, watcher: Callable[[State], object]) -> Callable[[], None]:
        """
        Call C{watcher} with each new state; answers what ends that.
        """
        return _join(self._state_watchers, watcher)

    def on_error(self, watcher: Callable[[DCMError], object]) -> Callable[[], None]:
        """
        Call C{watcher} with each error that nobody waits for: what the server says by itself, and, after connecting,
        each subscription that it refuses.  Without a watcher they are logged.  Answers what ends it.
        """
        return _join(self._error_watchers, watcher)

    def _become(self, state: State) -> None:
        if state is not self.state:
            self.state = state
            self._tell(self._state_watchers, state)

    def _lost(self, text: str, delay: float | None, now: float) -> None:
        """
        Log why there is no connection.  The same reason again is of interest only once in L{REPEATED}.

        @param delay: seconds until the next attempt; None where there is none.
        @param now: monotonic seconds.
        """
        repeated = text == self._logged and now - self._logged_at < REPEATED
        if not repeated:
            self._logged, self._logged_at = text, now
        then = "it will not connect again" if delay is None else f"next attempt in {delay:.1f} s"
        (self._debug if repeated else self._warn)(f"{text}; {then}")

    def _complain(self, error: DCMError) -> None:
        if self._error_watchers:
            self._tell(self._error_watchers, error)
        else:
            self._warn(str(error))

    def _tell(self, watchers: list[Callable[[_T], object]], value: _T) -> None:
        for watcher in list(watchers):
            try:
                watcher(value)
            except Exception:
                # it must keep neither the others from hearing, nor the client from going on
                self._report("a watcher of the client failed")

    @abstractmethod
    def _warn(self, text: str) -> None:
        """
        Log C{text}.
        """

    @abstractmethod
    def _debug(self, text: str) -> None:
        """
        Log C{text} for those who look closely.
        """

    @abstractmethod
    def _report(self, text: str) -> None:
        """
        Log C{text} with the exception that is being handled.
        """


def _join(watchers: list[_T], watcher: _T) -> Callable[[], None]:
    watchers.append(watcher)

    def leave() -> None:
        if watcher in watchers:
            watchers.remove(watcher)

    return leave
