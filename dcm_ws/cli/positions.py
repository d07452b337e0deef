"""
The files in which C{dcm-ws wait --since last} keeps its positions.
"""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import suppress
from pathlib import Path

import click

KEEP_SECONDS = 30 * 86_400
"""
Seconds after which a position that nobody has used is removed; no log keeps events for that long by default.
"""


def state_folder() -> Path:
    """
    The folder in which commands keep what they have to remember; it may not exist.
    """
    # 8 ms to import
    from platformdirs import user_state_path

    return user_state_path("dcm-ws", appauthor=False)


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


def _remove_old(folder: Path) -> None:
    oldest = time.time() - KEEP_SECONDS
    with suppress(OSError):
        for file in folder.iterdir():
            if file.stat().st_mtime < oldest:
                file.unlink()
