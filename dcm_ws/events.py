"""
Events by name: the catalogue, which ones are tracked, which ones a client may publish (protocol, sections 3 and 4).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

CATALOGUE = frozenset(
    f"{family}.{name}"
    for family, names in {
        "task": ("created", "updated", "completed", "failed"),
        "subtask": ("created", "updated", "completed", "failed", "running"),
        "message": ("new", "read", "expired"),
        "agent": ("connected", "disconnected", "heartbeat", "blocked", "unblocked"),
        "session": ("created", "ended"),
        "metric": ("update",),
        "system": ("error", "info"),
    }.items()
    for name in names
)
"""
The 22 events that every client may publish.
"""

SHEDDABLE = frozenset({"metric.update", "agent.heartbeat"})
"""
Events of which only the latest matters: who is far behind is not given each.
"""

CATEGORIES = tuple(sorted({name.partition(".")[0] for name in CATALOGUE}))
"""
The first parts of those: a closed set, unlike what the database or the operator may think of.
"""

_TRACKED = ("task.", "subtask.", "message.")
_RESERVED_FAMILIES = ("system.", "metric.")
_RESERVED = frozenset({"agent.connected", "agent.disconnected"})
_PART = "[a-z0-9_-]+"
_event = re.compile(rf"{_PART}(?:\.{_PART})+")
_pattern = re.compile(rf"{_PART}(?:\.{_PART})*\.(?:{_PART}|\*)")
_NAME_MAX = 64


# The database publishes few different events; the cache is bounded.
@lru_cache(maxsize=4096)
def is_event(name: str) -> bool:
    """
    Does C{name} fit the grammar of events: two or more parts joined by dots, 64 characters at most?
    """
    return len(name) <= _NAME_MAX and _event.fullmatch(name) is not None


class Traits(NamedTuple):
    """
    What its name says of an event.

    @ivar category: one of L{CATEGORIES}, or C{other}.
    @ivar tracked: each subscriber must acknowledge it.
    @ivar sheddable: only the latest matters.
    @ivar reserved: it speaks for the service; in production only operators may publish it.
    """

    category: str
    tracked: bool
    sheddable: bool
    reserved: bool


@lru_cache(maxsize=4096)
def traits_of(name: str) -> Traits:
    """
    What the name of an event says of it.
    """
    category = name.partition(".")[0]
    known = category if category in CATEGORIES else "other"
    return Traits(known, is_tracked(name), name in SHEDDABLE, _is_reserved(name))


def _is_reserved(name: str) -> bool:
    # a listener may compare without regard to case
    name = name.lower()
    return name.startswith(_RESERVED_FAMILIES) or name in _RESERVED


def is_tracked(name: str) -> bool:
    """
    Is the event one that each subscriber must acknowledge?
    """
    return name.startswith(_TRACKED)


class Publishable:
    """
    The events that clients may publish: the catalogue, and what the operator adds.

    @param extra: event names; C{*} may stand for the last parts (C{pipeline.*}).
    @raise ValueError: a name in C{extra} that no event could have.
    """

    def __init__(self, extra: Iterable[str] = ()) -> None:
        names, prefixes = set(CATALOGUE), []
        for name in extra:
            if len(name) > _NAME_MAX or not _pattern.fullmatch(name):
                raise ValueError(
                    f"{name!r} is no event name: use parts of a-z, 0-9, _ and - joined by dots,"
                    " with * as the last part at most"
                )
            if name.endswith("*"):
                prefixes.append(name[:-1])
            else:
                names.add(name)
        self._names = frozenset(names)
        self._prefixes = tuple(prefixes)

    def __contains__(self, name: str) -> bool:
        return name in self._names or (name.startswith(self._prefixes) and is_event(name))
