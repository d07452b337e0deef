"""
Options that are alternatives: the one that was given at the nearest place overrides the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from dcm_ws.app.options import BY_NAME, DATABASE_PARTS
from dcm_ws.app.reading import Given, database_parts
from dcm_ws.postgres.dsn import differing, shown

OPTION, ENVIRONMENT, ENV_FILE, FILE = range(4)
"""
How far away a place is where settings are given.
"""

_FARTHEST = 4


class _Way(NamedTuple):
    """
    One of the alternatives, and the options that belong to it.

    @ivar leading: the names that decide how near it was given; all if it is empty.
    """

    names: tuple[str, ...]
    leading: tuple[str, ...] = ()

    def distance(self, places: Mapping[str, int]) -> int | None:
        """
        How far away it was given; None if it was not.
        """
        given = [places[name] for name in self.leading or self.names if name in places]
        if given:
            return min(given)
        return _FARTHEST if any(name in places for name in self.names) else None


# the nearest one counts; of equally near ones the first
_ALTERNATIVES = (
    (_Way(("ws-auth-secret-file",)), _Way(("ws-auth-secrets",)), _Way(("ws-auth-secret",))),
    (
        _Way(("database-url",)),
        _Way((*DATABASE_PARTS, "db-password-file"), ("db-host", "db-name")),
        _Way(("no-database",)),
    ),
    (_Way(("db-password-file",)), _Way(("db-password",))),
    (_Way(("listen",)), _Way(("ws-port", "host"))),
)


def settle(given: Given, origins: Mapping[str, str], distances: Mapping[str, int]) -> Iterator[tuple[list[str], str]]:
    """
    For each alternative that is overridden, the options given in it, and a sentence that says so; empty if nothing is
    lost.

    @param origins: where each of the options was given, by its name; only of those that were.
    @param distances: of these places.
    """
    left = dict(origins)
    for ways in _ALTERNATIVES:
        places = {name: distances.get(origin, FILE) for name, origin in left.items()}
        found = [(distance, way) for way in ways if (distance := way.distance(places)) is not None]
        if not found:
            continue
        best = min(found, key=lambda one: one[0])[1]
        for _, way in found:
            if way is not best:
                lost = [name for name in way.names if name in left]
                yield lost, _sentence(lost, best, given, left)
                for name in lost:
                    del left[name]


def named(name: str, origin: str) -> str:
    """
    An option as its user wrote it.
    """
    if origin == "option":
        return f"--{name}"
    return BY_NAME[name].variable if origin == "environment" else f"{name} in {origin}"


def _sentence(lost: list[str], best: _Way, given: Given, origins: Mapping[str, str]) -> str:
    kept = [named(name, origins[name]) for name in best.names if name in origins]
    chosen, verb = " and ".join(kept), "is" if len(kept) == 1 else "are"
    if best.names == ("database-url",) and "no-database" not in lost:
        url = str(given["database-url"])
        chosen = f"{chosen} ({shown(url)})"
        # those that agree with it are not worth a warning
        unlike = differing(url, database_parts(given))
        lost = [name for name in lost if DATABASE_PARTS.get(name, "") in unlike or name == "db-password-file"]
    if not lost:
        return ""
    names = " and ".join(named(name, origins[name]) + _shown(name, given) for name in lost)
    return f"{names} {'is' if len(lost) == 1 else 'are'} ignored: {chosen} {verb} used"


def _shown(name: str, given: Given) -> str:
    value = given[name]
    return "" if BY_NAME[name].secret or not isinstance(value, str) else f"={value}"
