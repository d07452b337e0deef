"""
What every part of the service is made from.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from dcm_ws.app.settings import Settings
from dcm_ws.app.siblings import Siblings
from dcm_ws.core.counters import Count
from dcm_ws.core.ports import World
from dcm_ws.http.shares import Share


class Base(NamedTuple):
    """
    What every part is made from.

    @ivar siblings: the other workers; None if this is the only process of the service.
    """

    settings: Settings
    reactor: Any
    world: World
    siblings: Siblings | None

    def share(
        self, kind: str, most: int = 0, per_address: int = 0, *, full: Count | None = None, crowded: Count
    ) -> Share:
        """
        Room for connections, as in L{Siblings.share}.
        """
        if self.siblings is None:
            return Share(most, per_address, full=full, crowded=crowded)
        return self.siblings.share(kind, most, per_address, full=full, crowded=crowded)
