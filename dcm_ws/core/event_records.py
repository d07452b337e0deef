"""
What operators see of one event: the event in the log, and what became of it at each agent (protocol, section 12).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from dcm_ws.core.entries import Entry
from dcm_ws.core.fates import Fate, fates
from dcm_ws.core.ledger import Ledger
from dcm_ws.core.ledger_pages import LedgerEntry, entries_of
from dcm_ws.core.ports import Log
from dcm_ws.protocol.events import is_tracked
from dcm_ws.protocol.frames import header_size


class EventRecord(NamedTuple):
    """
    An event in the log.

    @ivar timestamp: ms since the epoch.
    @ivar sender: the agent that published it; None for clients without an agent, and for the service.
    @ivar fates: what became of it at each agent, by their names.
    """

    pos: int
    event_id: str
    channel: str
    event: str
    timestamp: int
    sender: str | None
    fates: list[Fate]

    @property
    def tracked(self) -> bool:
        """
        Do agents acknowledge it?
        """
        return is_tracked(self.event)


class _Event(msgspec.Struct):
    event: str
    timestamp: int
    sender: str | None = msgspec.field(default=None, name="from")


class _Sender(msgspec.Struct):
    sender: str | None = msgspec.field(default=None, name="from")


_decode = msgspec.json.Decoder(_Event).decode
_decode_sender = msgspec.json.Decoder(_Sender).decode


class EventRecords:
    """
    The records of events that are in memory.
    """

    def __init__(self, log: Log, ledger: Ledger) -> None:
        self._log = log
        self._ledger = ledger

    def event(self, event_id: str) -> EventRecord | None:
        """
        One event; None if the log does not have it in memory.
        """
        entry = self._log.look_up(event_id)
        if entry is None:
            return None
        return record_of(entry, entries_of(self._ledger.pages_of(entry.pos), entry.pos))


def record_of(entry: Entry, entries: Iterable[LedgerEntry]) -> EventRecord:
    """
    The record of an event that is in memory.

    @param entries: what the ledger has of it.
    """
    event = _decode(entry.frame[header_size(entry.frame) :])
    return EventRecord(entry.pos, entry.id, entry.channel, event.event, event.timestamp, event.sender, fates(entries))


def sender_of(field: str | None) -> str | None:
    """
    The agent that a JSON field names, as it is in the log: C{,"from":"ann"}.  None if it names none.
    """
    try:
        return None if not field else _decode_sender("{" + field[1:] + "}").sender
    except msgspec.DecodeError:
        return None


def event_fields(record: EventRecord, chosen: Sequence[Fate]) -> dict[str, object]:
    """
    A record as people and programs get it.

    @param chosen: the fates that are shown.
    """
    return {
        "id": record.event_id,
        "pos": record.pos,
        "channel": record.channel,
        "event": record.event,
        "timestamp": record.timestamp,
        "from": record.sender,
        "tracked": record.tracked,
        "total": len(record.fates),
        "agents": [_fate(fate) for fate in chosen],
    }


def _fate(fate: Fate) -> dict[str, object]:
    return {
        "agent_id": fate.agent,
        "state": fate.state,
        "sent": fate.sends,
        "first_sent_at": fate.first_sent,
        "last_sent_at": fate.last_sent,
        "acknowledged_at": fate.acknowledged,
        "died_at": fate.dead,
        "reason": fate.reason or None,
        "redriven_at": fate.redriven,
        "history": [
            {"at": entry.at, "what": entry.what} | ({"reason": entry.reason} if entry.reason else {})
            for entry in fate.history
        ],
    }
