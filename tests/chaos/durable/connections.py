"""
What all WebSocket clients of the test have in common.
"""

from __future__ import annotations

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
    Where the service is.
    """

    port: int

    def url(self, agent: str, *, session: str | None = None, observer: bool = False) -> str:
        """
        The URL for an agent that authenticates with its handshake.
        """
        mark = "&observer=1" if observer else ""
        return f"{self.bare()}?token={self.token(agent, session)}{mark}"

    def bare(self) -> str:
        """
        The URL for a client that authenticates later.
        """
        return f"ws://127.0.0.1:{self.port}/"

    def token(self, agent: str, session: str | None = None) -> str:
        """
        A token of the agent.
        """
        return make_token(agent, session, secret=SECRET)


def gap_end(message: dict[str, Any]) -> int:
    """
    The last position that a C{gap} frame says may be missing: what is still in the log follows, unless the log is
    another one.
    """
    end: int = message["first"] - 1 if message["reason"] == "expired" else message["pos"]
    return end
