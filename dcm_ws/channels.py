"""
Channel names: what they look like, and whose they are (protocol, section 1).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from dcm_ws.errors import ErrorCode, ProtocolError

IDENTIFIER = r"[A-Za-z0-9_.:@-]{1,128}"
"""
The grammar of C{agent_id} and C{session_id}.
"""

_identifier = re.compile(IDENTIFIER)
_topic = re.compile(r"[A-Za-z0-9_.:@-]+(?:/[A-Za-z0-9_.:@-]+)*")
_TOPIC_MAX = 128
_SHOWN_MAX = 512


class Channel(NamedTuple):
    """
    A channel that exists by its name alone; only L{parse_channel} and the helpers here make one.
    """

    name: str
    #: whose private channel it is; None where it is nobody's
    agent: str | None = None
    #: its events are also given to the subscribers of C{global}
    mirrored: bool = True


GLOBAL = Channel("global", mirrored=False)
METRICS = Channel("metrics", mirrored=False)


def is_identifier(text: str) -> bool:
    """
    Does C{text} fit the grammar of agent and session ids?
    """
    return _identifier.fullmatch(text) is not None


def agent_channel(agent: str) -> Channel:
    """
    The private channel of an agent whose id is known to be well formed.
    """
    return Channel(f"agents/{agent}", agent=agent)


def session_channel(dcm_session: str) -> Channel:
    """
    The channel of a DCM session whose id is known to be well formed.
    """
    return Channel(f"sessions/{dcm_session}")


# Names repeat: publishers use few channels.  The cache is bounded, and refusals are not kept in it.
@lru_cache(maxsize=8192)
def parse_channel(name: str) -> Channel:
    """
    Read a channel's name.

    @raise ProtocolError: C{INVALID_CHANNEL}, where the name does not fit the grammar.
    """
    if name == GLOBAL.name:
        return GLOBAL
    if name == METRICS.name:
        return METRICS
    family, slash, rest = name.partition("/")
    if slash:
        if family == "topics" and len(rest) <= _TOPIC_MAX and _topic.fullmatch(rest):
            return Channel(name)
        if family == "agents" and is_identifier(rest):
            return agent_channel(rest)
        if family == "sessions" and is_identifier(rest):
            return session_channel(rest)
    shown = name if len(name) <= _SHOWN_MAX else name[:_SHOWN_MAX] + "…"
    raise ProtocolError(ErrorCode.INVALID_CHANNEL, f"Invalid channel format: {shown}")
