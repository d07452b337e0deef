"""
The files in which C{dcm-ws wait --since last} keeps its positions.
"""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from dcm_ws.cli.folders import state_folder
from dcm_ws.client.storage import PositionFile, read

KEEP_SECONDS = 30 * 86_400
"""
Seconds after which a position that nobody has used is removed; no log keeps events for that long by default.
"""


def position_file(*what: object) -> Path:
    """
    The file with the position of all waits that wait for the same; others that have not been used for long are removed.

    @param what: what they have in common, which JSON can represent.
    @raise click.ClickException: there can be no such file.
    """
    folder = state_folder() / "wait"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise click.ClickException(f"cannot make the folder for positions {str(folder)!r}: {error.strerror}") from None
    _remove_old(folder)
    name = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:32]
    return folder / f"{name}.json"


class LastPosition:
    """
    Where the last wait ended, as a position store of a client.  The client begins there with C{since}, and not with the
    store: if the log does not have all that follows any more, it gets what there is, after the gap.

    @param path: of the file.
    @raise PositionError: it cannot be used.

    @ivar since: C{EPOCH.POS}; None before the first wait.
    """

    def __init__(self, path: Path) -> None:
        self._file = PositionFile(path)
        state = self._file.load()
        self.since = None
        if state is not None and (saved := read(state)).channels:
            self.since = f"{saved.epoch}.{min(saved.channels.values())}"

    def load(self) -> None:
        """
        The client has got the position already.
        """

    def save(self, state: dict[str, Any]) -> None:
        """
        Keep the position of the client.
        """
        self._file.save(state)

    def close(self) -> None:
        """
        Let other waits use the file.
        """
        self._file.close()


def _remove_old(folder: Path) -> None:
    oldest = time.time() - KEEP_SECONDS
    with suppress(OSError):
        for file in folder.iterdir():
            if file.stat().st_mtime < oldest:
                file.unlink()
