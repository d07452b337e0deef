"""
Events by name: the catalogue, which ones are tracked, which ones a client may publish (protocol, sections 3 and 4).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from dcm_ws.protocol.catalogue import EVENTS
from dcm_ws.protocol.errors import ErrorCode, ProtocolError

CATALOGUE = frozenset(entry.name for entry in EVENTS)
"""
The 22 events that every client may publish.
"""

SHEDDABLE = frozenset({"metric.update", "agent.heartbeat"})
"""
Events of which only the latest matters: a client that is far behind does not receive every one.
"""

CATEGORIES = tuple(sorted({name.partition(".")[0] for name in CATALOGUE}))
"""
The first parts of their names: a closed set, unlike the names that databases and operators use.
"""

EVENT_RULE = "1 to 64 of A-Z a-z 0-9 _ . : -"
"""
The grammar of event names, for people.
"""

_SHOWN_MAX = 128
TRACKED = ("task.", "subtask.", "message.")
"""
How the names of tracked events begin.
"""

_RESERVED_FAMILIES = ("system.", "metric.")
_RESERVED = frozenset({"agent.connected", "agent.disconnected"})
_PRESENCE = _RESERVED | {"agent.heartbeat"}
_event = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_family = re.compile(r"[A-Za-z0-9_.:-]{1,62}[.:]\*")


def is_event(name: str) -> bool:
    """
    True if C{name} fits the grammar of events: 1 to 64 of C{A-Z a-z 0-9 _ . : -}.
    """
    return _event.fullmatch(name) is not None


def is_family(pattern: str) -> bool:
    """
    True if C{pattern} matches several events: a name with C{*} at its end, after C{.} or C{:}.
    """
    return _family.fullmatch(pattern) is not None


class Traits(NamedTuple):
    """
    What the name of an event implies.

    @ivar category: one of L{CATEGORIES}, or C{other}.
    @ivar tracked: each subscriber must acknowledge it.
    @ivar reserved: it reports on the service; in production only operators may publish it.
    """

    category: str
    tracked: bool
    reserved: bool


# Events have few names, of 64 characters at most, and a name that is refused is not kept.
@lru_cache(maxsize=4096)
def traits_of(name: str) -> Traits:
    """
    Return what the name of an event implies.

    @raise ProtocolError: C{INVALID_EVENT}, if the name does not fit the grammar.
    """
    if not is_event(name):
        # without the name: of a notification, the reason is logged, and payloads never are
        raise ProtocolError(ErrorCode.INVALID_EVENT, "The event name does not fit the grammar")
    category = name.partition(".")[0]
    known = category if category in CATEGORIES else "other"
    return Traits(known, is_tracked(name), _is_reserved(name))


def _is_reserved(name: str) -> bool:
    # a listener may compare without regard to case
    name = name.lower()
    return name.startswith(_RESERVED_FAMILIES) or name in _RESERVED


def is_tracked(name: str) -> bool:
    """
    True if each subscriber must acknowledge the event.
    """
    return name.startswith(TRACKED)


class Publishable:
    """
    The events that clients may publish: the catalogue, and what the operator adds.

    @param extra: event names; C{*} matches all that follows a last C{.} or C{:} (C{pipeline.*}).
    @raise ValueError: a name in C{extra} that no event could have.
    """

    def __init__(self, extra: Iterable[str] = ()) -> None:
        names: set[str] = set()
        prefixes: list[str] = []
        for name in extra:
            if is_event(name):
                names.add(name)
            elif is_family(name):
                prefixes.append(name[:-1])
            else:
                raise ValueError(
                    f"{name!r} is not an event name: use {EVENT_RULE}; * may stand at the end, after . or :"
                )
        self._names = frozenset(names)
        self._prefixes = tuple(prefixes)

    def __contains__(self, name: str) -> bool:
        return name in CATALOGUE or self.adds(name)

    def adds(self, name: str) -> bool:
        """
        True if the operator has added that name.
        """
        # the star matches one character or more
        return name in self._names or (
            name.startswith(self._prefixes) and name not in self._prefixes and is_event(name)
        )


class Ephemeral:
    """
    The events that are not logged: what soon means nothing any more, and what the operator adds.  Tracked events are
    logged whatever is added.

    @param extra: event names, as for L{Publishable}.
    @raise ValueError: a name in C{extra} that no event could have.

    @ivar includes: is an event of that name not logged?
    """

    def __init__(self, extra: Iterable[str] = ()) -> None:
        self._extra = Publishable(extra)
        # events have few names, of 64 characters at most
        self.includes = lru_cache(maxsize=4096)(self._includes)

    def _includes(self, name: str) -> bool:
        if is_tracked(name):
            return False
        return name.startswith(_RESERVED_FAMILIES) or name in _PRESENCE or self._extra.adds(name)


def shortened(name: str) -> str:
    """
    Return the name of an event as a refusal shows it.
    """
    return name if len(name) <= _SHOWN_MAX else name[:_SHOWN_MAX] + "…"
