"""
Pages of the ledger: what happened to the events of one part of the log, in the order in which it was noted, as JSON.

A page says each thing once: the names of the agents, an audience to which several events went, and the time of what
happened in the same millisecond.  Agents are numbers that mean something in their page only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Literal, NamedTuple

import msgspec

What = Literal["sent", "acknowledged", "dead", "redriven"]
"""
What may happen to an event that an agent gets.
"""

BLOCK = 4096
"""
Positions of the log that one page may have something of: it has only those of one block.
"""


class LedgerPage(NamedTuple):
    """
    A part of the ledger.

    @ivar first: the lowest position that it has something of.
    @ivar upto: the highest one, which is of the same block.
    @ivar entries: JSON.
    """

    first: int
    upto: int
    entries: bytes


class LedgerEntry(NamedTuple):
    """
    One thing that happened to an event.

    @ivar at: ms since the epoch.
    @ivar reason: why it became a dead letter; empty for everything else.
    """

    at: int
    agent: str
    what: What
    reason: str = ""


class Seldom(NamedTuple):
    """
    What happens so seldom that it is noted by itself.
    """

    pos: int
    at: int
    agent: str
    what: What
    reason: str = ""


class Page(msgspec.Struct):
    """
    A page before it is encoded.

    @ivar clock: what is to be added to its times to have ms since the epoch.
    @ivar names: the agents by number, from 1.
    @ivar audiences: the numbers of the agents of each.
    @ivar sent: what went to an audience: position, ms, and index of the audience; one after the other.
    @ivar alone: what went to one agent: position, ms, and number of the agent; one after the other.
    @ivar again: for each position the numbers of the agents to which it went again; before those of one time comes that
        time, in ms, as a negative number.
    @ivar acked: the same for those that have acknowledged it.
    """

    clock: int = 0
    names: dict[int, str] = {}
    audiences: list[list[int]] = []
    sent: list[int] = []
    alone: list[int] = []
    again: list[tuple[int, list[int]]] = []
    acked: list[tuple[int, list[int]]] = []
    seldom: list[Seldom] = []

    def find(self, pos: int) -> Iterator[LedgerEntry]:
        """
        Iterate over what happened to the event at one position.
        """
        names, clock = self.names, self.clock
        for at, audience in _find(self.sent, pos):
            for number in self.audiences[audience]:
                yield LedgerEntry(at + clock, names[number], "sent")
        for at, number in _find(self.alone, pos):
            yield LedgerEntry(at + clock, names[number], "sent")
        for at, number in _noted(self.again, pos):
            yield LedgerEntry(at + clock, names[number], "sent")
        for at, number in _noted(self.acked, pos):
            yield LedgerEntry(at + clock, names[number], "acknowledged")
        for one in self.seldom:
            if one.pos == pos:
                yield LedgerEntry(one.at + clock, one.agent, one.what, one.reason)

    def pages(self, names: Mapping[int, str]) -> Iterator[LedgerPage]:
        """
        Iterate over the page encoded: in several pages if it has positions of several blocks.

        @param names: of all agents that it has, and maybe of others.
        """
        positions = {
            *self.sent[::3],
            *self.alone[::3],
            *(one[0] for one in chain(self.again, self.acked)),
            *(one.pos for one in self.seldom),
        }
        if not positions:
            return
        first, upto = min(positions), max(positions)
        if first // BLOCK != upto // BLOCK:
            for part in self._parts().values():
                yield from part.pages(names)
            return
        numbers = set(self.alone[2::3]).union(
            *self.audiences, *(numbers for _, numbers in chain(self.again, self.acked))
        )
        self.names = {number: names[number] for number in numbers if number > 0}
        yield LedgerPage(first, upto, _encode(self))

    def _parts(self) -> dict[int, Page]:
        """
        A page for each block.
        """
        parts: dict[int, Page] = {}

        def part(pos: int) -> Page:
            block = pos // BLOCK
            if block not in parts:
                parts[block] = Page(self.clock)
            return parts[block]

        indexes: dict[tuple[int, int], int] = {}
        for pos, at, audience in zip(*[iter(self.sent)] * 3, strict=True):
            page, key = part(pos), (pos // BLOCK, audience)
            if key not in indexes:
                indexes[key] = len(page.audiences)
                page.audiences.append(self.audiences[audience])
            page.sent += (pos, at, indexes[key])
        for pos, at, number in zip(*[iter(self.alone)] * 3, strict=True):
            part(pos).alone += (pos, at, number)
        for noted in self.again:
            part(noted[0]).again.append(noted)
        for noted in self.acked:
            part(noted[0]).acked.append(noted)
        for one in self.seldom:
            part(one.pos).seldom.append(one)
        return parts


def _find(triples: Sequence[int], pos: int) -> Iterator[tuple[int, int]]:
    """
    Iterate over what follows C{pos}, where it comes first of three.
    """
    if pos in triples:
        for sent, at, other in zip(*[iter(triples)] * 3, strict=True):
            if sent == pos:
                yield at, other


def _noted(of_positions: Sequence[tuple[int, list[int]]], pos: int) -> Iterator[tuple[int, int]]:
    """
    Iterate over the times and the agents that one position has.
    """
    for noted, numbers in of_positions:
        at = 0
        for number in numbers if noted == pos else ():
            if number < 0:
                at = -number
            else:
                yield at, number


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Page).decode


def entries_of(pages: Iterable[bytes], pos: int) -> Iterator[LedgerEntry]:
    """
    Iterate over what pages have of one event.

    Somebody may have written into the table by hand: what cannot be read is left out.

    @param pages: JSON.
    """
    for page in pages:
        try:
            yield from _decode(page).find(pos)
        except (msgspec.DecodeError, LookupError, ValueError):
            continue
