"""
Where a client keeps its position, so that its program goes on there after a restart.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dcm_ws.client.errors import DCMError
from dcm_ws.client.gaps import number_of

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows has no such locks
    fcntl = None  # type: ignore[assignment]

SAVE_SECONDS = 1.0
"""
Seconds between two looks whether the position has changed and is to be stored.
"""

_SIZE_MAX = 4 << 20


class PositionError(DCMError):
    """
    The stored position cannot be used.
    """

    code = "POSITION"


class PositionStore(Protocol):
    """
    Keeps the position of one client: of one agent, at one server.
    """

    def load(self) -> dict[str, Any] | None:
        """
        What was saved last; None if nothing was.  Called each time that the client is started.
        """

    def save(self, state: dict[str, Any]) -> object:
        """
        Keep C{state}, which JSON can represent.  Called about once a second while the position changes, and when the
        client is closed.
        """


@dataclass(frozen=True, slots=True)
class Saved:
    """
    A stored position.

    @ivar epoch: the log that the positions are of.
    @ivar channels: the position in each channel.
    @ivar own: those of the channels that the user had not asked for, such as the agent's own.
    @ivar agent: the agent that the client was connected as; None without one.
    """

    epoch: str
    channels: dict[str, int]
    own: frozenset[str] = frozenset()
    agent: str | None = None

    def as_json(self) -> dict[str, Any]:
        """
        As a store keeps it.
        """
        return {"epoch": self.epoch, "agent": self.agent, "channels": self.channels, "own": sorted(self.own)}


def read(state: object) -> Saved:
    """
    A stored position.

    @raise ValueError: it is not one.
    """
    if not isinstance(state, dict):
        raise ValueError("it is not a JSON object")
    epoch, channels = state.get("epoch"), state.get("channels")
    own, agent = state.get("own", []), state.get("agent")
    if not isinstance(epoch, str) or not epoch:
        raise ValueError("it has no epoch")
    if not isinstance(channels, dict) or any(number_of(pos) is None for pos in channels.values()):
        raise ValueError("it has no channels with their positions")
    if not isinstance(own, list) or not isinstance(agent, str | None):
        raise ValueError("its agent or its own channels are not text")
    return Saved(epoch, channels, frozenset(map(str, own)), agent)


class PositionFile:
    """
    Keeps a position in a file, which is replaced as a whole each time.  While a client uses it, it holds a lock on a
    file of the same name with C{.lock} added, so that no other client uses it at the same time.

    @param path: of the file, in a folder that exists.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._lock: int | None = None

    def load(self) -> dict[str, Any] | None:
        """
        What was saved last; None if there is no file, or an empty one.

        @raise PositionError: the file cannot be read, does not hold a position, or another client uses it.
        """
        self._take_lock()
        try:
            with self._path.open("rb") as file:
                text = file.read(_SIZE_MAX)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise PositionError(f"the position cannot be read: {error}") from None
        if not text:
            return None
        try:
            state: dict[str, Any] = json.loads(text)
            read(state)
        except (ValueError, RecursionError) as error:
            raise PositionError(
                f"{self._path} does not hold the position of a client: {error}; "
                "name another file, or remove this one to begin with new events"
            ) from None
        return state

    def save(self, state: dict[str, Any]) -> None:
        """
        Replace the file.

        @raise OSError: it cannot be written; then the former one stays.
        """
        text = json.dumps(state).encode()
        draft = self._path.with_name(f"{self._path.name}.{os.getpid()}.new")
        try:
            with draft.open("wb") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._path)
        except BaseException:
            with suppress(OSError):
                draft.unlink()
            raise

    def close(self) -> None:
        """
        Let other clients use the file.
        """
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    def _take_lock(self) -> None:
        if self._lock is not None or fcntl is None:
            return
        path = f"{self._path}.lock"
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise PositionError(f"the position cannot be locked: {error}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise PositionError(f"{self._path} is in use by another client; each needs a file of its own") from None
        self._lock = lock


class Keeper:
    """
    Loads and saves the position of a client that has a store.

    @param store: a store, or the path of a file.
    @param warn: called with the text of a warning.
    """

    def __init__(self, store: PositionStore | str | os.PathLike[str], warn: Callable[[str], object]) -> None:
        self._store: PositionStore = PositionFile(store) if isinstance(store, str | os.PathLike) else store
        self._warn = warn
        self._last: dict[str, Any] | None = None
        self._failed = False

    def load(self, agent: str | None) -> Saved | None:
        """
        The stored position; None if there is none.

        @param agent: the agent that the client connects as; None if it is not known yet.
        @raise PositionError: it cannot be used.
        """
        state = self._store.load()
        if state is None:
            return None
        try:
            saved = read(state)
        except ValueError as error:
            self.close()
            raise PositionError(f"the stored position cannot be used: {error}") from None
        if agent is not None and saved.agent is not None and agent != saved.agent:
            self.close()
            raise PositionError(
                f"the stored position is that of the agent {saved.agent!r}, not of {agent!r}; each needs its own"
            )
        self._last = state
        return saved

    def save(self, saved: Saved) -> None:
        """
        Store a position, unless it has been stored already.
        """
        state = saved.as_json()
        if state == self._last:
            return
        try:
            self._store.save(state)
        except Exception as error:
            if not self._failed:
                self._warn(f"the position cannot be stored: {error}; the client tries again")
            self._failed = True
        else:
            self._last = state
            self._failed = False

    def close(self) -> None:
        """
        The client is closed.
        """
        close = getattr(self._store, "close", None)
        if close is not None:
            close()
