"""
Events as commands print them: as a line of columns, or as JSON.
"""

from __future__ import annotations

from datetime import datetime

from dcm_ws.cli.terminal import compact, harmless
from dcm_ws.client import Event


def fields_of(event: Event) -> dict[str, object]:
    """
    An event as C{--json} prints it.
    """
    more = {"from": event.sender, "origin": event.origin, "pos": event.pos}
    return {
        "id": event.id,
        "channel": event.channel,
        "event": event.event,
        "data": event.data,
        "timestamp": event.timestamp,
        **{name: value for name, value in more.items() if value is not None},
    }


def columns_of(event: Event, *, dated: bool = False) -> tuple[str, str, str, str]:
    """
    Time, event, channel and data, each harmless; the middle ones are padded.

    @param dated: the time has a date.
    """
    form = "%Y-%m-%d %H:%M:%S.%f" if dated else "%H:%M:%S.%f"
    when = datetime.fromtimestamp(event.timestamp / 1000).strftime(form)[:-3]
    return when, f"{harmless(event.event):<19}", f"{harmless(event.channel):<20}", compact(event.data)
