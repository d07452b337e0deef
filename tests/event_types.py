"""
Whether the data of an event is what its type says.
"""

from __future__ import annotations

from typing import Any, get_type_hints

import msgspec

from dcm_ws.client import catalogue
from dcm_ws.protocol.catalogue import EVENTS

_PAYLOADS = {entry.name: entry.payload for entry in EVENTS}


def fits(event: str, data: Any, source: str) -> bool:
    """
    True if C{data} has the type of the event, and no field but those that C{source} sends.

    @raise msgspec.ValidationError: a value has another type.
    """
    payload = _PAYLOADS[event]
    kind = getattr(catalogue, payload.name)
    msgspec.convert(data, kind)
    fields = {field.name for field in payload.fields if source in field.sources}
    assert fields <= get_type_hints(kind).keys()
    assert set(data) <= fields, set(data) - fields
    return True
