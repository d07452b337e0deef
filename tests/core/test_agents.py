from __future__ import annotations

from collections.abc import Iterable

import pytest
from twisted.internet.task import Clock

from dcm_ws.core.agents import Absence, AgentMemory
from dcm_ws.core.counts import Counts
from dcm_ws.core.delivery import Tracked
from tests.core.living import make_memory


def event(number: int) -> Tracked:
    return Tracked(number, f"msg_{number}", (b"frame %d" % number,))


def absence(channels: Iterable[str] = (), owed: Iterable[int] = (), since: int = 0) -> Absence:
    return Absence(frozenset(channels), [event(number) for number in owed], since, acknowledges=True)


def publish(memory: AgentMemory, number: int, channel: str = "topics/t", mirrored: bool = True) -> None:
    memory.published(number, f"msg_{number}", channel, b"frame %d" % number, b"mirror %d" % number if mirrored else b"")


def missed(memory: AgentMemory, agent: str) -> list[tuple[int, tuple[bytes, ...]]]:
    """
    The events of its absence that an agent receives if it returns now.
    """
    returned = memory.returned(agent)
    assert returned is not None
    return [(event.seq, event.frames) for event in memory.missed(returned)]


def test_stranger_is_not_remembered(clock: Clock) -> None:
    """
    An agent that was never here gets nothing back.
    """
    assert make_memory(clock).returned("ann") is None


def test_agent_gets_back_what_it_left(clock: Clock) -> None:
    """
    Subscriptions and deliveries wait for the agent that left them.
    """
    memory = make_memory(clock)
    memory.left("ann", absence(["global"], [1, 2], since=2))
    memory.left("bob", absence(["metrics"], [2], since=2))

    assert (len(memory), memory.absent, memory.kept) == (2, 2, 3)
    assert memory.returned("ann") == absence(["global"], [1, 2], since=2)
    assert (len(memory), memory.absent, memory.kept) == (2, 1, 1)


def test_deliveries_are_given_back_once(clock: Clock) -> None:
    """
    A second connection of an agent gets its subscriptions, and not its deliveries again.
    """
    memory = make_memory(clock)
    memory.left("ann", absence(["global"], [1], since=1))
    memory.returned("ann")

    again = memory.returned("ann")
    assert again is not None
    assert again.subscriptions == {"global"}
    assert list(again.owed) == []
    assert list(memory.missed(again)) == []


def test_deliveries_are_kept_for_five_minutes(clock: Clock, counts: Counts) -> None:
    """
    Deliveries wait for 5 minutes and are given up then; subscriptions wait for longer.
    """
    memory = make_memory(clock, counts)
    memory.left("ann", absence(["global"], [1, 2], since=2))
    memory.left("bob", absence(["global"], [3], since=3))
    clock.advance(299)
    publish(memory, 4)
    assert missed(memory, "bob") == [(4, (b"mirror 4",))]
    clock.advance(1)
    memory.expire()

    assert (memory.kept, counts.deliveries.given_up, memory.absent, len(memory)) == (0, 2, 0, 2)
    returned = memory.returned("ann")
    assert returned is not None
    assert returned.subscriptions == {"global"}
    assert list(returned.owed) == list(memory.missed(returned)) == []


def test_expired_deliveries_do_not_come_back_without_a_sweep(clock: Clock) -> None:
    """
    Whether the sweep came by in time makes no difference.
    """
    memory = make_memory(clock)
    memory.left("ann", absence(["global"], [1], since=1))
    clock.advance(300)

    returned = memory.returned("ann")
    assert returned is not None
    assert list(returned.owed) == []


def test_subscriptions_are_kept_for_a_day(clock: Clock) -> None:
    """
    The memory of an agent expires after 24 h.
    """
    memory = make_memory(clock)
    memory.left("ann", absence(["global"]))
    clock.advance(86_399)
    assert memory.returned("ann") is not None
    clock.advance(1)
    memory.expire()

    assert len(memory) == 0
    assert memory.returned("ann") is None


def test_longest_unseen_agent_is_forgotten_first(clock: Clock, counts: Counts) -> None:
    """
    Past the limit, who left first is forgotten, with its deliveries.
    """
    memory = make_memory(clock, counts, max_agents=2)
    memory.left("ann", absence(["global"], [1]))
    memory.left("bob", absence(["global"], [1]))
    memory.left("ann", absence(["global"], [1]))
    memory.left("cid", absence(["global"], [1]))

    assert memory.returned("bob") is None
    assert memory.returned("ann") is not None
    assert memory.returned("cid") is not None
    assert counts.deliveries.given_up == 1


def test_forgotten_agent_that_came_back_has_nothing_to_give_up(clock: Clock, counts: Counts) -> None:
    """
    An agent that is here again owes nothing to the memory.
    """
    memory = make_memory(clock, counts, max_agents=1)
    memory.left("ann", absence(["global"], [1]))
    memory.returned("ann")
    memory.left("bob", absence(["global"], [1]))

    assert (counts.deliveries.given_up, memory.kept) == (0, 1)


def test_two_connections_of_one_agent_end(clock: Clock) -> None:
    """
    The agent owes what either connection did, once, and is subscribed as the last one was.
    """
    memory = make_memory(clock)
    memory.left("ann", absence(["global"], [1, 4], since=4))
    memory.left("ann", absence(["metrics"], [2, 4, 5], since=5))

    assert memory.kept == 4
    assert memory.returned("ann") == absence(["metrics"], [1, 2, 4, 5], since=5)
    assert memory.kept == 0


def test_kept_deliveries_are_bounded(clock: Clock, counts: Counts) -> None:
    """
    Past the limit the agent that left first loses its deliveries, and keeps its subscriptions.
    """
    memory = make_memory(clock, counts, max_kept=3)
    memory.left("ann", absence(["global"], [1, 2]))
    memory.left("bob", absence(["global"], [1, 2]))

    assert (memory.kept, counts.deliveries.given_up) == (2, 2)
    returned = memory.returned("ann")
    assert returned is not None
    assert list(returned.owed) == []
    assert returned.subscriptions == {"global"}


def test_missed_events_match_the_subscriptions(clock: Clock) -> None:
    """
    An agent that was away receives the events of its channels, the specific channel's frame first.
    """
    memory = make_memory(clock)
    memory.left("ann", absence(["global", "topics/t"]))
    memory.left("bob", absence(["topics/t"]))
    memory.left("cid", absence(["global"]))
    memory.left("dan", absence(["metrics"]))
    publish(memory, 1, "topics/t")
    publish(memory, 2, "topics/u")
    publish(memory, 3, "global", mirrored=False)

    assert missed(memory, "ann") == [(1, (b"frame 1", b"mirror 1")), (2, (b"mirror 2",)), (3, (b"frame 3",))]
    assert missed(memory, "bob") == [(1, (b"frame 1",))]
    assert missed(memory, "cid") == [(1, (b"mirror 1",)), (2, (b"mirror 2",)), (3, (b"frame 3",))]
    assert missed(memory, "dan") == []


def test_missed_is_only_what_came_after_leaving(clock: Clock) -> None:
    """
    What an agent was here for is not told again.
    """
    memory = make_memory(clock)
    memory.left("ann", absence(["global"], since=0))
    publish(memory, 1)
    memory.left("bob", absence(["global"], since=1))
    publish(memory, 2)

    assert missed(memory, "bob") == [(2, (b"mirror 2",))]
    assert missed(memory, "ann") == [(1, (b"mirror 1",)), (2, (b"mirror 2",))]


def test_nothing_is_logged_for_nobody(clock: Clock) -> None:
    """
    While no agent is away the log stays empty.
    """
    memory = make_memory(clock)
    publish(memory, 1)
    memory.left("ann", absence(["global"], since=0))

    assert missed(memory, "ann") == []


def test_log_is_emptied_when_the_last_absence_ends(clock: Clock) -> None:
    """
    The log lasts as long as somebody may ask for it.
    """
    memory = make_memory(clock)
    memory.left("ann", absence(["global"], since=0))
    publish(memory, 1)
    clock.advance(300)
    memory.expire()
    memory.left("bob", absence(["global"], since=0))

    assert missed(memory, "bob") == []


def test_log_forgets_what_nobody_can_have_missed(clock: Clock, counts: Counts) -> None:
    """
    Events older than the longest absence leave the log, and are no loss.
    """
    memory = make_memory(clock, counts)
    memory.left("ann", absence(["global"], since=0))
    publish(memory, 1)
    clock.advance(200)
    memory.left("bob", absence(["global"], since=0))
    publish(memory, 2)
    clock.advance(101)
    memory.expire()

    assert missed(memory, "bob") == [(2, (b"mirror 2",))]
    assert counts.limits.max_recent_events.value == 0


def test_log_is_bounded_by_number(clock: Clock, counts: Counts) -> None:
    """
    Past so many events the oldest leaves the log, and is counted.
    """
    memory = make_memory(clock, counts, max_events=2)
    memory.left("ann", absence(["global"]))
    for number in (1, 2, 3):
        publish(memory, number)

    assert counts.limits.max_recent_events.value == 1
    assert [seq for seq, _ in missed(memory, "ann")] == [2, 3]


def test_log_is_bounded_by_size(clock: Clock, counts: Counts) -> None:
    """
    Past so many bytes the oldest leaves the log, and is counted.
    """
    memory = make_memory(clock, counts, max_bytes=40)
    memory.left("ann", absence(["global"]))
    for number in (1, 2, 3, 4):
        publish(memory, number)

    assert counts.limits.max_recent_events.value == 2
    assert [seq for seq, _ in missed(memory, "ann")] == [3, 4]


def test_missed_events_stay_those_of_the_return(clock: Clock) -> None:
    """
    What an agent is being told does not change with what is published, or expires, meanwhile.
    """
    memory = make_memory(clock)
    memory.left("ann", absence(["global"]))
    memory.left("bob", absence(["global"]))
    publish(memory, 1)
    publish(memory, 2)
    returned = memory.returned("ann")
    assert returned is not None
    replay = memory.missed(returned)
    assert next(replay).seq == 1
    publish(memory, 3)
    clock.advance(1000)
    memory.expire()

    assert [event.seq for event in replay] == [2]


def test_kept_bytes_are_bounded(clock: Clock, counts: Counts) -> None:
    """
    The memory that kept deliveries take is limited, too; what went before its time is counted.
    """
    memory = make_memory(clock, counts, max_bytes=20)
    memory.left("ann", absence(["global"], [1, 2]))
    assert (memory.kept, counts.limits.max_kept.value) == (2, 0)
    memory.left("bob", absence(["global"], [3]))
    assert (memory.kept, counts.deliveries.given_up, counts.limits.max_kept.value) == (1, 2, 2)
    memory.returned("bob")
    memory.left("cid", absence(["global"], [4, 5]))

    assert (memory.kept, counts.deliveries.given_up, counts.limits.max_kept.value) == (2, 2, 2)


@pytest.mark.parametrize(("agents", "forgotten"), [(2, 0), (3, 0), (4, 1)])
def test_agents_remembered_may_reach_the_limit(clock: Clock, agents: int, forgotten: int, counts: Counts) -> None:
    """
    Exactly as many agents as the limit are remembered; one more makes the longest absent one go.
    """
    memory = make_memory(clock, counts, max_agents=3)
    for number in range(agents):
        memory.left(f"agent-{number}", absence(["global"]))

    assert (len(memory), counts.limits.max_agents.value) == (min(agents, 3), forgotten)
    assert (memory.returned("agent-0") is None) == bool(forgotten)


@pytest.mark.parametrize(("numbers", "overflowed"), [(2, 0), (3, 0), (4, 1)])
def test_log_may_reach_its_number_of_events(clock: Clock, numbers: int, overflowed: int, counts: Counts) -> None:
    """
    Exactly as many events as the limit stay in the log; one more makes the oldest go.
    """
    memory = make_memory(clock, counts, max_events=3)
    memory.left("ann", absence(["global"]))
    for number in range(1, numbers + 1):
        publish(memory, number)

    assert counts.limits.max_recent_events.value == overflowed
    assert [seq for seq, _ in missed(memory, "ann")] == list(range(1 + overflowed, numbers + 1))


@pytest.mark.parametrize(("most", "overflowed"), [(31, 0), (30, 0), (29, 1)])
def test_log_may_reach_its_number_of_bytes(clock: Clock, most: int, overflowed: int, counts: Counts) -> None:
    """
    Exactly as many bytes as the limit stay in the log; one more makes the oldest event go.
    """
    memory = make_memory(clock, counts, max_bytes=most)
    memory.left("ann", absence(["global"]))
    for number in (1, 2):
        publish(memory, number)

    assert counts.limits.max_recent_events.value == overflowed
    assert [seq for seq, _ in missed(memory, "ann")] == [1, 2][overflowed:]


@pytest.mark.parametrize("limit", [{"max_kept": 3}, {"max_bytes": 21}])
@pytest.mark.parametrize(("owed", "given_up"), [(2, 0), (3, 0), (4, 3)])
def test_deliveries_kept_may_reach_the_limit(
    clock: Clock, limit: dict[str, int], owed: int, given_up: int, counts: Counts
) -> None:
    """
    Exactly as many deliveries or bytes as the limit are kept; with more the agent that left first loses its own.
    """
    memory = make_memory(clock, counts, **limit)
    first = owed - 1
    memory.left("ann", absence(["global"], range(1, first + 1)))
    memory.left("bob", absence(["global"], [first + 1]))

    assert (counts.limits.max_kept.value, memory.kept) == (given_up, owed - given_up)
