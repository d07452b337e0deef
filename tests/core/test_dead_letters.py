"""
Events that agents do not acknowledge in the end.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from dcm_ws.core.assembly import Core
from dcm_ws.core.counts import Counts
from dcm_ws.core.dead_letters import DeadLetters
from dcm_ws.core.entries import Page
from dcm_ws.core.log import MemoryLog
from dcm_ws.core.tracked import Tracked
from dcm_ws.protocol.replies import event_frame
from tests.core.clients import TASK, joined, stats
from tests.core.latelog import LateLog
from tests.core.living import finish, live
from tests.fakes import WALL_MS, Client, make_core, make_world


def worker(core: Core, agent: str = "ann", channel: str = "topics/t") -> Client:
    """
    A durable agent that is subscribed to C{topics/t} and not to C{global}.
    """
    client = Client(core)
    client.auth(agent, durable=True)
    client.say(type="subscribe", channel=channel)
    client.say(type="unsubscribe", channel="global")
    return client


def publish(core: Core, **task: Any) -> str:
    publisher = joined(core, quiet=True)
    event_id: str = publisher.say(**(TASK | task), id=1)[-1]["message_id"]
    publisher.leave()
    return event_id


def ids(messages: list[dict[str, Any]]) -> list[str]:
    """
    The ids of the tracked events.
    """
    return [message["id"] for message in messages if message.get("event") == "task.created"]


def dead(core: Core, agent: str | None = None) -> list[tuple[str, str]]:
    return [(letter.agent, letter.event_id) for letter in core.application_hub.dead_letters(agent)]


def failures(core: Core) -> tuple[int, int]:
    figures = stats(core)
    return figures["failedDeliveries"], figures["deliveries"]["neverAcknowledged"]


# dying


def test_event_that_is_never_acknowledged_becomes_a_dead_letter(clock: Clock, core: Core) -> None:
    """
    After its last send, with all that there is to know of it.
    """
    client = worker(core)
    event_id = publish(core, data=[12345678901234567890])
    live(core, clock, 14)
    assert core.application_hub.dead_letters() == []
    live(core, clock, 2)

    (letter,) = core.application_hub.dead_letters()
    assert letter._asdict() == {
        "agent": "ann",
        "pos": 1,
        "event_id": event_id,
        "channel": "topics/t",
        "event": "task.created",
        "data": b"[12345678901234567890]",
        "at": WALL_MS,
        "deliveries": 3,
        "reason": "attempts",
        "died_at": WALL_MS + 15_000,
        "redriven_at": None,
        "sender": b"",
    }
    assert ids(client.peer.take()) == [event_id] * 3
    assert failures(core) == (1, 0)
    assert stats(core)["deadLetters"] == {
        "kept": 1,
        "bytes": core.letters.bytes,
        "waiting": 0,
        "died": 1,
        "poison": 0,
        "redriven": 0,
    }


def test_event_on_global_is_listed_under_its_channel(clock: Clock, core: Core) -> None:
    """
    A dead letter names the channel to which the event was published.
    """
    client = Client(core)
    client.auth("ann", durable=True)
    publish(core)
    live(core, clock, 16)

    assert [letter.channel for letter in core.application_hub.dead_letters()] == ["topics/t"]


def test_dashboards_fill_no_dead_letters(clock: Clock, core: Core) -> None:
    """
    An agent that never acknowledges anything, and an anonymous client, have no dead letters.
    """
    joined(core, "topics/t", agent="dashboard")
    anonymous = joined(core, "topics/t")
    event_id = publish(core)
    anonymous.say(type="ack", message_id=event_id)
    publish(core)
    live(core, clock, 16)

    assert core.application_hub.dead_letters() == []
    assert failures(core) == (1, 2)


def test_dead_connection_does_not_bury_what_another_one_owes(clock: Clock, core: Core) -> None:
    """
    The event dies with the last connection of its agent that owes an ack for it, and once.
    """
    first = worker(core)
    event_id = publish(core)
    live(core, clock, 12)
    second = worker(core)
    live(core, clock, 4)
    # the first one has given it up
    assert list(first.session.owed) == []
    assert list(second.session.owed) == [event_id]
    assert (dead(core), failures(core)) == ([], (0, 0))
    live(core, clock, 3)

    assert (dead(core), failures(core)) == ([("ann", event_id)], (1, 0))


def test_event_that_several_connections_get_dies_once(clock: Clock, core: Core) -> None:
    """
    Both got it at the same time, and neither has acknowledged it.
    """
    for _ in range(2):
        worker(core)
    event_id = publish(core)
    live(core, clock, 16)

    assert (dead(core), failures(core)) == ([("ann", event_id)], (1, 0))
    assert stats(core)["deadLetters"]["died"] == 1


def test_take_over_does_not_start_counting_again(clock: Clock, core: Core) -> None:
    """
    An agent that opens one connection after the other, while the former ones are open, cannot keep an event from dying.
    """
    clients = [worker(core)]
    event_id = publish(core)
    sends = 0
    for _ in range(12):
        live(core, clock, 4)
        clients.append(worker(core))
        sends += sum(len(ids(client.peer.take())) for client in clients)
        if dead(core):
            break
    live(core, clock, 30)

    assert (dead(core), failures(core)) == ([("ann", event_id)], (1, 0))


def test_connection_that_ends_hands_over_its_count(clock: Clock, core: Core) -> None:
    """
    The heir sends it once more at least, and does not begin again.
    """
    heir = worker(core, channel="topics/other")
    first = worker(core)
    event_id = publish(core)
    live(core, clock, 11)
    first.leave()
    assert ids(heir.peer.take()) == [event_id]
    live(core, clock, 6)

    assert dead(core) == [("ann", event_id)]
    assert core.application_hub.dead_letters()[0].deliveries == 4


# poison


def come_and_crash(core: Core, agent: str = "ann", **auth: Any) -> list[str]:
    """
    The events that an agent gets which returns, and ends without having acknowledged anything.
    """
    client = Client(core)
    got = ids(client.auth(agent, **auth))
    client.leave()
    return got


def test_event_that_makes_its_agent_crash_is_poison(clock: Clock, core: Core) -> None:
    """
    Fifteen deliveries over the returns of an agent, and no more; what is behind it in the log is not affected.
    """
    client = worker(core)
    poison = publish(core)
    client.leave()
    for _ in range(14):
        assert come_and_crash(core) == [poison] * 2
        clock.advance(1)
    other = publish(core)
    assert come_and_crash(core) == [other] * 2

    assert dead(core) == [("ann", poison)]
    (letter,) = core.application_hub.dead_letters()
    assert (letter.reason, letter.deliveries) == ("poison", 15)
    assert stats(core)["deadLetters"]["poison"] == 1
    assert come_and_crash(core) == [other] * 2


def test_dashboards_have_no_poison(core: Core) -> None:
    """
    An agent that has never acknowledged anything gets it again each time that it returns.
    """
    joined(core, "topics/t", agent="ann", quiet=True).leave()
    publish(core)
    got = [come_and_crash(core) for _ in range(17)]

    assert [len(events) for events in got] == [1] + [2] * 16
    assert (dead(core), failures(core), core.memory.kept) == ([], (0, 0), 1)


def test_poison_that_another_connection_owes(clock: Clock, core: Core) -> None:
    """
    A new connection does not get it any more; it dies when the other one gives it up.
    """
    client = worker(core)
    poison = publish(core)
    client.leave()
    for _ in range(13):
        come_and_crash(core)
    client = worker(core)
    assert come_and_crash(core) == []
    assert dead(core) == []
    live(core, clock, 16)

    assert dead(core) == [("ann", poison)]


def test_returns_start_the_attempts_again(clock: Clock, core: Core) -> None:
    """
    An agent that was away gets the event three times again: it is not the event's fault that connections break.
    """
    client = worker(core)
    event_id = publish(core)
    live(core, clock, 12)
    client.leave()
    again = Client(core)
    again.auth("ann")
    live(core, clock, 12)

    assert (dead(core), list(again.session.owed)) == ([], [event_id])
    live(core, clock, 4)
    assert core.application_hub.dead_letters()[0].deliveries == 6


# redriving


def buried(core: Core, clock: Clock) -> tuple[Client, str]:
    """
    An agent with a dead letter, and the event's id.
    """
    client = worker(core)
    event_id = publish(core)
    live(core, clock, 16)
    client.peer.take()
    return client, event_id


def test_redriven_event_goes_to_its_agent_only(clock: Clock, core: Core) -> None:
    """
    With the same id, and to all connections of the agent; an ack forgets the dead letter.
    """
    client, event_id = buried(core, clock)
    second, other = worker(core), worker(core, "bob")
    assert core.application_hub.redrive("bob") == (0, 0)
    assert core.application_hub.redrive() == (1, 1)
    assert core.application_hub.redrive() == (0, 0)

    assert [ids(one.peer.take()) for one in (client, second, other)] == [[event_id], [event_id], []]
    assert [letter.redriven_at for letter in core.application_hub.dead_letters()] == [WALL_MS + 16_000]
    client.say(type="ack", message_id="msg_other")
    assert stats(core)["deadLetters"]["waiting"] == 1
    second.say(type="ack", message_id=event_id)
    assert (dead(core), core.deliveries.pending, core.letters.bytes, core.letters.redriven) == ([], 0, 0, 0)


def test_redriven_event_dies_again(clock: Clock, core: Core) -> None:
    """
    Its attempts are counted from its redrive on.
    """
    client, event_id = buried(core, clock)
    core.application_hub.redrive()
    live(core, clock, 16)

    assert ids(client.peer.take()) == [event_id] * 3
    (letter,) = core.application_hub.dead_letters()
    assert (letter.deliveries, letter.redriven_at, letter.died_at) == (3, None, WALL_MS + 31_000)
    assert (len(core.letters), stats(core)["deadLetters"]["died"]) == (1, 2)


@pytest.mark.parametrize("in_log", [True, False])
def test_redriven_event_waits_for_an_agent_that_is_away(clock: Clock, in_log: bool) -> None:
    """
    It is kept as long as a dead letter is, whether it is still in the log or not, also if the agent leaves again.
    """
    choices: dict[str, Any] = {} if in_log else {"keep": 60.0}
    core = make_core(clock, **choices)
    client, event_id = buried(core, clock)
    client.leave()
    clock.advance(3600)
    finish(core.hub.sweep())
    assert core.application_hub.redrive("ann") == (1, 0)
    clock.advance(3600)
    finish(core.hub.sweep())
    for _ in range(3):
        assert come_and_crash(core) == [event_id]
        clock.advance(600)
    client = Client(core)
    assert ids(client.auth("ann")) == [event_id]
    assert core.letters.redriven_of("ann")[1].deliveries == 3
    client.say(type="ack", message_id=event_id)

    assert (dead(core), failures(core)) == ([], (1, 0))


def test_redriven_poison_is_poison_again(clock: Clock, core: Core) -> None:
    """
    A dead letter cannot loop for ever, either.
    """
    _client, event_id = buried(core, clock)
    _client.leave()
    core.application_hub.redrive()
    assert [come_and_crash(core) for _ in range(17)] == [[event_id]] * 15 + [[]] * 2

    (letter,) = core.application_hub.dead_letters()
    assert (letter.reason, letter.deliveries, letter.redriven_at) == ("poison", 15, None)


def test_redriven_event_is_handed_over(clock: Clock) -> None:
    """
    Also if it has left the log: when its connection ends, another one of the agent gets it.
    """
    core = make_core(clock, keep=10.0)
    client, event_id = buried(core, clock)
    core.application_hub.redrive()
    heir = Client(core)
    heir.peer.replay = lambda frames: None  # type: ignore[method-assign]  # it reads nothing
    heir.auth("ann")
    late = worker(core, channel="topics/other")
    late.peer.take()
    late.session.owed.clear()
    core.deliveries.ack(late.session, event_id)
    client.leave()

    assert event_id in {owed.id for owed in heir.session.behind.owed.values()}  # type: ignore[union-attr]


def test_ack_of_positions_settles_what_was_redriven(clock: Clock, core: Core) -> None:
    """
    If it was sent; what still waits for its turn is not meant.
    """
    client, event_id = buried(core, clock)
    reading = client.peer.replay
    held: list[Any] = []
    client.peer.replay = held.append  # type: ignore[assignment]
    core.application_hub.redrive()
    client.say(type="ack", pos=1)
    assert dead(core) == [("ann", event_id)]
    reading(held.pop())
    assert ids(client.peer.take()) == [event_id]
    client.say(type="ack", pos=0)
    assert dead(core) == [("ann", event_id)]
    client.say(type="ack", pos=1)

    assert dead(core) == []


# what is kept


def make_letters(clock: Clock, counts: Counts, **limits: Any) -> DeadLetters:
    world = make_world(clock)
    return DeadLetters(world.now, world.wall_ms, counts, **({"max_letters": 100, "max_bytes": 1 << 20} | limits))


def event(number: int, size: int = 100) -> Tracked:
    return Tracked(number, f"msg_{number}", (b"x" * size,))


def kept(letters: DeadLetters, **choice: Any) -> list[tuple[str, int]]:
    return [
        (letter.agent, letter.event.seq)
        for letter in letters.find(choice.get("agent"), choice.get("since"), choice.get("until"))
    ]


def test_dead_letters_are_found_by_agent_and_time(clock: Clock, counts: Counts) -> None:
    """
    In the order of dying; the end of the time is not included.
    """
    letters = make_letters(clock, counts)
    for number, agent in enumerate(("ann", "bob", "ann")):
        letters.bury(agent, event(number), 3, "attempts")
        clock.advance(1)

    assert kept(letters) == [("ann", 0), ("bob", 1), ("ann", 2)]
    assert kept(letters, agent="ann") == [("ann", 0), ("ann", 2)]
    assert kept(letters, agent="cid") == []
    assert kept(letters, since=WALL_MS + 1000, until=WALL_MS + 2000) == [("bob", 1)]
    assert kept(letters, agent="ann", since=WALL_MS + 1) == [("ann", 2)]


def test_dead_letters_are_kept_for_seven_days(clock: Clock, counts: Counts) -> None:
    """
    Then they are forgotten, so many in one step.
    """
    letters = make_letters(clock, counts)
    for number in range(5):
        letters.bury("ann", event(number), 3, "attempts")
    clock.advance(7 * 86_400 - 1)
    letters.bury("bob", event(9), 3, "attempts")
    assert not letters.expire(2)
    clock.advance(1)
    assert letters.expire(2)
    assert (len(letters), letters.expire(2), letters.expire(2)) == (4, True, False)

    assert kept(letters) == [("bob", 9)]


@pytest.mark.parametrize("limits", [{"max_letters": 5}, {"max_bytes": 5 * 603}])
def test_who_has_most_dead_letters_loses_its_oldest(clock: Clock, counts: Counts, limits: dict[str, int]) -> None:
    """
    In number and in bytes; others keep theirs.
    """
    letters = make_letters(clock, counts, **limits)
    letters.bury("ann", event(1), 3, "attempts")
    for number in range(2, 10):
        letters.bury("bob", event(number), 3, "attempts")

    assert kept(letters) == [("ann", 1), ("bob", 6), ("bob", 7), ("bob", 8), ("bob", 9)]
    assert counts.limits.max_dead_letters.take_losers() == {"bob": 4}
    assert counts.dead_letters.died.take_losers() == {"ann": 1, "bob": 8}
    assert letters.bytes == 5 * 603


def test_purge(clock: Clock, core: Core) -> None:
    """
    An operator forgets dead letters, also those that were redriven: they are not sent to the agent when it returns.
    """
    client, _ = buried(core, clock)
    client.leave()
    core.application_hub.redrive()
    assert core.application_hub.purge("bob") == 0
    assert core.application_hub.purge() == 1
    assert core.application_hub.purge() == 0

    assert come_and_crash(core) == []
    assert core.letters.redriven == 0


# what is owed is in the log


def test_what_has_left_the_log_is_told_once(clock: Clock) -> None:
    """
    An agent that returns for events that are not in the log any more is told of one gap, and gets what is there.
    """
    core = make_core(clock, keep=60.0)
    client = worker(core)
    for _ in range(3):
        publish(core)
    clock.advance(50)
    kept_id = publish(core)
    client.leave()
    clock.advance(20)
    finish(core.hub.sweep())
    back = Client(core)
    messages = back.auth("ann")

    assert [message for message in messages if message.get("type") == "gap"] == [
        {"type": "gap", "reason": "expired", "first": 4, "epoch": "epoch", "pos": 4}
    ]
    assert ids(messages) == [kept_id] * 2
    assert (failures(core), stats(core)["log"]["gaps"]) == ((3, 0), 1)


def test_what_is_owed_takes_no_memory_of_its_own(clock: Clock, core: Core) -> None:
    """
    Positions are kept for an agent that is away, and no frames.
    """
    client = worker(core)
    publish(core, data="x" * 100_000)
    client.leave()

    assert (core.memory.kept, core.deliveries.held) == (1, 0)
    absence = core.memory.returned("ann")
    assert absence is not None and [owed.event for owed in absence.owed.values()] == [None]


def test_agent_gets_what_its_subscriptions_have(clock: Clock, core: Core) -> None:
    """
    The channel's own frame, and that of global; the former also if the agent has neither any more.
    """
    client = worker(core)
    event_id = publish(core)
    client.say(type="unsubscribe", channel="topics/t")
    client.leave()
    back = joined(core, quiet=True)
    got = [(one["id"], one["channel"]) for one in back.auth("ann") if "pos" in one and "event" in one]
    assert got == [(event_id, "topics/t")]
    back.leave()
    got = [(one["id"], one["channel"]) for one in Client(core).auth("ann") if "pos" in one and "event" in one]
    assert got == [(event_id, "global")]


def test_event_that_is_acknowledged_before_it_is_sent_again(core: Core) -> None:
    """
    By its id, or by its position.
    """
    client = worker(core)
    first, _second, third = (publish(core) for _ in range(3))
    client.leave()
    back = joined(core, quiet=True)
    held: list[Any] = []
    reading, back.peer.replay = back.peer.replay, held.append  # type: ignore[assignment]
    back.auth("ann")
    back.say(type="ack", message_id=first)
    back.say(type="ack", pos=2)
    reading(held.pop())

    assert ids(back.peer.take()) == [third]


def test_far_too_many_bytes_in_flight_are_dead_letters(clock: Clock) -> None:
    """
    The agent that holds most loses its oldest if making it wait is not enough.
    """
    core = make_core(clock, max_bytes=100_000)
    bob = worker(core, "bob", "topics/u")
    other = publish(core, channel="topics/u")
    clients = [worker(core, channel=f"topics/{number}") for number in range(5)]
    tasks = [publish(core, channel=f"topics/{number}", data="x" * 30_000) for number in range(5)]

    assert [(letter.event_id, letter.reason) for letter in core.application_hub.dead_letters()] == [
        (task, "overflow") for task in tasks[:2]
    ]
    assert [list(client.session.owed) for client in (*clients, bob)] == [
        [],
        [],
        *([task] for task in tasks[2:]),
        [other],
    ]
    assert core.deliveries.held < 100_000
    assert failures(core) == (2, 0)


def test_late_answers_of_the_log(clock: Clock) -> None:
    """
    What an agent owes comes when the log has answered; if it could not, or if more is owed since, it is asked again.
    """
    core = make_core(clock, log=LateLog)
    log = core.log
    assert isinstance(log, LateLog)
    log.finds_late = True
    client = worker(core)
    tasks = []
    for _ in range(2):
        publisher = joined(core, quiet=True)
        publisher.say(**TASK)
        log.commit()
        tasks += ids(client.peer.take())
    client.leave()
    log.tail = -1
    back = joined(core, quiet=True)
    back.auth("ann")
    log.tail = 0
    (asked,) = log.pages
    log.tail = -1
    log.pages.clear()
    asked.ready(Page([], asked.head, 0))
    back.peer.read()
    back.peer.read()
    (first,) = log.finds
    first[1](None)
    back.peer.read()
    _, second = log.finds
    frame = event_frame("msg_redriven", b'"topics/t"', "task.created", b"1", WALL_MS, b"", 99)
    core.letters.bury("ann", Tracked(99, "msg_redriven", (frame,)), 3, "attempts")
    core.application_hub.redrive()
    second[1]({})
    back.peer.read()
    assert ids(back.peer.take()) == []
    for asked in log.pages:
        asked.ready(Page([], asked.head, 0))
    back.peer.read()
    positions, ready = log.finds[2]
    assert positions == [1, 2]
    looks = back.peer.looks
    MemoryLog.find(log, positions, ready)
    assert back.peer.looks == looks + 1
    back.peer.read()
    back.peer.read()

    assert ids(back.peer.take()) == [*tasks, "msg_redriven"]


def test_too_many_bytes_in_flight_make_a_client_wait(clock: Clock) -> None:
    """
    The client that holds most gets no more until it has acknowledged some; it loses nothing, and others go on.
    """
    core = make_core(clock, max_bytes=100_000)
    ann, bob = worker(core), worker(core, "bob", "topics/u")
    tasks = [publish(core, data="x" * 30_000) for _ in range(6)]
    other = publish(core, channel="topics/u")

    assert ids(ann.peer.take()) == tasks[:4]
    assert ids(bob.peer.take()) == [other]
    ann.say(type="ack", message_id=tasks[0])
    ann.peer.read()
    assert ids(ann.peer.take()) == [tasks[4]]
    for task in tasks[1:5]:
        ann.say(type="ack", message_id=task)
    ann.peer.read()

    assert ids(ann.peer.take()) == [tasks[5]]
    assert (dead(core), failures(core), stats(core)["limits"]["maxPendingBytes"]) == ([], (0, 0), 2)
