"""
Checks of JSON that is passed on as text, without parsing it into objects.

The clients for Python and JavaScript can read what is accepted here, and so can a client that uses C{msgspec}.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import accumulate
from math import isinf

import msgspec
from msgspec import Struct

from dcm_ws.protocol.channels import is_identifier
from dcm_ws.protocol.errors import ErrorCode, ProtocolError

_HIGH, _LOW = r"\\u[dD][89abAB][0-9a-fA-F]{2}", r"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_half = re.compile(rf"{_HIGH}(?!{_LOW})|(?<!{_HIGH}){_LOW}")


def repair_surrogates(text: str) -> str:
    """
    Replace half a character by U+FFFD, as browsers do: JavaScript that cuts a string in the middle of an emoji writes
    C{"\\ud83d"}. UTF-8 cannot encode it, and msgspec rejects it.

    @raise ValueError: the text has no half of a character.
    """
    if "\0" in text:
        raise ValueError("JSON has no NUL")
    # without the escaped backslashes, every other backslash begins an escape
    escapes = text.replace("\\\\", "\0\0")
    repaired, halves = _half.subn(r"\\ufffd", escapes)
    if not halves:
        raise ValueError("there is no lone surrogate")
    return repaired.replace("\0\0", "\\\\")


def _without_texts(data: bytes) -> bytes:
    """
    Return valid JSON with its strings emptied.
    """
    # without the escapes in them strings go from one quote to the next
    bare = data.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in data else data
    return b'""'.join(bare.split(b'"')[::2])


_BRACKETS = bytes.maketrans(b"{}", b"[]")
_ALL_BUT_BRACKETS_AND_QUOTES = bytes(set(range(256)) - set(b'[]{}"'))


def is_nested_deeper(data: bytes, depth: int) -> bool:
    """
    True if the nesting depth of JSON is more than C{depth}.

    @param data: valid JSON.
    """
    if data.count(b"[") + data.count(b"{") <= depth:
        return False
    # strings that have no brackets vanish
    bare = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    marks = bare.translate(_BRACKETS, _ALL_BUT_BRACKETS_AND_QUOTES).replace(b'""', b"")
    brackets = b"".join(marks.split(b'"')[::2])
    if not brackets:
        return False
    # most brackets of most data are innermost ones, and are removed at once: one level less to count
    rest = brackets.replace(b"[]", b"")
    # "[" is 91 and "]" is 93
    return 1 + max(accumulate(map((92).__sub__, rest)), default=0) > depth


_DIGITS = bytes.maketrans(b"123456789E", b"000000000e")
# below 1e309 without an exponent of three digits, since one of two adds 99 digits at most
_MANY_DIGITS = b"0" * 200
_LARGE_EXPONENT = b"0e000"
_number = re.compile(rb"-?[0-9][0-9.]*(?:[eE][+-]?[0-9]+)?")


def has_huge_number(data: bytes) -> bool:
    """
    True if JSON has a number that a 64-bit float cannot hold.

    JavaScript reads it as Infinity, C{msgspec} rejects it, and Python rejects integers of more than 4,300 digits.

    @param data: valid JSON.
    """
    # Nearly all data ends here: strings are treated as if they were numbers.  find() takes half the time of C{in}.
    digits = data.translate(_DIGITS, b"+")
    if digits.find(_LARGE_EXPONENT) < 0 and (len(digits) < len(_MANY_DIGITS) or digits.find(_MANY_DIGITS) < 0):
        return False
    return any(isinf(float(number)) for number in _number.findall(_without_texts(data)))


def check_data(data: bytes, max_depth: int, too_deep: Callable[[], object]) -> None:
    """
    Reject event data that not every client could read.

    @param data: valid JSON.
    @param max_depth: the maximum nesting depth.
    @param too_deep: called if the data is nested deeper.
    @raise ProtocolError: C{INVALID_MESSAGE}.
    """
    # each level takes two bytes
    if len(data) > 2 * max_depth and is_nested_deeper(data, max_depth):
        too_deep()
        raise ProtocolError(ErrorCode.INVALID_MESSAGE, f"`data` is nested deeper than {max_depth} levels")
    if has_huge_number(data):
        raise ProtocolError(ErrorCode.INVALID_MESSAGE, "`data` has a number beyond the range of a 64-bit float")


class _About(Struct, frozen=True):
    agent_id: str


_about = msgspec.json.Decoder(_About)


def agent_of(data: bytes) -> str:
    """
    Return the agent that an event's data is about; empty if it names none.
    """
    try:
        agent = _about.decode(data).agent_id
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return ""
    return agent if is_identifier(agent) else ""
