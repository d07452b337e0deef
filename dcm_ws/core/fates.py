"""
What became of one event, agent by agent, as the ledger has it (protocol, section 12).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from dcm_ws.core.ledger_pages import LedgerEntry

HISTORY_MAX = 100
"""
Entries of the history of one event at one agent, at most: the first ones, and the last one.
"""


class Fate(NamedTuple):
    """
    What became of an event at one agent.

    @ivar sends: how often it was sent.  To several connections at the same moment counts once.
    @ivar first_sent: ms since the epoch, as all times here; None if it was not sent, as far as the ledger knows.
    @ivar acknowledged: when it was acknowledged first; None if it was not.
    @ivar dead: when it became a dead letter last; None if it did not.
    @ivar reason: why; empty if it did not.
    @ivar redriven: when an operator had it sent again last; None if nobody did.
    @ivar history: everything that happened, in its order, L{HISTORY_MAX} entries at most.
    """

    agent: str
    sends: int
    first_sent: int | None
    last_sent: int | None
    acknowledged: int | None
    dead: int | None
    reason: str
    redriven: int | None
    history: list[LedgerEntry]

    @property
    def state(self) -> str:
        """
        C{acknowledged}, C{dead}, C{redriven} if it was redriven and not sent since, or C{sent}.
        """
        if self.acknowledged is not None:
            return "acknowledged"
        last = self.history[-1].what
        return "dead" if last == "dead" else "redriven" if last == "redriven" else "sent"


def fates(entries: Iterable[LedgerEntry]) -> list[Fate]:
    """
    Put together what became of an event: one fate for each agent, by their names.

    An entry may come twice: it was written, and that seemed to fail.

    @param entries: of all nodes, in any order.
    """
    by_agent: dict[str, set[LedgerEntry]] = {}
    for entry in entries:
        by_agent.setdefault(entry.agent, set()).add(entry)
    return [_fate(agent, by_agent[agent]) for agent in sorted(by_agent)]


def _fate(agent: str, entries: Iterable[LedgerEntry]) -> Fate:
    history = sorted(entries, key=lambda entry: (entry.at, _ORDER.index(entry.what)))
    # an ack settles what several connections owe, and a letter that was redriven
    history = [
        entry
        for number, entry in enumerate(history)
        if not (number and history[number - 1].what == entry.what == "acknowledged")
    ]
    sent = [entry.at for entry in history if entry.what == "sent"]
    acknowledged = [entry.at for entry in history if entry.what == "acknowledged"]
    dead = [entry for entry in history if entry.what == "dead"]
    redriven = [entry.at for entry in history if entry.what == "redriven"]
    if len(history) > HISTORY_MAX:
        history[HISTORY_MAX - 1 : -1] = []
    return Fate(
        agent,
        sends=len(sent),
        first_sent=sent[0] if sent else None,
        last_sent=sent[-1] if sent else None,
        acknowledged=acknowledged[0] if acknowledged else None,
        dead=dead[-1].at if dead else None,
        reason=dead[-1].reason if dead else "",
        redriven=redriven[-1] if redriven else None,
        history=history,
    )


# what comes first if several things happened in the same millisecond
_ORDER = ("redriven", "sent", "dead", "acknowledged")
