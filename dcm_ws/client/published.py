"""
What a client knows of an event that it has published.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Published(str):
    """
    The id of a published event.

    @param answer: the server's.

    @ivar pos: the event's position in the log; None if it is not logged.
    @ivar duplicate: the same agent had published it before, with the same key.
    """

    __slots__ = ("duplicate", "pos")

    pos: int | None
    duplicate: bool

    def __new__(cls, answer: Mapping[str, Any]) -> Published:
        published = super().__new__(cls, answer["message_id"])
        published.pos = answer.get("pos")
        published.duplicate = answer.get("duplicate") is True
        return published
