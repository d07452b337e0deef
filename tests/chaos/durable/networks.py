"""
Network namespaces: one for the whole test, and one for each service in it, which has a link of its own to everything
that it talks to.  What is sent over a link that is cut is lost, in both directions, and nobody is told.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence

LINKS = ("control", "clients", "database", "nats")
"""
Over the first one the test asks the service for its state; it is never cut.
"""

ADMITTED = "10.0.0.0/8"
"""
Where all addresses of services are.
"""

_VARIABLE = "DCM_WS_TEST_NETWORK"
_FOLDER = "/run/netns"
_TRY = "ip link add name dcmws-a type veth peer name dcmws-b"


def isolate() -> None:
    """
    Run this program again in a network namespace of its own, which ends with it.  If namespaces cannot be made, nothing
    happens.
    """
    if is_isolated():
        prepare()
    elif can_isolate():
        command, variables = isolated(sys.orig_argv)
        os.execvpe(command[0], command, variables)


def can_isolate() -> bool:
    """
    Can namespaces be made here?
    """
    if shutil.which("ip") is None or shutil.which("unshare") is None:
        return False
    tried = subprocess.run(["unshare", "--net", "--mount", "sh", "-c", _TRY], capture_output=True)
    return tried.returncode == 0


def isolated(command: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """
    The command, and the environment, with which a program runs in a network namespace of its own.
    """
    return ["unshare", "--net", "--mount", *command], os.environ | {_VARIABLE: "own"}


def is_isolated() -> bool:
    """
    Does this program have a network namespace of its own?
    """
    return os.environ.get(_VARIABLE) == "own"


def prepare() -> None:
    """
    Make the namespace of the test usable, in which there is nothing yet.
    """
    _run("ip", "link", "set", "lo", "up")
    os.makedirs(_FOLDER, exist_ok=True)
    # the names of the other namespaces end with this program, too
    _run("mount", "-t", "tmpfs", "dcm-ws-chaos", _FOLDER)


class Place:
    """
    Where a service runs.

    @param number: from 1 on.
    @param own: in a namespace of its own.
    @ivar prefix: what its command begins with.
    @ivar interface: what it listens on.
    """

    def __init__(self, number: int, *, own: bool) -> None:
        self._number = number
        self.own = own
        self._namespace = f"node{number}"
        self.prefix = ["ip", "netns", "exec", self._namespace] if own else []
        self.interface = "0.0.0.0" if own else "127.0.0.1"

    def make(self) -> None:
        """
        Make its namespace and its links.
        """
        if not self.own:
            return
        _run("ip", "netns", "add", self._namespace)
        inside = ("ip", "-n", self._namespace)
        _run(*inside, "link", "set", "lo", "up")
        for link in LINKS:
            ours, theirs = self._device(link), link
            _run("ip", "link", "add", "name", ours, "type", "veth", "peer", "name", theirs, "netns", self._namespace)
            _run("ip", "addr", "add", f"{self.outside(link)}/30", "dev", ours)
            _run(*inside, "addr", "add", f"{self.inside(link)}/30", "dev", theirs)
            _run("ip", "link", "set", ours, "up")
            _run(*inside, "link", "set", theirs, "up")

    def remove(self) -> None:
        """
        Remove both.
        """
        if self.own:
            subprocess.run(["ip", "netns", "del", self._namespace], stderr=subprocess.DEVNULL)

    def inside(self, link: str) -> str:
        """
        The address of the service on a link.
        """
        return f"10.{self._number}.{LINKS.index(link)}.2" if self.own else "127.0.0.1"

    def outside(self, link: str) -> str:
        """
        The address at which the service finds what is at the other end of a link.
        """
        return f"10.{self._number}.{LINKS.index(link)}.1" if self.own else "127.0.0.1"

    def cut(self, *links: str) -> None:
        """
        Lose all that is sent over these links from now on.
        """
        for link in links:
            _run("ip", "link", "set", self._device(link), "down")

    def repair(self, *links: str) -> None:
        """
        Lose nothing any more.
        """
        for link in links:
            _run("ip", "link", "set", self._device(link), "up")

    def _device(self, link: str) -> str:
        return f"{self._namespace}-{link}"


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
