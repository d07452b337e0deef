"""
What tests need of the machine: time, free ports, an account that is not root, and programs of Debian.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 30.0
"""
Seconds that a test waits for anything before it fails; enough for a machine that does other work, too.
"""
ROOT = Path(__file__).parents[2]


def until(condition: Any, seconds: float = PATIENCE) -> None:
    """
    Wait for a condition that another process brings about.  Looking takes a fifth of the time, at most.
    """
    now = time.monotonic()
    end = now + seconds
    while not condition():
        looked, now = now, time.monotonic()
        assert now < end, "it did not happen in time"
        threading.Event().wait(min(max(0.02, 4 * (now - looked)), 0.5))
        now = time.monotonic()


def free_port() -> int:
    """
    A TCP port that nobody listens on now.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def unprivileged(*paths: Path) -> dict[str, Any]:
    """
    Arguments of C{subprocess} that run a program which refuses root as another account; none if the tests do not run as
    root.  The paths are given to that account.
    """
    if os.geteuid() != 0:
        return {}
    account = pwd.getpwnam("nobody")
    for path in paths:
        os.chown(path, account.pw_uid, account.pw_gid)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def debian_program(package: str, find: Callable[[], str | None]) -> str:
    """
    What C{find} finds, after the Debian package has been installed if needed.  If it cannot be installed, the test is
    skipped, except in CI.
    """
    found = find()
    if found is None:
        done = subprocess.run([ROOT / "scripts" / "install-debian", package], stderr=subprocess.PIPE, text=True)
        if done.returncode and not os.environ.get("CI"):
            pytest.skip(done.stderr.strip())
        assert done.returncode == 0, done.stderr
        found = find()
    assert found is not None
    return found


def debian_command(name: str) -> str:
    """
    The path of a Debian program that has the name of its package.
    """
    return debian_program(name, lambda: shutil.which(name, path=f"{os.defpath}:/usr/sbin"))
