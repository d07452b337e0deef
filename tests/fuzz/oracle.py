"""
A second opinion: what Python's own C{json}, which shares no code with the decoder, makes of a message.
"""

from __future__ import annotations

import json
from decimal import Decimal
from math import isinf
from typing import Any, NoReturn

from tests.fakes import split_frames


class CannotTellError(Exception):
    """
    C{json} gave up where the decoder need not: too deep.
    """


def fields(message: str | bytes) -> dict[str, Any] | None:
    """
    The fields of a message; None where it is no JSON object.

    @raise CannotTellError: there is no second opinion.
    """
    try:
        value = value_of(message.decode() if isinstance(message, bytes) else message)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def value_of(text: str) -> Any:
    """
    What C{text} says.  Half a character is U+FFFD, as browsers send it.

    @raise ValueError: it is no JSON.
    @raise CannotTellError: there is no second opinion.
    """
    try:
        return _mended(json.loads(text, parse_constant=_refuse, parse_int=_integer))
    except RecursionError:
        raise CannotTellError from None


def depth_of(value: Any) -> int:
    """
    How many arrays and objects are inside one another.
    """
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    return 0


def has_infinity(value: Any) -> bool:
    """
    Is there a number in it that a 64-bit float cannot hold?
    """
    if isinstance(value, dict):
        return any(map(has_infinity, value.values()))
    if isinstance(value, list):
        return any(map(has_infinity, value))
    try:
        return isinstance(value, int | float | Decimal) and isinf(float(value))
    except OverflowError:
        return True


def same(one: object, other: object) -> bool:
    """
    Do both say the same, numbers told from truth values, and whole numbers from fractions?

    @raise CannotTellError: there is no second opinion.
    """
    try:
        return repr(one) == repr(other)
    except RecursionError:
        raise CannotTellError from None


def message_of(frame: bytes) -> dict[str, Any]:
    """
    What one frame of the server's says; it must be right in every respect.

    @raise CannotTellError: there is no second opinion.
    """
    ((opcode, payload),) = split_frames(frame)
    assert opcode == 1
    message = value_of(payload.decode())
    assert isinstance(message, dict)
    return message


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _integer(digits: str) -> int | Decimal:
    # int() refuses more than 4300 of them
    return int(digits) if len(digits) < 4000 else Decimal(digits)


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [_mended(item) for item in value]
    if isinstance(value, dict):
        return {_mended(name): _mended(item) for name, item in value.items()}
    return value
