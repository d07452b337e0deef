"""
What a forked process takes over from the one that has asked for it.
"""

from __future__ import annotations

import os


def current_umask() -> int:
    """
    The umask of this process.
    """
    # reading it takes setting it
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


def take_over(env: dict[str, str], folder: str, umask: int) -> None:
    """
    Have this environment, working directory and umask.
    """
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    os.umask(umask)
