"""
What a model is shown, and how.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dcm_ws.mcp.rendering import DATA_MAX
from dcm_ws.mcp.wanted import EVERYTHING, Wanted

Push = Literal["auto", "channel", "notify", "off"]
"""
How a model learns of events that it has not asked for: C{channel} by C{notifications/claude/channel}, C{notify} by a
notification that events wait, C{auto} by the first if the client has said that it understands it, C{off} not at all.
"""

PER_MINUTE = 60.0
"""
Notifications in a minute.
"""


@dataclass(frozen=True, slots=True)
class Choice:
    """
    What the model is shown, and how.

    @ivar trusted: the events that it is shown.
    @ivar push: how it learns of events that it has not asked for.
    @ivar per_minute: notifications in a minute.
    @ivar data_max: characters of an event's data.
    """

    trusted: Wanted = EVERYTHING
    push: Push = "auto"
    per_minute: float = PER_MINUTE
    data_max: int = DATA_MAX
