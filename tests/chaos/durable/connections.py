"""
What all WebSocket clients of the test have in common.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.integration.tokens import SECRET, make_token

OPTIONS: dict[str, Any] = {"compression": None, "ping_interval": None, "proxy": None, "close_timeout": 2}
RETRY = 0.1
"""
Seconds after which a client tries again that could not connect.
"""


@dataclass(frozen=True, slots=True)
class Address:
    """
    Where the service is, or a node of a cluster.

    @ivar node: its name.
    """

    host: str
    port: int
    node: str

    def url(self, agent: str, *, session: str | None = None, observer: bool = False) -> str:
        """
        The URL for an agent that authenticates with its handshake.
        """
        mark = "&observer=1" if observer else ""
        return f"{self.bare()}?token={token(agent, session)}{mark}"

    def bare(self) -> str:
        """
        The URL for a client that authenticates later.
        """
        return f"ws://{self.host}:{self.port}/"


class LoadBalancer:
    """
    Sends each connection to one of the nodes, at random.

    @ivar out: the names of nodes that get no connections, as long as there are others.
    @ivar behind: the name of a node that gets the connections of all observers, because they have read more of the log
        than it has; empty for none.
    """

    def __init__(self, addresses: Sequence[Address], seed: int) -> None:
        self._addresses = addresses
        self._random = random.Random(f"{seed} load balancer")
        self.out: set[str] = set()
        self.behind = ""

    def pick(self, *, observes: bool = False) -> Address:
        """
        Where the next connection goes.

        @param observes: it is that of an observer.
        """
        for address in self._addresses:
            if observes and address.node == self.behind:
                return address
        there = [address for address in self._addresses if address.node not in self.out]
        return self._random.choice(there or self._addresses)


def token(agent: str, session: str | None = None) -> str:
    """
    A token of an agent.
    """
    return make_token(agent, session, secret=SECRET)


def gap_end(message: dict[str, Any]) -> int:
    """
    The last position that a C{gap} frame says may be missing: what is still in the log follows, unless the log is
    another one.
    """
    end: int = message["first"] - 1 if message["reason"] == "expired" else message["pos"]
    return end
