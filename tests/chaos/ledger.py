"""
Holds what was received against what was published.

What must hold (protocol, sections 3 and 4):

 - a tracked event reaches every agent that was subscribed when it first left, and that keeps coming back;
 - an untracked one reaches every agent that was connected all the while;
 - an agent gets the events of one publisher on one channel, each for the first time, in the order of their publishing:
   on one connection, and across several, since what it missed comes before anything newer;
 - what comes again comes under the same id and the same position, and what is logged has a position;
 - a reader that resumes gets each logged event once, or is told of a gap where it was;
 - a tracked event that an agent does not acknowledge comes again.

What cannot hold is counted apart: an event whose publisher was cut off before it knew (C{unknown}), and a NOTIFY while
the service was not listening (C{unheard}).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.chaos.records import Publication, Receipt, Records, Stay, is_logged, is_tracked

SLACK = 1.0
"""
Seconds that what was on its way when something was cut may have been on its way for.
"""

DEAF_MOST = 30.0
"""
Seconds in which the service must be listening again.
"""

_KINDS = ("tracked", "untracked")
_ORIGINS = ("client", "database")
_Key = tuple[str, int]


@dataclass(slots=True)
class Row:
    """
    One class of events.

    @ivar sent: events, as are C{unknown} and C{unheard}.  All else is events times the agents that listened, on each
        channel that they were on.
    @ivar due: of those that are neither unknown nor unheard; C{once}, C{again}, C{lost} and C{missed} make it up.
    @ivar missed: untracked, and published while the agent was away or its connection about to end.
    @ivar disordered: what came for the first time after something newer.
    @ivar unheard_came: of the unheard ones, those that came all the same.
    """

    sent: int = 0
    unknown: int = 0
    unheard: int = 0
    due: int = 0
    once: int = 0
    again: int = 0
    missed: int = 0
    lost: int = 0
    disordered: int = 0
    unknown_came: int = 0
    unheard_came: int = 0
    unheard_lost: int = 0


@dataclass(slots=True)
class Ledger:
    """
    @ivar rows: by class.
    @ivar wrongs: each promise that was broken, in words.
    """

    rows: dict[str, Row] = field(default_factory=dict)
    wrongs: list[str] = field(default_factory=list)

    def table(self) -> str:
        """
        The rows as text.
        """
        names = list(Row.__slots__)
        lines = [["", *(name.replace("_", " ") for name in names)]]
        lines += [[name, *(str(getattr(row, count)) for count in names)] for name, row in self.rows.items()]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(cell.rjust(width) if place else cell.ljust(width) for place, (cell, width) in enumerate(cells))
            for cells in (list(zip(line, widths, strict=True)) for line in lines)
        )


def settle(records: Records) -> Ledger:
    """
    The ledger of what was written down.
    """
    ledger = Ledger({f"{kind}, {origin}": Row() for kind in _KINDS for origin in _ORIGINS}, list(records.wrongs))
    published = {(each.publisher, each.number): each for each in records.publications}
    ledger.wrongs += _impostors(published, records.receipts)
    ledger.wrongs += [
        f"{agent}: {event_id} on {channel} was not acknowledged, and did not come again"
        for (agent, event_id), channel in records.unanswered.items()
    ]
    # on a channel that an agent leaves at once it may get only a later delivery of an older event
    in_order = [
        receipt
        for receipt in records.receipts
        if receipt.agent not in records.several and receipt.channel in records.wanted.get(receipt.agent, ())
    ]
    _count_order(ledger, published, in_order)
    _count_receipts(ledger, records)
    ledger.wrongs += _misread(records)
    return ledger


def deaf_times(records: Records) -> list[tuple[float, float]]:
    """
    When a NOTIFY may not have been heard: from shortly before a connection was cut, or was said to be down, until it
    was said to be up again.
    """
    ups = sorted(at for at, up in records.database if up)
    downs = [at for at, up in records.database if not up]
    times = []
    for began in sorted((*records.cuts, *downs)):
        place = bisect_left(ups, began)
        times.append((began - SLACK, ups[place] if place < len(ups) else float("inf")))
    return times


def _row(ledger: Ledger, publication: Publication) -> Row:
    kind = "tracked" if is_tracked(publication.event) else "untracked"
    return ledger.rows[f"{kind}, {'database' if publication.from_database else 'client'}"]


def _impostors(published: dict[_Key, Publication], receipts: list[Receipt]) -> Iterator[str]:
    """
    What came that was not what had been published, or came under two names.
    """
    names: dict[_Key, str] = {key: each.id for key, each in published.items() if each.id is not None}
    keys: dict[str, _Key] = {}
    places = {each.id: each.pos for each in published.values() if each.id is not None}
    for receipt in receipts:
        key = receipt.publisher, receipt.number
        shown = f"{receipt.agent}: event {receipt.number} of {receipt.publisher} on {receipt.channel}"
        publication = published.get(key)
        if publication is None:
            yield f"{shown} was never published"
        elif publication.event != receipt.event or receipt.channel not in (publication.channel, "global"):
            yield f"{shown} is not what was published"
        if not receipt.intact:
            yield f"{shown} was changed on its way"
        if names.setdefault(key, receipt.id) != receipt.id:
            yield f"{shown} came as {receipt.id}, and is {names[key]}"
        if places.setdefault(receipt.id, receipt.pos) != receipt.pos:
            yield f"{shown} came from position {receipt.pos}, and is at {places[receipt.id]}"
        if (receipt.pos is not None) != is_logged(receipt.event):
            yield f"{shown} came with position {receipt.pos}"
        if keys.setdefault(receipt.id, key) != key:
            yield f"{shown} came as {receipt.id}, and that is another event"


def _count_order(ledger: Ledger, published: dict[_Key, Publication], receipts: list[Receipt]) -> None:
    latest: dict[tuple[str, str, str, bool], int] = defaultdict(int)
    seen: set[tuple[str, str, str, bool, int]] = set()
    for receipt in receipts:
        # what is not logged may come before what is, which waits while an agent catches up
        stream = receipt.agent, receipt.channel, receipt.publisher, is_logged(receipt.event)
        if (*stream, receipt.number) in seen:
            continue
        seen.add((*stream, receipt.number))
        if receipt.number > latest[stream]:
            latest[stream] = receipt.number
        elif publication := published.get((receipt.publisher, receipt.number)):
            _row(ledger, publication).disordered += 1
            ledger.wrongs.append(
                f"{receipt.agent}: event {receipt.number} of {receipt.publisher} on {receipt.channel}"
                f" came first after {latest[stream]}"
            )


def _count_receipts(ledger: Ledger, records: Records) -> None:
    counts = Counter((each.agent, each.channel, each.publisher, each.number) for each in records.receipts)
    deaf = deaf_times(records)
    for began, ended in deaf:
        if ended - began > DEAF_MOST:
            ledger.wrongs.append(f"the service did not come back to the database after {began:.3f}")
    stays: dict[str, list[Stay]] = defaultdict(list)
    for stay in records.stays:
        stays[stay.agent].append(stay)
    for publication in records.publications:
        row = _row(ledger, publication)
        unheard = publication.from_database and publication.ended is not None and _during(publication, deaf)
        row.sent += 1
        row.unknown += publication.ended is None
        row.unheard += unheard
        for agent, channels in records.wanted.items():
            for channel in {publication.channel, "global"}.intersection(channels):
                times = counts[agent, channel, publication.publisher, publication.number]
                if publication.ended is None:
                    row.unknown_came += times > 0
                elif unheard:
                    row.unheard_came += times > 0
                    row.unheard_lost += times == 0
                else:
                    lost = _count_due(row, publication, times, stays[agent])
                    if lost:
                        ledger.wrongs.append(f"{agent}: {_shown(publication)} on {channel} was lost")


def _misread(records: Records) -> Iterator[str]:
    """
    What readers did not get, or got twice.
    """
    deaf = deaf_times(records)
    for publication in records.publications:
        unheard = publication.from_database and publication.ended is not None and _during(publication, deaf)
        for name, reading in records.readings.items():
            times = reading.counts[publication.publisher, publication.number]
            if times > 1:
                yield f"{name}: {_shown(publication)} came {times} times"
            if not is_logged(publication.event) or not {publication.channel, "global"}.intersection(reading.channels):
                continue
            if times or unheard or publication.ended is None:
                continue
            # nobody knows the position of a NOTIFY that did not come
            told = any(publication.pos is None or publication.pos in gap for gap in reading.gaps)
            if not told:
                yield f"{name}: {_shown(publication)} did not come, and no gap was told"


def _count_due(row: Row, publication: Publication, times: int, stays: list[Stay]) -> bool:
    """
    Count what an agent had a right to; answers whether it was lost.
    """
    row.due += 1
    row.once += times == 1
    row.again += times > 1
    if times:
        return False
    lost = is_tracked(publication.event) or _was_there(publication, stays)
    row.lost += lost
    row.missed += not lost
    return lost


def _shown(publication: Publication) -> str:
    return (
        f"event {publication.number} of {publication.publisher}"
        f" ({publication.event}, {publication.id}, published at {publication.ended or 0:.3f})"
    )


def _during(publication: Publication, times: list[tuple[float, float]]) -> bool:
    assert publication.ended is not None
    return any(began <= publication.ended and publication.began <= ended for began, ended in times)


def _was_there(publication: Publication, stays: list[Stay]) -> bool:
    """
    Did one connection last from before it was sent until it must have come?
    """
    assert publication.ended is not None
    until = publication.ended + SLACK
    return any(stay.began < publication.began and (stay.ended is None or until < stay.ended) for stay in stays)
