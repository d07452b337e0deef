"""
The file C{postmaster.pid} of a cluster: what it says of the server that wrote it, and whether that server still runs.
"""

from __future__ import annotations

import os
import re
from pathlib import Path


def read_lines(cluster: Path) -> list[str]:
    """
    Returns the lines of the cluster's C{postmaster.pid}; the first one is the process number.  Without the file there
    are none.
    """
    try:
        return (cluster / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return []


def ready_port(lines: list[str]) -> int | None:
    """
    Returns the server's port; None until the server accepts connections.
    """
    return int(lines[3]) if len(lines) > 7 and lines[7].startswith("ready") else None


def has_ended(pid: str, cluster: Path) -> bool:
    """
    Whether the process with this number is certainly not the server of this cluster: it is another program, a server of
    another cluster, or a zombie, which may remain indefinitely in a container.
    """
    # read as pg_ctl does, which must signal the same process; the number of a single-user server is negative
    number = re.match(r"\s*[+-]?0*([0-9]+)", pid)
    process = Path("/proc", number[1] if number else "none")
    try:
        head, _, rest = (process / "stat").read_text().rpartition(")")
        if rest.split()[0] in ("Z", "X") or not head.partition("(")[2].startswith("postgres"):
            return True
        status = cluster.stat()
        if process.stat().st_uid != status.st_uid:
            return True
        # the working directory of a server is its cluster
        return not os.path.samestat((process / "cwd").stat(), status)
    except OSError:
        return False  # there is no such process or no /proc, or this account may not read it


def has_children(lines: list[str]) -> bool:
    """
    Whether processes of the server that wrote these lines still use its shared memory.  A second server would then
    corrupt the data.
    """
    words = lines[6].split() if len(lines) > 6 else []
    try:
        key, number = (int(word) for word in words)
        segments = [line.split() for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]]
    except (OSError, ValueError):
        return False
    # the columns are key, id, …, and the seventh is the number of attached processes; the key, a signed number of 32
    # bits, comes from the data folder, while after a reboot another server may have the same id
    return any(
        (int(segment[0]) - key) % 2**32 == 0 and int(segment[1]) == number and segment[6] != "0" for segment in segments
    )
