"""
Rows of the log in the database, as events of the core, and back.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from dcm_ws.core.entries import Draft, Entry
from dcm_ws.core.router import DATABASE
from dcm_ws.protocol.channels import GLOBAL, Channels
from dcm_ws.protocol.errors import ProtocolError
from dcm_ws.protocol.events import traits_of
from dcm_ws.protocol.replies import event_frame


class Row(NamedTuple):
    """
    An event in the table C{dcm_ws.log}, with the columns in the order in which all queries select them.
    """

    pos: int
    event_id: str
    channel: str
    event: str
    data: str
    at: int
    sender: str | None
    named: str | None = None
    publisher: str | None = None
    mirrored: bool = True


class LogRows:
    """
    Reads rows.

    @param channels: the channels that exist: an event of any other one is an event of C{global}.
    """

    def __init__(self, channels: Channels) -> None:
        self._parse = channels.parse

    def draft(self, row: Row) -> Draft | None:
        """
        The event of a row; None if it is none: somebody else has written to the table.
        """
        try:
            category, tracked, _ = traits_of(row.event)
        except ProtocolError:
            return None
        mirrored = row.mirrored
        try:
            channel = self._parse(row.channel)
        except ProtocolError:
            channel, mirrored = GLOBAL, False
        return Draft(
            row.event_id,
            channel,
            row.event,
            row.data.encode(),
            row.at,
            (row.sender or "").encode(),
            row.named or row.channel,
            category,
            tracked,
            mirrored and channel.mirrored,
            row.publisher or DATABASE,
        )

    def entry(self, row: Row, now: float) -> Entry | None:
        """
        The event of a row as it is in the log; None as with L{draft}.

        @param now: monotonic seconds.
        """
        draft = self.draft(row)
        if draft is None:
            return None
        channel = draft.channel
        frame = event_frame(draft.id, channel.json, draft.event, draft.data, draft.timestamp, draft.sender, row.pos)
        return Entry(
            row.pos, draft.id, channel.name, draft.named, frame, draft.mirrored, draft.tracked, draft.publisher, now
        )


def to_json(drafts: list[Draft]) -> str:
    """
    Events of clients as the parameter of a numbering step.
    """
    return msgspec.json.encode([_fields(draft) for draft in drafts]).decode()


def keys_to_json(drafts: list[Draft]) -> str:
    """
    Events with their keys, as a parameter.
    """
    fields = [{"event_id": draft.id, "key": draft.key, "at": draft.timestamp} for draft in drafts]
    return msgspec.json.encode(fields).decode()


def _fields(draft: Draft) -> dict[str, Any]:
    fields = {
        "event_id": draft.id,
        "channel": draft.channel.name,
        "event": draft.event,
        "data": draft.data.decode(),
        "at": draft.timestamp,
        "mirrored": draft.mirrored,
    }
    if draft.sender:
        fields["sender"] = draft.sender.decode()
    if draft.named != draft.channel.name:
        fields["named"] = draft.named
    if draft.publisher != DATABASE:
        fields["publisher"] = draft.publisher
    if draft.key:
        fields["key"] = draft.key
    return fields
