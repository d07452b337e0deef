"""
Where commands keep what they have to remember.
"""

from __future__ import annotations

import os
import sys
from os.path import isabs
from pathlib import Path


def state_folder() -> Path:
    """
    The folder in which commands keep what they have to remember; it may not exist.
    """
    state, home = (os.environ.get(name, "") for name in ("XDG_STATE_HOME", "HOME"))
    if sys.platform == "linux" and isabs(state or home):
        # what platformdirs says, which takes 8 ms to import
        return Path(state or f"{home}/.local/state") / "dcm-ws"
    from platformdirs import user_state_path

    return user_state_path("dcm-ws", appauthor=False)
