"""
Agents whose tokens were revoked (protocol, section 12).
"""

from __future__ import annotations

from collections.abc import Iterable

from dcm_ws.core.counters import Count
from dcm_ws.protocol.errors import ErrorCode, ProtocolError
from dcm_ws.protocol.tokens import Claims

MAX_REVOKED = 10_000
"""
Agents whose tokens may be revoked at one time.
"""

KEEP_MS = 400 * 86_400_000
"""
How long a revocation is kept, in ms: longer than C{dcm-ws token} makes tokens for.
"""


class Revocations:
    """
    Knows up to when the tokens of agents are revoked.  Tokens that were issued later are valid.

    @param limit: counts revocations for which there is no room.
    """

    def __init__(self, limit: Count) -> None:
        self._limit = limit
        self._revoked: dict[str, int] = {}

    def check_room(self, agent: str, now_ms: int) -> None:
        """
        Check that the tokens of one more agent may be revoked.  Nobody is forgotten to make room: a revoked token would
        be valid again.

        @raise ProtocolError: C{NOT_AVAILABLE}.
        """
        if agent in self._revoked or len(self._revoked) < MAX_REVOKED:
            return
        self._revoked = {name: at for name, at in self._revoked.items() if at > now_ms - KEEP_MS}
        if len(self._revoked) >= MAX_REVOKED:
            self._limit.add()
            reason = f"The tokens of {MAX_REVOKED} agents are revoked already: use another secret"
            raise ProtocolError(ErrorCode.NOT_AVAILABLE, reason)

    def add(self, revoked: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
        """
        Revoke the tokens of agents that were issued up to some time, in ms since the epoch; return those that are new.
        """
        new = [(agent, at) for agent, at in revoked if at > self._revoked.get(agent, 0)]
        self._revoked.update(new)
        return new

    def refuses(self, claims: Claims) -> bool:
        """
        Has a token been revoked?
        """
        return bool(self._revoked) and claims.issued_at <= self._revoked.get(claims.agent_id, -1)

    def check(self, claims: Claims) -> None:
        """
        Check that a token has not been revoked.

        @raise ProtocolError: C{TOKEN_INVALID}.
        """
        if self.refuses(claims):
            raise ProtocolError(ErrorCode.TOKEN_INVALID, "Invalid token: it has been revoked; get a new one")
