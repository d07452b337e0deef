"""
Makes the HTTP calls of C{/v1}.
"""

from __future__ import annotations

from functools import partial

from twisted.web.resource import IResource

from dcm_ws.app.base import Base
from dcm_ws.app.database import Database
from dcm_ws.app.settings import Settings
from dcm_ws.brokers.postgres_log import PostgresLog
from dcm_ws.brokers.stored_events import StoredEvents
from dcm_ws.brokers.stored_records import StoredRecords
from dcm_ws.core.assembly import Core
from dcm_ws.core.log import MemoryLog
from dcm_ws.http.api import Gate
from dcm_ws.http.api_calls import CALLS
from dcm_ws.http.assets import StaticFile
from dcm_ws.http.bodies import Bodies
from dcm_ws.http.dead import DeadPage, RedrivePage
from dcm_ws.http.event_stream import EventStreams
from dcm_ws.http.events import EventPage, Events
from dcm_ws.http.openapi import document
from dcm_ws.http.operators import AgentsPage, PresencePage, Records
from dcm_ws.http.pacing import Pacing
from dcm_ws.http.page_reader import PageReader
from dcm_ws.http.partial import Holder, PartialMessages
from dcm_ws.http.publish import PublishPage
from dcm_ws.http.shares import Share
from dcm_ws.http.streams import StreamPage, StreamParts
from dcm_ws.protocol.channels import Channels
from dcm_ws.protocol.replies import to_json
from dcm_ws.version import VERSION

_REQUEST_MAX = 256 << 10
# as JSON in JSON it is six times as long, at most, which the process for MCP still reads
_MCP_MAX = 8 << 20


def make_calls(
    base: Base,
    core: Core,
    channels: Channels,
    gate: Gate,
    streams: EventStreams,
    polls: set[PageReader],
    database: Database | None,
    log: MemoryLog | PostgresLog,
) -> dict[bytes, IResource]:
    """
    All calls, each under its path.

    @param polls: the long polls that wait.
    @param database: None if the service has none.
    @param log: that of C{core}.
    """
    settings, world, limits = base.settings, base.world, core.counts.limits
    records: Records = core.records
    if settings.cluster and database is not None:
        records = stored = StoredRecords(base.reactor, database.place)
        stored.setServiceParent(database)
    events: Events = core.events
    if isinstance(log, PostgresLog) and database is not None:
        events = stored_events = StoredEvents(base.reactor, database.place, log, core.events, core.ledger)
        stored_events.setServiceParent(database)
    agents = AgentsPage(world.wall_ms, gate, records, core.whereabouts, core.expulsion, lambda: core.log.head)
    return {
        b"openapi.json": StaticFile(
            world.wall_ms,
            to_json(document(CALLS, VERSION, settings.extra_channels, settings.extra_events)),
            "application/json",
        ),
        b"v1/channels": PresencePage(world.wall_ms, gate, channels, core.whereabouts),
        b"v1/agents": agents,
        b"v1/dead": DeadPage(world.wall_ms, gate, records),
        b"v1/dead/redrive": RedrivePage(world.wall_ms, gate, records),
        b"v1/events": EventPage(world.wall_ms, gate, events),
        b"v1/publish": PublishPage(
            world.wall_ms,
            gate,
            core.publishing,
            limits,
            later=partial(base.reactor.callLater, 0),
            max_event=settings.max_message_size,
        ),
        b"v1/streams": StreamPage(
            world.wall_ms,
            gate,
            StreamParts(
                channels,
                core.readers,
                core.hub,
                streams,
                polls,
                base.reactor,
                world.random,
                long_poll=settings.long_poll,
            ),
        ),
    }


def make_streams(base: Base, core: Core, pacing: Pacing, share: Share) -> EventStreams:
    """
    Make the event streams.

    @param share: of WebSockets, of which they are part.
    """
    return EventStreams(
        core.hub,
        core.readers,
        core.counts,
        pacing=pacing,
        share=share,
        send_buffer=base.settings.max_send_buffer,
        chance=base.world.random,
    )


def make_bodies(settings: Settings, core: Core, gate: Gate, partial: PartialMessages[Holder]) -> Bodies:
    """
    Make what takes the bodies of requests.

    @param partial: counts the bytes of incomplete messages and bodies.
    """
    return Bodies(
        {
            b"v1/publish": max(settings.max_batch_size, settings.max_message_size),
            b"v1/dead/redrive": _REQUEST_MAX,
            **({b"mcp": min(settings.max_batch_size, _MCP_MAX)} if settings.mcp else {}),
        },
        core.counts.limits,
        partial,
        settings.max_stranger_message if settings.production else 0,
        gate.knows,
    )
