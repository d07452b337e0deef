"""
Offsets in the stream of a channel: text that names a position of the log (docs/http-streams.md).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from dcm_ws.protocol.errors import ErrorCode, ProtocolError

_DIGITS = 16
_offset = re.compile(rf"([0-9A-Za-z-]{{1,64}})_([0-9]{{{_DIGITS}}})", re.ASCII)


class Offset(NamedTuple):
    """
    A place in the stream of a channel: after everything up to a position.

    @ivar epoch: the name of the log.
    @ivar pos: the position.
    """

    epoch: str
    pos: int

    def __str__(self) -> str:
        """
        The text of it; those of one log sort as their positions do.
        """
        return f"{self.epoch}_{self.pos:0{_DIGITS}d}"


BEGINNING = Offset("", -1)
"""
The offset C{-1}: before everything that the log has of the channel.
"""

NOW = Offset("", 0)
"""
The offset C{now}: after everything that the log has.
"""


def parse_offset(text: str) -> Offset:
    """
    Read an offset.

    @raise ProtocolError: C{INVALID_MESSAGE}: it is none.
    """
    if text == "-1":
        return BEGINNING
    if text == "now":
        return NOW
    found = _offset.fullmatch(text)
    if found is None:
        raise ProtocolError(
            ErrorCode.INVALID_MESSAGE, "Malformed offset: use -1, now, or the Stream-Next-Offset of a response"
        )
    return Offset(found.group(1), int(found.group(2)))
