"""
A copy of the log, and what clients received compared with it.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterator

from tests.chaos.durable.history import Key, Receipt, Row

_FAMILIES = ("agents/", "sessions/", "topics/")


def name_of(row: Row) -> Key | None:
    """
    Which event a row of the log is; None if it is none of the test's.
    """
    data = json.loads(row.data)
    return (data["publisher"], data["number"]) if isinstance(data, dict) and "publisher" in data else None


def channel_of(row: Row) -> str:
    """
    The channel of a row: names that are none of the protocol's families stand for C{global}.
    """
    return row.channel if row.channel.startswith(_FAMILIES) else "global"


class LogCopy:
    """
    The log of one epoch, by channel.
    """

    def __init__(self, rows: dict[int, Row]) -> None:
        self.rows = rows
        self.by_channel: defaultdict[str, list[int]] = defaultdict(list)
        for pos in sorted(rows):
            row = rows[pos]
            channel = channel_of(row)
            self.by_channel[channel].append(pos)
            if row.mirrored and channel != "global":
                self.by_channel["global"].append(pos)

    def due(self, channels: Collection[str], after: int, upto: float) -> set[int]:
        """
        The positions of these channels between two positions.
        """
        found: set[int] = set()
        for channel in channels:
            positions = self.by_channel.get(channel, [])
            found.update(positions[bisect_left(positions, after + 1) : bisect_left(positions, upto + 0.5)])
        return found


def false_receipt(receipt: Receipt, known: dict[str, LogCopy]) -> Iterator[str]:
    """
    A frame that is not what the log has.
    """
    log = known.get(receipt.epoch)
    row = log.rows.get(receipt.pos or 0) if log is not None else None
    if row is None:
        yield f"{receipt.id} came from position {receipt.pos} of {receipt.epoch}, where the log has nothing"
        return
    name = name_of(row)
    if (row.id, row.event, name) != (receipt.id, receipt.event, (receipt.publisher, receipt.number)):
        yield f"{receipt.id} came from position {receipt.pos} of {receipt.epoch}, where the log has {row.id}"
    if receipt.channel != channel_of(row) and not (receipt.channel == "global" and row.mirrored):
        yield f"{receipt.id} came on {receipt.channel}, and is on {row.channel}"
    if not receipt.intact:
        yield f"{receipt.id} was changed on its way"
