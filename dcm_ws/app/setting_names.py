"""
Which setting was probably meant by a name that none has.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest_setting(name: str, known: Iterable[str]) -> str | None:
    """
    The name that was probably meant, if there is a similar one: C{port} and C{prot} are C{ws-port}.
    """
    name, known = name.lower().replace("_", "-"), list(known)
    parts = [one for one in known if name in one.split("-") or name in (one.replace("-", ""), f"{one}s")]
    if not parts:
        # an option that is misspelt, or else a word of one
        words = sorted({word for one in known for word in one.split("-") if len(word) > 3})
        parts = difflib.get_close_matches(name, known, 1, 0.8)
        for word in difflib.get_close_matches(name, words, 1, 0.75) if not parts else ():
            parts = [one for one in known if word in one.split("-")]
    if parts:
        return min(parts, key=lambda one: (not one.startswith(name[:1]), len(one)))
    return next(iter(difflib.get_close_matches(name, known, 1, 0.5)), None)
