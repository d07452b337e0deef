"""
Names of agents, sessions and channels, and the agents that channels belong to (protocol, section 1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import NamedTuple
from unicodedata import category, normalize

import msgspec

from dcm_ws.protocol.errors import ErrorCode, ProtocolError

IDENTIFIER_RULE = "1 to 128 characters, without control or format characters, and without a space at either end"
"""
The grammar of C{agent_id}, C{session_id} and topics, for people.
"""

_IDENTIFIER_MAX = 128
# control, format, surrogate, unassigned; line and paragraph separators
_REFUSED = frozenset({"Cc", "Cf", "Cs", "Cn", "Zl", "Zp"})
_PRIVATE = ("agents/", "sessions/")
_PUBLIC = "topics/"
_FAMILIES = (*_PRIVATE, _PUBLIC)
_SHOWN_MAX = 512
_KEPT_MAX = 4096


class Channel(NamedTuple):
    """
    A channel that exists by its name only; L{Channels} and the helpers here make them.

    @ivar json: the name as JSON, for the frames of events.
    @ivar agent: the agent whose private channel it is; None for any other channel.
    @ivar mirrored: its events are also given to the subscribers of C{global}.
    """

    name: str
    json: bytes
    agent: str | None = None
    mirrored: bool = True


def _make(name: str, agent: str | None = None, *, mirrored: bool = True) -> Channel:
    return Channel(name, msgspec.json.encode(name), agent, mirrored)


GLOBAL = _make("global", mirrored=False)
METRICS = _make("metrics", mirrored=False)


def is_identifier(text: str) -> bool:
    """
    True if C{text} fits the grammar of agent ids, session ids and topics.

    Which characters are assigned depends on the Unicode version of this Python.
    """
    if not 0 < len(text) <= _IDENTIFIER_MAX:
        return False
    if text.isprintable():
        # it has no character of category Z but U+0020
        return text[0] != " " != text[-1]
    # isprintable() also rejects other spaces and private-use characters
    categories = [category(character) for character in text]
    return _REFUSED.isdisjoint(categories) and categories[0] != "Zs" != categories[-1]


def is_private(name: str) -> bool:
    """
    True if a channel of that name concerns one agent or one DCM session.  Also true of names that only look like it:
    with other letters, or with spaces, slashes and invisible characters.
    """
    if name.startswith(_PRIVATE):
        return True
    if name.startswith(_PUBLIC) or name.isidentifier():
        return False
    plain = "".join(filter(_is_of_family, normalize("NFKC", name).casefold())).lstrip("/")
    return plain.startswith(_PRIVATE)


def _is_of_family(character: str) -> bool:
    return character == "/" or character.isalnum()


def agent_channel(agent: str) -> Channel:
    """
    The private channel of an agent whose id is known to be well formed.
    """
    return _make(f"agents/{agent}", agent)


def session_channel(dcm_session: str) -> Channel:
    """
    The channel of a DCM session whose id is known to be well formed.
    """
    return _make(f"sessions/{dcm_session}")


class Channels:
    """
    The channels that exist.

    @param extra: names of public channels that the operator adds; C{*} at the end matches any rest.
    @raise ValueError: a pattern in C{extra} that no other channel can match.

    @ivar parse: reads a channel's name; raises L{ProtocolError} with C{INVALID_CHANNEL} if it does not fit the grammar.
    """

    def __init__(self, extra: Iterable[str] = ()) -> None:
        names, prefixes = set(), []
        for pattern in extra:
            literal = pattern.removesuffix("*")
            if "*" in literal or not is_identifier(pattern):
                raise ValueError(
                    f"{pattern!r} is not a channel: use {IDENTIFIER_RULE}; * may only be the last character"
                )
            if literal.startswith(_FAMILIES) or pattern in (GLOBAL.name, METRICS.name):
                raise ValueError(f"{pattern!r} need not be added: it exists already")
            if literal == pattern:
                names.add(pattern)
            else:
                prefixes.append(literal)
        self._names = frozenset(names)
        self._prefixes = tuple(prefixes)
        # publishers use few channels; a name that is kept has at most 137 characters, and a refused one is not kept
        self.parse: Callable[[str], Channel] = lru_cache(maxsize=_KEPT_MAX)(self._parse)

    def _parse(self, name: str) -> Channel:
        if name == GLOBAL.name:
            return GLOBAL
        if name == METRICS.name:
            return METRICS
        if name.startswith(_FAMILIES):
            family, _, rest = name.partition("/")
            if is_identifier(rest):
                return agent_channel(rest) if family == "agents" else _make(name)
        elif self._is_extra(name):
            return _make(name)
        shown = name if len(name) <= _SHOWN_MAX else name[:_SHOWN_MAX] + "…"
        raise ProtocolError(ErrorCode.INVALID_CHANNEL, f"Invalid channel format: {shown}")

    def _is_extra(self, name: str) -> bool:
        if name in self._names:
            return True
        # the star matches one character or more
        return name.startswith(self._prefixes) and name not in self._prefixes and is_identifier(name)


parse_channel = Channels().parse
"""
Read the name of a channel, if the operator has added none.
"""
