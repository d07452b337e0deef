"""
What a C{postmaster.pid} says, which may be left behind: whether the server that wrote it still runs.
"""

from __future__ import annotations

import os
import re
from pathlib import Path


def has_ended(pid: str, cluster: Path) -> bool:
    """
    Is the process with this number certainly not the server of this data: another program, a server of other data, or
    a dead process that nobody has waited for, as may remain forever in a container?
    """
    # as pg_ctl reads it, which is to signal no other; that of a single-user server is negative
    number = re.match(r"\s*[+-]?0*([0-9]+)", pid)
    process = Path("/proc", number[1] if number else "none")
    try:
        head, _, rest = (process / "stat").read_text().rpartition(")")
        if rest.split()[0] in ("Z", "X") or not head.partition("(")[2].startswith("postgres"):
            return True
        status = cluster.stat()
        if process.stat().st_uid != status.st_uid:
            return True
        # a server stays in its data folder
        return not os.path.samestat((process / "cwd").stat(), status)
    except OSError:
        return False  # there is no such process, no such thing as /proc, or we may not look into it


def has_children(lines: list[str]) -> bool:
    """
    Do processes of the server that wrote these lines still use its shared memory?  A second server beside them would
    ruin the data.
    """
    words = lines[6].split() if len(lines) > 6 else []
    try:
        key, number = (int(word) for word in words)
        segments = [line.split() for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]]
    except (OSError, ValueError):
        return False
    # key, id, …, and seventh who is attached; the key, a signed number of 32 bits, comes from the data folder, while
    # after a reboot another server may have the same id
    return any(
        (int(segment[0]) - key) % 2**32 == 0 and int(segment[1]) == number and segment[6] != "0" for segment in segments
    )
