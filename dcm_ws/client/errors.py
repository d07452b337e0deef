"""
The errors that a client raises, with a class for each of the server's codes.
"""

from __future__ import annotations

from typing import Any

# the longest time that a timer takes in JavaScript, whose client has the same limit: 24 days
_WAIT_MAX_MS = 2**31 - 1


class DCMError(Exception):
    """
    The base of all errors of a client.

    @ivar code: what went wrong, for programs.
    """

    code = "ERROR"


class RefusedError(DCMError):
    """
    The server refused a request.  There is a subclass for each of its codes.

    @ivar frame: the server's whole answer.
    @ivar channel: the channel, if a subscription was refused while the client was connecting; None for other errors.
    @ivar retry_after: seconds after which the request may be sent again; None if the server did not say.
    """

    def __init__(self, code: str, text: str, frame: dict[str, Any]) -> None:
        super().__init__(text)
        self.code = code
        self.frame = frame
        self.channel: str | None = None
        self.retry_after = _seconds_of(frame.get("retry_after_ms"))


def _seconds_of(ms: object) -> float | None:
    """
    Seconds, from milliseconds; None for anything that is not a usable number of milliseconds.
    """
    # the comparison is False for NaN, too
    return ms / 1000 if isinstance(ms, int | float) and 0 <= ms <= _WAIT_MAX_MS else None


class ParseFailedError(RefusedError):
    code = "PARSE_ERROR"


class UnknownMessageTypeError(RefusedError):
    code = "UNKNOWN_MESSAGE_TYPE"


class InvalidMessageError(RefusedError):
    code = "INVALID_MESSAGE"


class InvalidChannelError(RefusedError):
    code = "INVALID_CHANNEL"


class InvalidEventError(RefusedError):
    code = "INVALID_EVENT"


class NotAuthorizedError(RefusedError):
    code = "NOT_AUTHORIZED"


class TokenRequiredError(RefusedError):
    code = "TOKEN_REQUIRED"


class TokenInvalidError(RefusedError):
    code = "TOKEN_INVALID"


class TokenExpiredError(RefusedError):
    code = "TOKEN_EXPIRED"


class AgentIdRequiredError(RefusedError):
    code = "AGENT_ID_REQUIRED"


class TooManySubscriptionsError(RefusedError):
    code = "TOO_MANY_SUBSCRIPTIONS"


class RateLimitedError(RefusedError):
    code = "RATE_LIMITED"


class NotAvailableError(RefusedError):
    code = "NOT_AVAILABLE"


_CLASSES: dict[str, type[RefusedError]] = {kind.code: kind for kind in RefusedError.__subclasses__()}


def refusal(frame: dict[str, Any]) -> RefusedError:
    """
    The error that the server reports.

    @param frame: the server's answer.
    """
    code = str(frame.get("code", "ERROR"))
    return _CLASSES.get(code, RefusedError)(code, str(frame.get("error", "refused")), frame)


class NotConnectedError(DCMError):
    """
    There is no connection, or it ended before the answer came; then the request may have been executed.

    @ivar close_code: the WebSocket's close code, if the connection ended; None if there was none.
    """

    code = "NOT_CONNECTED"

    def __init__(self, text: str, close_code: int | None = None) -> None:
        super().__init__(text)
        self.close_code = close_code


class RequestTimeoutError(DCMError):
    """
    The answer did not come in time; the request may have been executed.
    """

    code = "TIMEOUT"


class TokenFailedError(DCMError):
    """
    The function that gets a token failed.
    """

    code = "TOKEN_FAILED"


class ClosedError(DCMError):
    """
    The client is closed, by its user, or because the server refused its authentication.

    @ivar close_code: the WebSocket's close code; None if the user closed the client.
    @ivar refusal: the error with which the server refused the authentication; None for other reasons.
    """

    code = "CLOSED"

    def __init__(self, text: str, close_code: int | None = None, refusal: RefusedError | None = None) -> None:
        super().__init__(text)
        self.close_code = close_code
        self.refusal = refusal
