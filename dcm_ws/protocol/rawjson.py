"""
JSON that is passed on as the text it is: what it may hold is seen without reading it into objects.

What is accepted here, the clients for Python and JavaScript can read, and a client that uses C{msgspec}, too.
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


def mend_surrogates(text: str) -> str:
    """
    JSON may name half a character: JavaScript, having cut a string in the middle of an emoji, writes C{"\\ud83d"}.
    UTF-8 has no such thing and msgspec refuses it; as browsers do, read it as U+FFFD.

    @raise ValueError: that was not what was wrong with it.
    """
    if "\0" in text:
        raise ValueError("JSON has no NUL")
    # with the escaped backslashes out of the way, every other one begins an escape
    escapes = text.replace("\\\\", "\0\0")
    mended, halves = _half.subn(r"\\ufffd", escapes)
    if not halves:
        raise ValueError("there is no lone surrogate")
    return mended.replace("\0\0", "\\\\")


def _without_texts(data: bytes) -> bytes:
    """
    Valid JSON with its strings emptied.
    """
    # without the escapes in them strings go from one quote to the next
    bare = data.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in data else data
    return b'""'.join(bare.split(b'"')[::2])


_BRACKETS = bytes.maketrans(b"{}", b"[]")
_ALL_BUT_BRACKETS_AND_QUOTES = bytes(set(range(256)) - set(b'[]{}"'))


def is_nested_deeper(data: bytes, depth: int) -> bool:
    """
    Has JSON more than C{depth} arrays and objects inside one another?

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
    # the innermost are the most in most data, and go at once: one level less to look at
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
    Has JSON a number that a double cannot hold?

    JavaScript reads it as Infinity, C{msgspec} not at all, and Python no integer of more than 4,300 digits.

    @param data: valid JSON.
    """
    # Nearly all data ends here: text is looked at as if it were numbers.  find() takes half the time of C{in}.
    digits = data.translate(_DIGITS, b"+")
    if digits.find(_LARGE_EXPONENT) < 0 and (len(digits) < len(_MANY_DIGITS) or digits.find(_MANY_DIGITS) < 0):
        return False
    return any(isinf(float(number)) for number in _number.findall(_without_texts(data)))


def check_data(data: bytes, max_depth: int, too_deep: Callable[[], object]) -> None:
    """
    Refuse the data of an event that not every client could read.

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
    The agent that an event's data is about; empty if it names none.
    """
    try:
        agent = _about.decode(data).agent_id
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return ""
    return agent if is_identifier(agent) else ""
