"""
Where commands keep what they have to remember.
"""

from __future__ import annotations

from pathlib import Path


def state_folder() -> Path:
    """
    The folder in which commands keep what they have to remember; it may not exist.
    """
    # 8 ms to import
    from platformdirs import user_state_path

    return user_state_path("dcm-ws", appauthor=False)
