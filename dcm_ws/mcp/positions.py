"""
Up to where the agents have read whose clients come over HTTP: a later session of an agent goes on there.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

from dcm_ws.client.storage import PositionFile, PositionStore

KEPT_MAX = 1_000
"""
Positions in memory; beyond that, the one that was used least lately is forgotten.
"""


class Positions:
    """
    The positions of agents.

    @param folder: where they are kept, in a file each; None to keep them in memory.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._kept: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._used: set[str] = set()

    def take(self, agent: str, channels: list[str]) -> PositionStore | None:
        """
        The place for the position of an agent with these channels; None if another session uses it.
        """
        key = hashlib.sha256(json.dumps([agent, sorted(set(channels))]).encode()).hexdigest()[:32]
        if key in self._used:
            return None
        return _Place(self, key)

    # for its places

    def load(self, key: str) -> dict[str, Any] | None:
        """
        A position in memory.
        """
        return self._kept.get(key)

    def save(self, key: str, state: dict[str, Any]) -> None:
        """
        Keep a position in memory.
        """
        self._kept[key] = state
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)

    def use(self, key: str) -> PositionFile | None:
        """
        From now on only one session may use a position; returns its file, if there are any.
        """
        self._used.add(key)
        return None if self._folder is None else PositionFile(self._folder / f"{key}.json")

    def leave(self, key: str) -> None:
        """
        Another session may use a position.
        """
        self._used.discard(key)


class _Place:
    """
    The place for one position.
    """

    def __init__(self, positions: Positions, key: str) -> None:
        self._positions = positions
        self._key = key
        self._file = positions.use(key)

    def load(self) -> dict[str, Any] | None:
        return self._positions.load(self._key) if self._file is None else self._file.load()

    def save(self, state: dict[str, Any]) -> None:
        if self._file is None:
            self._positions.save(self._key, state)
        else:
            self._file.save(state)

    def close(self) -> None:
        """
        Let another session use it.
        """
        if self._file is not None:
            self._file.close()
        self._positions.leave(self._key)
