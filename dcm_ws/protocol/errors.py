"""
What a client may do wrong: the codes of replies and of closes.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum

from msgspec import Raw

NO_REQUEST = Raw()
"""
The id of a request that has none.
"""


class ErrorCode(StrEnum):
    """
    The C{code} of a failure frame (protocol, section 2).
    """

    PARSE_ERROR = "PARSE_ERROR"
    UNKNOWN_MESSAGE_TYPE = "UNKNOWN_MESSAGE_TYPE"
    INVALID_MESSAGE = "INVALID_MESSAGE"
    INVALID_CHANNEL = "INVALID_CHANNEL"
    INVALID_EVENT = "INVALID_EVENT"
    NOT_AUTHORIZED = "NOT_AUTHORIZED"
    TOKEN_REQUIRED = "TOKEN_REQUIRED"
    TOKEN_INVALID = "TOKEN_INVALID"
    TOKEN_EXPIRED = "TOKEN_EXPIRED"
    AGENT_ID_REQUIRED = "AGENT_ID_REQUIRED"
    TOO_MANY_SUBSCRIPTIONS = "TOO_MANY_SUBSCRIPTIONS"
    RATE_LIMITED = "RATE_LIMITED"
    NOT_AVAILABLE = "NOT_AVAILABLE"


class CloseCode(IntEnum):
    """
    The WebSocket close codes that the service sends (protocol, section 6).
    """

    GOING_AWAY = 1001
    TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    RESTART = 1012
    TRY_AGAIN_LATER = 1013
    PING_TIMEOUT = 4000
    AUTHENTICATION_REQUIRED = 4001
    DISCONNECTED = 4003
    TOO_SLOW = 4008
    TOO_MANY_MESSAGES = 4029

    @property
    def reason(self) -> str:
        """
        The text that goes with the code in the close frame, well below its 123 bytes.
        """
        return _REASONS[self]


_REASONS = {
    CloseCode.GOING_AWAY: "The server is going away",
    CloseCode.TOO_BIG: "Message too large",
    CloseCode.INTERNAL_ERROR: "Internal error",
    CloseCode.RESTART: "The server restarts; reconnect after a random delay",
    CloseCode.TRY_AGAIN_LATER: "Too many connections; try again later",
    CloseCode.PING_TIMEOUT: "Ping timeout",
    CloseCode.AUTHENTICATION_REQUIRED: "Authentication required",
    CloseCode.DISCONNECTED: "Disconnected by an operator",
    CloseCode.TOO_SLOW: "Too slow: too many bytes were waiting to be read",
    CloseCode.TOO_MANY_MESSAGES: "Kept breaking the rate limit; come back later, and slower",
}


class ProtocolError(Exception):
    """
    The client's fault: it receives the code, and the refusal is counted.

    @ivar request: the request's id as its JSON text; L{NO_REQUEST} if it has none, or one that cannot be read.
    @ivar retry_after_ms: when to try again, if that is known.
    """

    retry_after_ms: int | None = None

    def __init__(self, code: ErrorCode, reason: str, request: Raw = NO_REQUEST) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason
        self.request = request
