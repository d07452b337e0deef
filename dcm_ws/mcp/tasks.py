"""
Who has claimed a task: the first claim in the log wins, and all agents read the same log.
"""

from __future__ import annotations

from collections.abc import Iterable

from dcm_ws.client import Event

CLAIM = "task.updated"
"""
The event that claims a task; its data have C{task_id} and C{status}.
"""

CLAIMED = "claimed"


def claim(task_id: str) -> dict[str, str]:
    """
    The data of a claim.
    """
    return {"task_id": task_id, "status": CLAIMED}


def first_claim(events: Iterable[Event], task_id: str) -> Event | None:
    """
    The first event that claims a task; None if there is none.

    @param events: in the order of the log.  Claims without a sender do not count: anyone can publish those.
    """
    for event in events:
        if (
            event.event == CLAIM
            and event.sender is not None
            and isinstance(event.data, dict)
            and (event.data.get("task_id"), event.data.get("status")) == (task_id, CLAIMED)
        ):
            return event
    return None
