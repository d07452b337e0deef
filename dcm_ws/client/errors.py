"""
What may go wrong for a client, in a class for each code of the server.
"""

from __future__ import annotations

from typing import Any


class DCMError(Exception):
    """
    Something did not work; C{code} says what, for programs.
    """

    code = "ERROR"


class RefusedError(DCMError):
    """
    The server said no; there is a class below this one for each of its codes.

    @ivar frame: all that the server said.
    @ivar channel: the channel that a subscription was refused to after connecting; None for other errors.
    @ivar retry_after: seconds after which it may be tried again, where the server said so.
    """

    def __init__(self, code: str, text: str, frame: dict[str, Any]) -> None:
        super().__init__(text)
        self.code = code
        self.frame = frame
        self.channel: str | None = None
        after = frame.get("retry_after_ms")
        self.retry_after = None if after is None else after / 1000


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
    The error that a failure frame tells.
    """
    code = str(frame.get("code", "ERROR"))
    return _CLASSES.get(code, RefusedError)(code, str(frame.get("error", "refused")), frame)


class NotConnectedError(DCMError):
    """
    There is no connection, or it ended before the answer came: what was asked for may have been done.

    @ivar close_code: the WebSocket's, if the connection ended; None where there was none.
    """

    code = "NOT_CONNECTED"

    def __init__(self, text: str, close_code: int | None = None) -> None:
        super().__init__(text)
        self.close_code = close_code


class RequestTimeoutError(DCMError):
    """
    No answer in time; what was asked for may have been done.
    """

    code = "TIMEOUT"


class TokenFailedError(DCMError):
    """
    What should get a token did not.
    """

    code = "TOKEN_FAILED"


class ClosedError(DCMError):
    """
    The client is closed, by its user or for good by the server.

    @ivar close_code: the WebSocket's; None where the user closed it.
    @ivar refusal: the server's answer to the authentication that failed; None for other reasons.
    """

    code = "CLOSED"

    def __init__(self, text: str, close_code: int | None = None, refusal: RefusedError | None = None) -> None:
        super().__init__(text)
        self.close_code = close_code
        self.refusal = refusal
