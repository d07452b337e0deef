"""
What became of one event, for operators (docs/protocol.md, section 12).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.web.server import Request

from dcm_ws.core.event_records import EventRecord, event_fields
from dcm_ws.http.api import Gate
from dcm_ws.http.operators import MOST, PAGE, OperatorPage, as_deferred, not_found
from dcm_ws.http.queries import malformed, rest_of_path, text, whole

_ID_MAX = 64


class Events(Protocol):
    """
    Where the records of events are; see L{EventRecords<dcm_ws.core.event_records.EventRecords>}.
    """

    def event(self, event_id: str) -> EventRecord | Deferred[EventRecord | None] | None: ...


class EventPage(OperatorPage):
    """
    C{/v1/events/ID}: the ledger of one event.
    """

    isLeaf = True

    def __init__(self, wall_ms: Callable[[], int], gate: Gate, events: Events) -> None:
        super().__init__(wall_ms, gate)
        self._events = events

    def answer_operator(self, request: Request) -> Deferred[bytes]:
        event_id = rest_of_path(request)
        if not (event_id.isprintable() and 0 < len(event_id) <= _ID_MAX):
            raise malformed("id", f"use the id of an event, which has at most {_ID_MAX} characters")
        most = whole(request, "limit", 1, MOST) or PAGE
        after, agent = text(request, "after") or "", text(request, "agent")
        found = as_deferred(self._events.event(event_id))
        return found.addCallback(lambda record: self._answer(request, event_id, record, agent, after, most))

    def _answer(
        self, request: Request, event_id: str, record: EventRecord | None, agent: str | None, after: str, most: int
    ) -> bytes:
        if record is None:
            raise not_found(f"The log has no event {event_id}")
        chosen = [fate for fate in record.fates if fate.agent > after and (agent is None or fate.agent == agent)]
        more = {"next": chosen[most - 1].agent} if len(chosen) > most else {}
        return self.answer(request, event_fields(record, chosen[:most]) | more)
