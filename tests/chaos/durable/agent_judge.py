"""
Judges what agents received.

What must hold (protocol, sections 4, 5 and 10):

 - an agent gets each tracked event of its subscriptions, over all failures, or is told of a gap;
 - each for the first time in the order of the log, on each channel, unless it has several connections at once;
 - what it acknowledges does not come again.  If the service is killed, the acks of about its last second may be lost,
   and those that it could not write because the database was away.  "If the former owner does not answer within 0.2 s,
   the new one reads the state of the agent from the database.  Acks of the last second may then be lost, and so may
   those that the former owner gets before it learns of the takeover"; and of a node that is frozen for more than 10 s,
   "the database refuses what it writes" (docs/cluster.md);
 - what it does not acknowledge comes again, at most so many times, and becomes a dead letter then; a dead letter that
   is redriven comes again;
 - it is subscribed again to all its channels when it comes back.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise

from tests.chaos.durable.history import NEVER, AgentHistory, History, Incident, Receipt, SentAck, is_tracked
from tests.chaos.durable.log_copy import LogCopy, false_receipt, name_of

_FLUSH = 1.5
"""
Seconds after which an ack is in the database, if nothing is wrong.
"""
_RECOVERY = 4.0
"""
Seconds after a disturbance in which the service may still not have written acks: after the database was away for some
seconds, it waits for 3.2 s at most before it connects again.
"""
_ON_ITS_WAY = 2.0
"""
Seconds for which an event may be on its way to another connection of the agent.
"""
Wrongs = Iterator[tuple[float | None, str]]


def judge_agent(agent: AgentHistory, history: History, counts: Counter[str]) -> Wrongs:
    """
    What is wrong with what one agent got, each with its time.
    """
    known = {epoch: LogCopy(rows) for epoch, rows in history.log.items()}
    counts["events at agents"] += len(agent.receipts)
    counts["acks"] += len(agent.acks)
    for receipt in agent.receipts:
        if receipt.pos is not None:
            yield from ((receipt.at, wrong) for wrong in false_receipt(receipt, known))
    for at, epoch, channel in agent.forgotten:
        # a service that has not found its log yet closes the connection when it has
        if epoch in history.log and not any(one.began < at for one in history.restores):
            yield at, f"was not subscribed to {channel} again"
    if not agent.several:
        yield from _disordered(agent)
    yield from _missing(agent, history, known)
    yield from _repeated(agent, history, counts)
    yield from _not_redelivered(agent, history, counts)
    yield from _too_often(agent, history)
    yield from _half(agent, known)


def settled_by(at: float, incidents: list[Incident]) -> float:
    """
    When an ack that was sent at C{at} must be in the database, as far as the service lives.
    """
    until = at
    for one in sorted(incidents, key=lambda one: one.began):
        if one.kind == "path" or (one.kind in ("service", "stop", "other") and one.began > at):
            continue
        if one.began < until + _FLUSH and until < one.ended + _RECOVERY:
            until = max(until, one.ended + _RECOVERY)
    return until + _FLUSH


def may_repeat(agent: AgentHistory, ack: SentAck, again: float, history: History) -> bool:
    """
    May the ack have been lost with the memory of the service, before an event came C{again}?
    """
    # if an agent has several connections, any node may have its acks
    nodes = None if agent.several else (None, ack.node)
    incidents = [one for one in history.incidents if nodes is None or one.node in nodes]
    until = min(settled_by(ack.at, incidents), again)
    for taken in history.unanswered:
        # a flush of the former node tells it so
        if taken.agent == agent.name and taken.at <= until and ack.at - 0.1 <= settled_by(taken.at, history.incidents):
            return True
    if any(ack.at < one.ended and one.began < again for one in history.restores):
        return True
    for one in incidents:
        if one.kind == "service" and ack.at - 0.1 <= one.ended and one.began <= until:
            return True
        # it may learn a moment later that it was taken for dead
        if one.kind == "fenced" and ack.at <= one.ended + _RECOVERY and one.began <= until:
            return True
        if one.kind == "stop" and one.began <= until and ack.at <= one.ended:
            # it writes what it has before it ends, unless the database is away
            trouble = [each for each in incidents if each.kind in ("database", "frozen", "fenced", "service")]
            if any(each.began < one.ended + _RECOVERY and ack.at < each.ended + _RECOVERY + _FLUSH for each in trouble):
                return True
    return False


def told_of(agent: AgentHistory, receipt: Receipt) -> bool:
    """
    Was the agent told that the event may be missing?
    """
    return any(gap.epoch == receipt.epoch and (receipt.pos or 0) <= gap.pos for gap in agent.gaps)


def _disordered(agent: AgentHistory) -> Wrongs:
    """
    Events that came for the first time after newer ones of their channel.

    An agent that leaves C{global} at each connection gets there what happens to come in between.  What came before on
    another channel is a later delivery then, although it never came on C{global}.
    """
    seen: set[tuple[str, str]] = set()
    known: set[str] = set()
    latest: dict[tuple[str, str], tuple[int, int]] = defaultdict(lambda: (0, 0))
    for receipt in agent.receipts:
        if receipt.pos is None or (receipt.channel, receipt.id) in seen:
            continue
        seen.add((receipt.channel, receipt.id))
        later = receipt.channel not in agent.since and receipt.id in known
        known.add(receipt.id)
        place = receipt.epoch, receipt.channel
        before, connection = latest[place]
        if receipt.pos < before and not later:
            yield (
                receipt.at,
                f"position {receipt.pos} came first after {before} on {receipt.channel}"
                f" (connections {receipt.connection} and {connection})",
            )
        latest[place] = max(latest[place], (receipt.pos, receipt.connection))


def _missing(agent: AgentHistory, history: History, known: dict[str, LogCopy]) -> Wrongs:
    """
    Tracked events of the last epoch that did not come.
    """
    if not agent.since:
        yield None, "was never subscribed"
        return
    epoch = next(reversed(history.log))
    log, got = known[epoch], {receipt.id for receipt in agent.receipts}
    told = max((gap.pos for gap in agent.gaps if gap.epoch == epoch), default=0)
    for channel, (since_epoch, since) in agent.since.items():
        if since_epoch == epoch:
            after = max(since, told)
        elif told or any(gap.epoch == epoch for gap in agent.gaps):
            after = told
        elif epoch in agent.epochs:
            # the epoch of its new connection told it
            after = agent.epochs[epoch]
        else:
            yield None, f"was not told of the new epoch {epoch}"
            return
        for pos in sorted(log.due((channel,), after, float("inf"))):
            row = log.rows[pos]
            if is_tracked(row.event) and row.id not in got:
                yield None, f"{name_of(row)} at {pos} ({row.event} on {row.channel}) did not come on {channel}: LOST"


def _repeated(agent: AgentHistory, history: History, counts: Counter[str]) -> Wrongs:
    """
    Events that came again although they had been acknowledged.
    """
    # by event: the first ack that the service is known to have read
    acked: dict[str, SentAck] = {}
    for one in agent.acks:
        # a service that has not found its log yet does not know what the agent owes
        if one.id is not None and one.certain is not None and one.epoch in history.log:
            acked.setdefault(one.id, one)
    # (certain, position) of those up to a position, the highest position that was certain by then
    upto = sorted((ack.certain, ack.upto, ack) for ack in agent.acks if ack.upto and ack.certain is not None)
    slack = _ON_ITS_WAY if agent.several else 0.0
    first_receipts: dict[str, float] = {}
    for receipt in agent.receipts:
        first = first_receipts.setdefault(receipt.id, receipt.at)
        if not is_tracked(receipt.event) or first == receipt.at or receipt.at > history.redriven_at:
            continue
        ack: SentAck | None = acked.get(receipt.id) or _covering(upto, receipt, first)
        if ack is None or ack.certain is None or receipt.at <= ack.certain + slack:
            counts["came again without an ack"] += 1
        elif may_repeat(agent, ack, receipt.at, history):
            counts["came again after an ack that the service lost"] += 1
        else:
            yield (
                receipt.at,
                f"{receipt.id} at {receipt.pos} came again on {receipt.channel}, on connection {receipt.connection},"
                f" {receipt.at - ack.at:.2f} s after its ack on connection {ack.connection}",
            )


def _covering(upto: list[tuple[float, int, SentAck]], receipt: Receipt, first: float) -> SentAck | None:
    for certain, pos, ack in upto:
        if certain > receipt.at:
            return None
        if pos >= (receipt.pos or 0) and ack.epoch == receipt.epoch and ack.at > first:
            return ack
    return None


def _not_redelivered(agent: AgentHistory, history: History, counts: Counter[str]) -> Wrongs:
    """
    Events that were not acknowledged, and did not come again, or became no dead letters.
    """
    acked = {ack.id for ack in agent.acks}
    after: defaultdict[str, float] = defaultdict(float)
    last: dict[str, Receipt] = {}
    for receipt in agent.receipts:
        last[receipt.id] = receipt
        after[receipt.id] = max(after[receipt.id], receipt.at)
    restored = max((one.ended for one in history.restores), default=0.0)
    for event_id, times in agent.left_unanswered.items():
        receipt = last[event_id]
        if receipt.at < restored:
            # what came before belongs to another log
            continue
        counts["left without an ack, for a while or always"] += 1
        told = told_of(agent, receipt)
        if times < NEVER and event_id not in acked and not told:
            yield (
                receipt.at,
                f"{event_id} at {receipt.pos} was not acknowledged, and did not come again: NOT REDELIVERED",
            )
        elif times >= NEVER and (agent.name, event_id) not in history.buried and not told:
            yield receipt.at, f"{event_id} at {receipt.pos} was never acknowledged, and is no dead letter"
        elif times >= NEVER and after[event_id] < history.redriven_at < float("inf"):
            yield receipt.at, f"{event_id} at {receipt.pos} is a dead letter that was redriven, and did not come again"
    for name, event_id in history.dead:
        if name == agent.name and history.redriven_at < float("inf"):
            yield None, f"{event_id} is still a dead letter, and was redriven and acknowledged"


def _too_often(agent: AgentHistory, history: History) -> Wrongs:
    """
    Events that came more often than they may: on one connection at most 3 times, and again if another
    node had the agent meanwhile (docs/cluster.md).
    """
    deaths = sum(one.kind in ("service", "fenced") for one in history.incidents) + len(history.restores)
    # what was counted in the last second is lost with the acks
    deaths += sum(one.agent == agent.name for one in history.unanswered)
    back = [one.at for one in history.came_back if one.agent == agent.name]
    first: dict[tuple[int, str], float] = {}
    once: Counter[tuple[int, str, str]] = Counter()
    all_in_all: Counter[tuple[str, str]] = Counter()
    for receipt in agent.receipts:
        if not is_tracked(receipt.event) or receipt.at > history.redriven_at:
            continue
        here, everywhere = (receipt.connection, receipt.id, receipt.channel), (receipt.id, receipt.channel)
        once[here] += 1
        began = first.setdefault(here[:2], receipt.at)
        all_in_all[everywhere] += 1
        # what was given up there while another node had the agent is sent again
        if once[here] == history.attempts * (1 + sum(began < at < receipt.at for at in back)) + 1:
            yield receipt.at, f"{receipt.id} came {once[here]} times on one connection"
        if all_in_all[everywhere] == history.dead_after + history.attempts * deaths + 1:
            yield receipt.at, f"{receipt.id} came {all_in_all[everywhere]} times in all"


def _half(agent: AgentHistory, known: dict[str, LogCopy]) -> Wrongs:
    """
    Events that were sent again on their own channel, and not on C{global}, although the agent is subscribed to both.
    """
    if "global" not in agent.since or agent.several:
        return
    times: Counter[tuple[int, str]] = Counter()
    connections: defaultdict[int, list[Receipt]] = defaultdict(list)
    for receipt in agent.receipts:
        connections[receipt.connection].append(receipt)
    for receipts in connections.values():
        for receipt, following in pairwise(receipts):
            log = known.get(receipt.epoch)
            row = log.rows.get(receipt.pos or 0) if log is not None else None
            if row is None or not row.mirrored or receipt.channel == "global":
                continue
            times[receipt.connection, receipt.id] += 1
            again = times[receipt.connection, receipt.id] > 1
            if again and (following.id, following.channel) != (receipt.id, "global"):
                yield receipt.at, f"{receipt.id} came again on {receipt.channel}, and not on global: HALF"
