"""
The parameters of calls: in queries, and the names in paths.
"""

from __future__ import annotations

from twisted.web.server import Request

from dcm_ws.protocol.channels import IDENTIFIER_RULE, is_identifier
from dcm_ws.protocol.errors import ErrorCode, ProtocolError

TIME_MAX = 1 << 53


def text(request: Request, name: str) -> str | None:
    """
    The first value of a parameter that is not empty; None if there is none.

    @raise ProtocolError: C{INVALID_MESSAGE}: it is not UTF-8, or has a NUL.
    """
    return next(iter(texts(request, name)), None)


def texts(request: Request, name: str) -> list[str]:
    """
    All values of a parameter that are not empty.

    @raise ProtocolError: C{INVALID_MESSAGE}: one is not UTF-8, or has a NUL.
    """
    values = request.args.get(name.encode(), [])
    # a database has no text with NUL
    if any(b"\0" in value for value in values):
        raise malformed(name, "use no NUL")
    try:
        return [value.decode() for value in values if value]
    except UnicodeDecodeError:
        raise malformed(name, "use UTF-8") from None


def whole(request: Request, name: str, lowest: int, highest: int) -> int | None:
    """
    A parameter that is a whole number; None without one.

    @raise ProtocolError: C{INVALID_MESSAGE}: it is not, or is out of range.
    """
    value = text(request, name)
    if value is None:
        return None
    number = int(value) if value.isascii() and value.isdigit() and len(value) <= len(str(highest)) else -1
    if not lowest <= number <= highest:
        raise malformed(name, f"use a whole number from {lowest} to {highest}")
    return number


def identifier(value: str, name: str) -> str:
    """
    Check the name of an agent.

    @param name: of the parameter.
    @raise ProtocolError: C{INVALID_MESSAGE}.
    """
    if not is_identifier(value):
        raise malformed(name, f"use {IDENTIFIER_RULE}")
    return value


def rest_of_path(request: Request) -> str:
    """
    What comes behind the path of a page, without its percent-encoding: a name may have slashes.

    @raise ProtocolError: C{INVALID_MESSAGE}: it is not UTF-8.
    """
    try:
        return b"/".join(request.postpath or ()).decode()
    except UnicodeDecodeError:
        raise malformed("path", "use UTF-8") from None


def malformed(name: str, rule: str) -> ProtocolError:
    """
    The refusal of a parameter.
    """
    return ProtocolError(ErrorCode.INVALID_MESSAGE, f"Malformed {name}: {rule}")
