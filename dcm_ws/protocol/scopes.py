"""
Scopes: what the holder of a token may do (protocol, section 11).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from dcm_ws.protocol.errors import ErrorCode, ProtocolError

OPERATOR = "operator"
"""
The scope of an operator's token: its holder may do everything.
"""

MAX_SCOPES = 64
"""
Scopes of one token.
"""

MAX_SCOPE = 512
"""
Characters of one scope.  The longest names take 9 + 137 + 1 + 64 characters, and more if some are escaped.
"""

_KEPT_MAX = 1024
_KINDS = ("subscribe:", "publish:")
_PRIVATE = ("agents/", "sessions/")
_ESCAPES = {"%25": "%", "%2A": "*", "%3A": ":"}
_ESCAPE = re.compile("%(?:25|2A|3A)", re.IGNORECASE)
_SEPARATOR = "\n"


class Scope:
    """
    The scopes of a token, read.  One of an unknown kind allows nothing, and does no harm.

    @param texts: the scopes.
    @raise ValueError: one of them is malformed; the text says which, and why.

    @ivar texts: the parameter.
    @ivar operator: its holder may do everything.
    @ivar names: the channels that are named in full, and may be subscribed to.
    @ivar spans_private: a pattern with C{*} may match the private channels of several agents or DCM sessions.
    """

    __slots__ = ("_listen", "_publish", "names", "operator", "spans_private", "texts")

    def __init__(self, texts: tuple[str, ...]) -> None:
        names: set[str] = set()
        listen: list[str] = []
        publish: list[str] = []
        self.texts = texts
        self.operator = self.spans_private = OPERATOR in texts
        for text in texts:
            kind, _, rest = text.partition(":")
            if kind == "subscribe":
                if not rest:
                    raise ValueError(f"{_shown(text)} must be subscribe:CHANNEL")
                literal, star, _ = rest.partition("*")
                if star:
                    listen.append(_pattern(text, rest))
                    literal = _plain(literal)
                    self.spans_private |= any(
                        literal.startswith(family) or family.startswith(literal) for family in _PRIVATE
                    )
                else:
                    _check_escapes(text)
                    names.add(_plain(rest))
            elif kind == "publish":
                # names of channels may have colons; in those of events they have to be escaped
                channel, _, event = rest.rpartition(":")
                if not channel or not event:
                    raise ValueError(f"{_shown(text)} must be publish:CHANNEL:EVENT")
                publish.append(_pattern(text, channel) + _SEPARATOR + _pattern(text, event))
        self.names = frozenset(names)
        self._listen = re.compile("|".join(listen)) if listen else None
        self._publish = re.compile("|".join(publish)) if publish else None

    def may_subscribe(self, channel: str) -> bool:
        """
        May its holder subscribe to the channel of that name?
        """
        if self.operator or channel in self.names:
            return True
        return self._listen is not None and self._listen.fullmatch(channel) is not None

    def may_publish(self, channel: str, event: str) -> bool:
        """
        May its holder publish that event to the channel of that name?
        """
        if self.operator:
            return True
        return self._publish is not None and self._publish.fullmatch(channel + _SEPARATOR + event) is not None


@lru_cache(maxsize=_KEPT_MAX)
def read_scope(texts: tuple[str, ...]) -> Scope:
    """
    Read the scopes of a token.  What has been read is kept: agents authenticate again with the same scopes.

    @raise ProtocolError: C{TOKEN_INVALID}: there are too many, or one of them is malformed.
    """
    if len(texts) > MAX_SCOPES:
        raise _invalid(f"it has more than {MAX_SCOPES} scopes")
    if any(len(text) > MAX_SCOPE for text in texts):
        raise _invalid(f"it has a scope of more than {MAX_SCOPE} characters")
    try:
        return Scope(texts)
    except ValueError as error:
        raise _invalid(f"its scope {error}") from None


def scopes_of(given: object) -> tuple[str, ...]:
    """
    The scopes in a list that was read from JSON.

    @raise ProtocolError: C{TOKEN_INVALID}: it is not a list of strings.
    """
    if not isinstance(given, list) or not all(isinstance(text, str) for text in given):
        raise _invalid("its scope is not a list of strings")
    return tuple(given)


def check_scopes(texts: Sequence[str]) -> None:
    """
    Check scopes that a person has typed.

    @raise ValueError: what is wrong with them.
    """
    for text in texts:
        if text != OPERATOR and not text.startswith(_KINDS):
            raise ValueError(f"{_shown(text)} is not subscribe:CHANNEL, publish:CHANNEL:EVENT or {OPERATOR}")
    try:
        read_scope(tuple(texts))
    except ProtocolError as error:
        raise ValueError(error.reason.removeprefix("Invalid token: ")) from None


def _pattern(text: str, given: str) -> str:
    """
    The regular expression of one pattern.  The atomic groups keep the time that it takes proportional to the length of
    the name, also if it does not match.

    @param text: the scope that it is part of.
    """
    _check_escapes(text)
    first, *others = (re.escape(_plain(part)) for part in re.split(r"\*+", given))
    if not others:
        return first
    *middle, last = others
    between = "".join(f"(?>[^/{_SEPARATOR}]*?{part})" for part in middle)
    return f"{first}{between}[^/{_SEPARATOR}]*{last}"


def _check_escapes(text: str) -> None:
    if "%" in _ESCAPE.sub("", text):
        raise ValueError(f"{_shown(text)} has a % that is not one of %25, %2A and %3A")


def _plain(text: str) -> str:
    return _ESCAPE.sub(lambda found: _ESCAPES[found[0].upper()], text)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 64 else text[:64] + "…")


def _invalid(reason: str) -> ProtocolError:
    return ProtocolError(ErrorCode.TOKEN_INVALID, f"Invalid token: {reason}")
