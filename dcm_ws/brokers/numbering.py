"""
One numbering step: what it is given, and what it returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from dcm_ws.brokers.log_rows import Row, to_json
from dcm_ws.core.entries import Draft
from dcm_ws.postgres.log_place import Snapshot
from dcm_ws.postgres.statements import statement

STEP = statement("numbering/step")
ROWS = 1000
ROWS_BYTES = 4 << 20
"""
How many events of others a step returns at most, and bytes of them; if there are more, they are read in the log.
"""


class Placed(NamedTuple):
    """
    What a step returns.

    @ivar head: the last position.
    @ivar others: how many events were not published by clients here.
    @ivar snapshot: what was visible.
    @ivar rows: the events that were not published by clients here, if they are few; with positions.
    @ivar clients: the positions of those that were, by their number in the batch.
    @ivar again: by number, the position and the id of the event that was published before with the same key.
    """

    head: int
    others: int
    snapshot: Snapshot
    rows: list[Row]
    clients: dict[int, int]
    again: dict[int, tuple[int, str]]


def step_parameters(head: int, snapshot: Snapshot, old: int, drafts: list[Draft], *, tell: bool) -> dict[str, object]:
    """
    The parameters of L{STEP}.

    @param head: the last position.
    @param snapshot: of the last step.
    @param old: a position that is an hour old or older: events with the same key are looked for after it.
    @param drafts: what clients have published.
    @param tell: notify others that the log has grown.
    """
    return {
        "xmax": snapshot.xmax,
        "xip": snapshot.xip,
        "head": head,
        "old": old,
        "clients": to_json(drafts) if drafts else "[]",
        "rows": ROWS,
        "bytes": ROWS_BYTES,
        "tell": tell,
    }


def read_step(rows: Sequence[tuple[Any, ...]]) -> Placed:
    """
    Read the rows that a step returns.
    """
    head, others, snapshot = 0, 0, Snapshot("0", "{}")
    events: list[Row] = []
    clients: dict[int, int] = {}
    again: dict[int, tuple[int, str]] = {}
    for kind, pos, number, *fields in rows:
        if kind == "other":
            events.append(Row(pos, *fields))
        elif kind == "client":
            clients[number] = pos
        elif kind == "again":
            again[number] = (pos, fields[0])
        else:
            head, others, snapshot = pos, number, Snapshot.parse(fields[0])
    events.sort()
    return Placed(head, others, snapshot, events, dict(sorted(clients.items())), again)
