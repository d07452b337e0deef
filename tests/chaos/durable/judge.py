"""
Judges what was written down.  It shares no code with the service.

What must hold (protocol, section 10):

 - what was committed or acknowledged is in the log once, and what was rolled back is not;
 - positions are dense, and never mean another event;
 - what was published after another publisher knew that an event was published is behind that event; what is published
   on one connection or in one session keeps its order on each channel;
 - a follower gets each event of its channels once, in the order of the log, as the log has it, or is told of a gap;
 - and what L{tests.chaos.durable.agent_judge} says of agents.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from tests.chaos.durable.agent_judge import judge_agent
from tests.chaos.durable.history import (
    DONE,
    REFUSED,
    UNDONE,
    UNKNOWN,
    Call,
    Follower,
    Gap,
    History,
    Key,
    Receipt,
    Row,
    is_logged,
    padding,
)
from tests.chaos.durable.log_copy import LogCopy, channel_of, false_receipt, name_of

_NEAR = 4.0
"""
Seconds around a disturbance of the database or the service within which the outcome of a commit may be unknown to it.
"""


@dataclass(slots=True)
class Verdict:
    """
    @ivar wrongs: each promise that was broken, in words, with the time if there is one.
    @ivar counts: what there was.
    """

    wrongs: list[tuple[float | None, str]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


def judge(history: History) -> Verdict:
    """
    Compare everything with everything.
    """
    verdict = Verdict([(None, wrong) for wrong in history.wrongs], Counter(history.counts))
    events = _by_name(history)
    final = list(history.log)[-1] if history.log else ""
    _judge_log(history, final, events, verdict)
    known = {epoch: LogCopy(rows) for epoch, rows in history.log.items()}
    for follower in history.followers:
        for at, wrong in _judge_follower(follower, known, history):
            verdict.wrongs.append((at, f"{follower.name}: {wrong}"))
        verdict.counts["events at followers"] += sum(isinstance(step, Receipt) for step in follower.steps)
        verdict.counts["gaps told to followers"] += sum(isinstance(step, Gap) for step in follower.steps)
    for agent in history.agents.values():
        for at, wrong in judge_agent(agent, history, verdict.counts):
            verdict.wrongs.append((at, f"{agent.name}: {wrong}"))
    for row in history.left:
        verdict.wrongs.append((None, f"left in the inbox: {str(row)[:200]}"))
    return verdict


def _by_name(history: History) -> dict[Key, list[Call]]:
    events: dict[Key, list[Call]] = {}
    for call in history.calls:
        events.setdefault(call.name, []).append(call)
    return events


# the log


def _judge_log(history: History, final: str, events: dict[Key, list[Call]], verdict: Verdict) -> None:
    wrongs, counts = verdict.wrongs, verdict.counts
    rows = history.log.get(final, {})
    positions = sorted(rows)
    for before, after in pairwise(positions):
        if after != before + 1:
            wrongs.append((None, f"the log has nothing between {before} and {after}"))
    places: dict[Key, Row] = {}
    ids: dict[str, int] = {}
    for pos in positions:
        row = rows[pos]
        if ids.setdefault(row.id, pos) != pos:
            wrongs.append((None, f"{row.id} is in the log at {ids[row.id]} and {pos}"))
        name = name_of(row)
        if name is None:
            continue
        if name in places and _may_be_doubled(events.get(name), history):
            counts["NOTIFY in the log twice, when another node took the lead"] += 1
        elif name in places:
            wrongs.append((_when(events, name), f"{name} is in the log twice: {places[name].pos} and {pos}"))
        places[name] = row
        wrongs += [(_when(events, name), wrong) for wrong in _false_row(row, events.get(name))]
    counts["events in the log"] = len(rows)
    for name, calls in events.items():
        wrongs += [(calls[-1].ended, wrong) for wrong in _misplaced(name, calls, places.get(name), history)]
        for call in calls:
            counts[f"published by {call.via}: {call.outcome}"] += 1
            counts[f"refused or unknown ({call.via}), and in the log"] += (
                call.outcome in (REFUSED, UNKNOWN) and name in places and len(calls) == 1
            )
    wrongs += _inverted(events, places)


def _may_be_doubled(calls: list[Call] | None, history: History) -> bool:
    """
    Was it a NOTIFY at a time when another node may have taken the lead?  "Both had heard the NOTIFY in the second
    before, and the first had logged it" (docs/guarantees.md).
    """
    if calls is None or calls[0].via != "notify" or not history.is_cluster:
        return False
    began, ended = calls[0].began, calls[0].ended or calls[0].began
    return any(one.began - _NEAR < ended and began < one.ended + _NEAR for one in history.incidents)


def _when(events: dict[Key, list[Call]], name: Key) -> float | None:
    return events[name][-1].began if name in events else None


def _false_row(row: Row, calls: list[Call] | None) -> Iterator[str]:
    """
    A row of the log that is not what somebody published.
    """
    if calls is None:
        yield f"position {row.pos} was never published: {row}"
        return
    call = calls[0]
    channel = channel_of(row._replace(channel=call.channel))
    data = json.loads(row.data)
    if (channel_of(row), row.event) != (channel, call.event) or data["padding"] not in (padding(call.number), ""):
        yield f"{call.name} is at {row.pos} as {row.event} on {row.channel}, and was {call.event} on {channel}"
    told = {one.id for one in calls if one.id is not None}
    if told and all(one.outcome == DONE for one in calls) and row.id not in told:
        yield f"{call.name} is at {row.pos} as {row.id}, and its publisher was told {told}"
    if not is_logged(row.event):
        yield f"{row.event} is in the log at {row.pos}"


def _misplaced(name: Key, calls: list[Call], row: Row | None, history: History) -> Iterator[str]:
    """
    An event that is missing in the log, or should not be there.
    """
    outcomes = {call.outcome for call in calls}
    done = [call for call in calls if call.outcome == DONE]
    shown = f"{name} ({calls[0].via}, {calls[0].event} on {calls[0].channel}, key {calls[0].key})"
    if row is None:
        if not is_logged(calls[0].event) or calls[0].via == "notify":
            return
        # what was committed after the backup was made is gone with the database
        done = [
            call
            for call in done
            if not any(one.backed_up < call.ended and call.began < one.ended for one in history.restores)
        ]
        if done:
            yield f"{shown} was published at {done[0].ended:.3f} as {done[0].id}, and is not in the log: LOST"
        return
    if outcomes == {UNDONE}:
        yield f"{shown} was rolled back, and is in the log at {row.pos}: GHOST"
    if outcomes <= {UNDONE, REFUSED} and REFUSED in outcomes:
        call = next(call for call in calls if call.outcome == REFUSED)
        if not any(one.began - _NEAR < call.ended and call.began < one.ended + _NEAR for one in history.incidents):
            yield f"{shown} was refused while nothing was wrong, and is in the log at {row.pos}: GHOST"
    # who publishes at the same time as another one may get an id that never arrives, and so may those that come later
    raced = {
        call.id for call in calls for one in calls if one is not call and not _could_see(call, one, history.key_seconds)
    }
    for call in done:
        if call.id is not None and call.id != row.id and call.id not in raced and not history.restores:
            yield f"{shown} was published as {call.id}, and is in the log as {row.id}"
        if call.pos is not None:
            there = history.log.get(call.epoch or "", {}).get(call.pos)
            if there is None or there.id != call.id:
                yield f"{shown} was acknowledged at position {call.pos} of {call.epoch}, which has {there and there.id}"


def _could_see(call: Call, other: Call, key_seconds: float) -> bool:
    """
    Could C{call} find that C{other} was published with the same key?
    """
    if other.began > call.ended:
        return True
    return other.ended < (call.opened or call.began) and call.began - other.ended < key_seconds


def _inverted(events: dict[Key, list[Call]], places: dict[Key, Row]) -> Iterator[tuple[float, str]]:
    """
    Events that stand before others which were known to be published when they were called.
    """
    ends: list[tuple[float, int, Key]] = []
    calls: list[tuple[float, int, Key]] = []
    streams: defaultdict[tuple[str, str], list[tuple[float, int, Key]]] = defaultdict(list)
    for name, row in places.items():
        attempts = events.get(name, [])
        mine = [call for call in attempts if call.id is None or call.id == row.id]
        done = [call.ended for call in mine if call.outcome == DONE]
        if not mine or mine[0].via == "notify":
            continue
        if done:
            ends.append((min(done), row.pos, name))
        # those that found the key came later
        calls.append((min(call.began for call in mine), row.pos, name))
        if len(attempts) == 1:
            streams[mine[0].stream, mine[0].channel].append((mine[0].began, row.pos, name))
    ends.sort()
    times = [at for at, _, _ in ends]
    highest: list[tuple[int, Key]] = []
    for _, pos, name in ends:
        highest.append(max(highest[-1], (pos, name)) if highest else (pos, name))
    for began, pos, name in calls:
        place = bisect_left(times, began)
        if place and highest[place - 1][0] > pos:
            above, other = highest[place - 1]
            yield began, f"{name} is at {pos}, and was called after {other} was published, which is at {above}"
    for (stream, channel), found in streams.items():
        found.sort()
        for (_, before, first), (began, after, second) in pairwise(found):
            if after < before:
                yield began, f"{second} is at {after}, behind {first} at {before} on {stream} and {channel}"


# followers


def _judge_follower(
    follower: Follower, known: dict[str, LogCopy], history: History
) -> Iterator[tuple[float | None, str]]:
    if follower.start is None:
        yield None, "never connected"
        return
    epoch, pos = follower.start
    start, got, told = pos, set[int](), list[range]()
    for step in follower.steps:
        if isinstance(step, Gap):
            yield from ((step.at, wrong) for wrong in _false_gap(step, known, history))
            if step.epoch != epoch:
                yield from _missing(follower, known, epoch, start, pos, got, told)
                epoch, pos = step.epoch, step.pos
                start, got, told = pos, set(), []
            else:
                told.append(range(step.since + 1, step.pos + 1))
            continue
        yield from ((step.at, wrong) for wrong in false_receipt(step, known))
        assert step.pos is not None
        if step.epoch != epoch:
            yield step.at, f"{step.id} came in epoch {step.epoch}, and {epoch} was expected"
        if step.pos in got:
            yield step.at, f"position {step.pos} came twice"
        elif step.pos <= pos:
            yield step.at, f"position {step.pos} came after {pos}"
        got.add(step.pos)
        pos = max(pos, step.pos)
    yield from _missing(follower, known, epoch, start, float("inf"), got, told)


def _missing(
    follower: Follower, known: dict[str, LogCopy], epoch: str, start: int, upto: float, got: set[int], told: list[range]
) -> Iterator[tuple[float | None, str]]:
    """
    Events of the log that did not come.
    """
    log = known.get(epoch)
    if log is None and follower.start == (epoch, 0):
        # a service that has not found its log yet
        return
    if log is None:
        yield None, f"follows the epoch {epoch}, which the database never had"
        return
    for pos in sorted(log.due(follower.channels, start, upto) - got):
        if not any(pos in gap for gap in told):
            row = log.rows[pos]
            yield None, f"{name_of(row)} at {pos} of {epoch} ({row.event} on {row.channel}) did not come: LOST"


def _false_gap(gap: Gap, known: dict[str, LogCopy], history: History) -> Iterator[str]:
    """
    A gap that there was no reason to tell of.
    """
    if gap.reason == "epoch" and gap.epoch == gap.since_epoch:
        yield f"told of a new epoch, and it is still {gap.epoch}"
    if gap.reason == "expired" and history.floors.get(gap.epoch, 1) <= gap.since + 1:
        yield f"told that events after {gap.since} have expired, and they have not"
    if gap.reason == "ahead" and not history.restores:
        yield f"told that position {gap.since} is ahead of the log"
    if gap.epoch != gap.since_epoch and not history.restores:
        yield f"told of the new epoch {gap.epoch}, and the database was never restored"
