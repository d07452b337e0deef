"""
Makes the HTTP calls of C{/v1}.
"""

from __future__ import annotations

from functools import partial

from twisted.web.resource import IResource

from dcm_ws.app.base import Base
from dcm_ws.app.settings import Settings
from dcm_ws.core.assembly import Core
from dcm_ws.http.api import Gate
from dcm_ws.http.bodies import Bodies
from dcm_ws.http.partial import Holder, PartialMessages
from dcm_ws.http.publish import PublishPage


def make_calls(base: Base, core: Core, gate: Gate) -> dict[bytes, IResource]:
    """
    All calls, each under its path.
    """
    wall_ms, limits = core.world.wall_ms, core.counts.limits
    return {
        b"v1/publish": PublishPage(
            wall_ms,
            gate,
            core.publishing,
            limits,
            later=partial(base.reactor.callLater, 0),
            max_event=base.settings.max_message_size,
        ),
    }


def make_bodies(settings: Settings, core: Core, gate: Gate, partial: PartialMessages[Holder]) -> Bodies:
    """
    Make what takes the bodies of requests.

    @param partial: counts the bytes of incomplete messages and bodies.
    """
    return Bodies(
        {b"v1/publish": max(settings.max_batch_size, settings.max_message_size)},
        core.counts.limits,
        partial,
        settings.max_stranger_message if settings.production else 0,
        gate.knows,
    )
