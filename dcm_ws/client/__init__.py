"""
Clients of the service: L{dcm_ws.client.aio} for asyncio, and L{dcm_ws.client.tx} for Twisted, which is exported here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dcm_ws.client.core import State
from dcm_ws.client.errors import ClosedError, DCMError, NotConnectedError, RefusedError, RequestTimeoutError
from dcm_ws.client.events import Event
from dcm_ws.client.gaps import Gap, Position
from dcm_ws.client.published import Published
from dcm_ws.client.storage import PositionError, PositionFile

if TYPE_CHECKING:
    from dcm_ws.client.tx import DCMClient

__all__ = [
    "ClosedError",
    "DCMClient",
    "DCMError",
    "Event",
    "Gap",
    "NotConnectedError",
    "Position",
    "PositionError",
    "PositionFile",
    "Published",
    "RefusedError",
    "RequestTimeoutError",
    "State",
]


def __getattr__(name: str) -> Any:
    """
    Import Twisted only when its client is used: a program that runs asyncio needs no reactor.
    """
    if name == "DCMClient":
        from dcm_ws.client.tx import DCMClient

        return DCMClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
