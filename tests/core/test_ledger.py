"""
The ledger: what became of each logged event at each agent.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from dcm_ws.core.agent_states import AgentState
from dcm_ws.core.assembly import Core
from dcm_ws.core.counts import Counts
from dcm_ws.core.fates import Fate, fates
from dcm_ws.core.ledger import Noted
from dcm_ws.core.ledger_pages import BLOCK, entries_of
from dcm_ws.core.session import Origin
from tests import fakes
from tests.core.clients import TASK, joined
from tests.core.living import finish, live, make_ledger
from tests.core.owning import LateOwners
from tests.core.test_delivery import Reader
from tests.fakes import WALL_MS, make_core


class Client(fakes.Client):
    """
    A client that is noted as heard, as its connection does.
    """

    def receive(self, message: str | bytes, size: int | None = None) -> None:
        self.session.heard_at = self.core.world.now()
        super().receive(message, size)


def agent(core: Core, name: str = "ann", *channels: str, **fields: Any) -> Client:
    """
    A durable agent that is subscribed to C{topics/t} and not to C{global}.
    """
    client = Client(core)
    client.auth(name, durable=True, **fields)
    for channel in channels or ("topics/t",):
        client.say(type="subscribe", channel=channel)
    client.say(type="unsubscribe", channel="global")
    return client


def publish(core: Core, **fields: Any) -> str:
    publisher = joined(core, quiet=True)
    event_id: str = publisher.say(**(TASK | fields), id=1)[-1]["message_id"]
    publisher.leave()
    return event_id


def fates_of(core: Core, pos: int = 1) -> dict[str, Fate]:
    return {fate.agent: fate for fate in fates(entries_of(core.ledger.pages_of(pos), pos))}


def history(core: Core, pos: int = 1, name: str = "ann") -> list[tuple[float, str]]:
    """
    What happened to an event at one agent, and after how many seconds.
    """
    return [((entry.at - WALL_MS) / 1000, entry.what) for entry in fates_of(core, pos)[name].history]


# one event


def test_event_is_sent_and_acknowledged(clock: Clock, core: Core) -> None:
    """
    The ledger says when an event was sent to each agent, and when it was acknowledged.
    """
    ann, bob = agent(core), agent(core, "bob")
    event_id = publish(core)
    clock.advance(1.5)
    ann.say(type="ack", message_id=event_id)

    assert history(core) == [(0, "sent"), (1.5, "acknowledged")]
    assert history(core, name="bob") == [(0, "sent")]
    assert fates_of(core)["ann"] == Fate(
        "ann", 1, WALL_MS, WALL_MS, WALL_MS + 1500, None, "", None, fates_of(core)["ann"].history
    )
    assert [fate.state for fate in fates_of(core).values()] == ["acknowledged", "sent"]
    clock.advance(2)
    bob.say(type="ack", message_id=event_id)
    assert history(core, name="bob") == [(0, "sent"), (3.5, "acknowledged")]


def test_acks_at_different_times_of_one_page(clock: Clock, core: Core) -> None:
    """
    Each has its own time.
    """
    clients = [agent(core, f"agent-{number}") for number in range(3)]
    event_id = publish(core)
    for client in clients:
        clock.advance(0.25)
        client.say(type="ack", message_id=event_id)
    assert [fate.acknowledged for fate in fates_of(core).values()] == [WALL_MS + ms for ms in (250, 500, 750)]


def test_event_that_nobody_got_has_no_entries(core: Core) -> None:
    """
    Nor has one that only clients without an agent, or observers, got.
    """
    joined(core, "topics/t", quiet=True)
    agent(core, "bob", "topics/u")
    observer = Client(core, Origin(observer=True))
    observer.auth("eve")
    publish(core)
    agent(core)
    assert fates_of(core) == {}


def test_clients_without_an_agent_beside_one(clock: Clock, core: Core) -> None:
    """
    What clients without an agent are sent, acknowledge and are sent again is not noted, also if an agent gets it, too.
    """
    agent(core)
    stranger = Client(core)
    stranger.say(type="subscribe", channel="topics/t")
    stranger.say(type="unsubscribe", channel="global")
    first, second = publish(core), publish(core)
    stranger.say(type="ack", message_id=first)
    clock.advance(6)
    finish(core.retrying.sweep())

    assert [message.get("id") for message in stranger.peer.take()] == [second]
    for pos in (1, 2):
        assert set(fates_of(core, pos)) == {"ann"}


def test_untracked_event_is_noted_too(clock: Clock, core: Core) -> None:
    """
    An event that nobody acknowledges is in the ledger if it is logged: at all who got it on its channel or on global.
    """
    agent(core)
    agent(core, "bob", "topics/t", "topics/u")
    Client(core).auth("cem")
    publish(core, event="session.created")
    assert {name: fate.sends for name, fate in fates_of(core).items()} == {"ann": 1, "bob": 1, "cem": 1}


def test_event_that_is_not_logged_is_not_noted(core: Core) -> None:
    """
    It has no position.
    """
    ann = agent(core)
    publish(core, event="agent.heartbeat")
    assert [message["event"] for message in ann.peer.take()][-1:] == ["agent.heartbeat"]
    core.ledger.seal()
    assert core.ledger.bytes == 0


def test_events_to_the_same_agents_name_them_once(clock: Clock, core: Core) -> None:
    """
    What goes to many is noted once, whatever they acknowledge meanwhile; who comes and goes changes who got it.
    """
    clients = [agent(core, f"agent-{number}") for number in range(50)]
    for _ in range(10):
        event_id = publish(core)
        clients[0].say(type="ack", message_id=event_id)
    (page,) = core.ledger.pages_of(5)
    assert page.count(b"agent-7") == 1
    assert len(page) < 50 * 40
    clients.pop().leave()
    publish(core)
    agent(core, "late")
    publish(core)
    assert [len(fates_of(core, pos)) for pos in (10, 11, 12)] == [50, 49, 50]
    assert "late" in fates_of(core, 12)


def test_agent_that_a_client_becomes_later_is_the_one_that_is_noted(core: Core) -> None:
    """
    An audience whose clients authenticate, or become other agents or observers, is not that of before.
    """
    first, second = joined(core, "topics/t", quiet=True), joined(core, "topics/t", quiet=True)
    publish(core)
    first.auth("ann")
    first.say(type="unsubscribe", channel="global")
    publish(core)
    second.auth("bob")
    publish(core)
    second.auth("cem")
    publish(core)
    second.auth("cem", observer=True)
    publish(core)
    assert [sorted(fates_of(core, pos)) for pos in range(1, 6)] == [
        [],
        ["ann"],
        ["ann", "bob"],
        ["ann", "cem"],
        ["ann"],
    ]


def test_client_that_becomes_another_agent_acknowledges_as_that_one(core: Core) -> None:
    """
    Also within the same moment.
    """
    client = agent(core)
    client.say(type="ack", message_id=publish(core))
    client.auth("bob")
    client.say(type="ack", message_id=publish(core))
    assert history(core, 1) == [(0, "sent"), (0, "acknowledged")]
    assert history(core, 2, "bob") == [(0, "sent"), (0, "acknowledged")]
    assert "ann" not in fates_of(core, 2)


# again


def test_retries_are_noted(clock: Clock, core: Core) -> None:
    """
    Each time that an event is sent again; and when it died.
    """
    agent(core)
    agent(core, "bob")
    publish(core)
    live(core, clock, 20)
    assert history(core) == [(0, "sent"), (5, "sent"), (10, "sent"), (15, "dead")]
    assert history(core, name="bob") == history(core)
    fate = fates_of(core)["ann"]
    assert (fate.sends, fate.first_sent, fate.last_sent) == (3, WALL_MS, WALL_MS + 10_000)
    assert (fate.state, fate.dead, fate.reason) == ("dead", WALL_MS + 15_000, "attempts")


def test_retry_reconnect_and_redrive_are_noted(clock: Clock, core: Core) -> None:
    """
    Everything that can happen to an event, in its order.
    """
    client = agent(core)
    event_id = publish(core)
    live(core, clock, 6)
    client.leave()
    live(core, clock, 10)
    client = agent(core)
    live(core, clock, 16)
    core.application_hub.redrive("ann")
    assert fates_of(core)["ann"].state == "sent"
    live(core, clock, 2)
    client.say(type="ack", message_id=event_id)
    assert history(core) == [
        (0, "sent"),
        (5, "sent"),
        (16, "sent"),
        (21, "sent"),
        (26, "sent"),
        (31, "dead"),
        (32, "redriven"),
        (32, "sent"),
        (34, "acknowledged"),
    ]
    assert fates_of(core)["ann"].state == "acknowledged"


def test_redriven_event_waits_for_its_agent(clock: Clock, core: Core) -> None:
    """
    Until it is sent, its last entry is the redrive; the ack by which it is a dead letter no more is noted, too.
    """
    client = agent(core)
    event_id = publish(core)
    live(core, clock, 16)
    client.leave()
    core.application_hub.redrive()
    assert fates_of(core)["ann"].state == "redriven"
    client = agent(core)
    client.say(type="ack", message_id=event_id)
    assert [what for _, what in history(core)][-3:] == ["redriven", "sent", "acknowledged"]


def test_late_ack_of_a_dead_letter_is_noted(clock: Clock, core: Core) -> None:
    """
    It is a dead letter no more.
    """
    client = agent(core)
    event_id = publish(core)
    live(core, clock, 16)
    client.say(type="ack", message_id=event_id)
    assert history(core)[-2:] == [(15, "dead"), (16, "acknowledged")]
    assert fates_of(core)["ann"].state == "acknowledged"


def test_ack_of_what_is_owed_and_not_sent_again_yet_is_noted(clock: Clock) -> None:
    """
    An agent that returns, and has room for one event only, acknowledges the other one that it got before.
    """
    core = make_core(clock, max_pending=1)
    client = agent(core)
    first = publish(core)
    client.leave()
    client = Client(core)
    client.peer.stopped = True
    client.auth("ann")
    second = publish(core)
    client.say(type="ack", pos=2)
    assert history(core)[-1] == (0, "acknowledged")
    assert first != second


@pytest.mark.parametrize("cumulative", [False, True])
def test_ack_on_another_connection_has_the_time_at_which_it_arrived(clock: Clock, core: Core, cumulative: bool) -> None:
    """
    It settles the event for a connection that has been silent for long.
    """
    agent(core)
    other = agent(core, "ann", "topics/u")
    event_id = publish(core)
    clock.advance(3)
    other.say(type="ack", **({"pos": 1} if cumulative else {"message_id": event_id}))
    assert history(core) == [(0, "sent"), (3, "acknowledged")]


def test_event_to_several_connections_of_an_agent_counts_once(core: Core) -> None:
    """
    They got it at the same moment.
    """
    agent(core)
    agent(core)
    publish(core)
    assert fates_of(core)["ann"].sends == 1


def test_replay_to_one_client_is_noted(clock: Clock, core: Core) -> None:
    """
    What a client resumes it is sent, also if nobody acknowledges it.
    """
    for event in ("task.created", "session.created"):
        publish(core, event=event)
    clock.advance(4)
    client, observer = Client(core), Client(core, Origin(observer=True))
    for one in (client, observer):
        one.auth("ann", resume={"epoch": "epoch", "pos": 0, "channels": ["topics/t"]})
        clock.advance(1)
    assert [history(core, pos) for pos in (1, 2)] == [[(4, "sent")], [(4, "sent")]]


def test_ack_at_another_node_is_noted(clock: Clock) -> None:
    """
    The agent is away here, or has a connection that owes the event; the ack has the time at which it became known.
    """
    owners = LateOwners()
    owners.at_once = True
    core = make_core(clock, owners=owners)
    agent(core)
    first = publish(core)
    clock.advance(2)
    core.ownership.acknowledged("ann", first, 0)
    assert history(core) == [(0, "sent"), (2, "acknowledged")]
    bob = agent(core, "bob")
    second = publish(core)
    bob.leave()
    clock.advance(1)
    core.ownership.acknowledged("bob", second, 0)
    assert history(core, 2, "bob") == [(2, "sent"), (3, "acknowledged")]


# pages and limits


def test_pages_go_when_the_log_has_left_their_events_behind(clock: Clock) -> None:
    """
    The ledger is kept as long as the log.
    """
    core = make_core(clock, keep=100.0)
    agent(core)
    publish(core)
    live(core, clock, 55)
    agent(core)
    publish(core)
    live(core, clock, 40)
    assert "ann" in fates_of(core)
    live(core, clock, 10)
    assert core.log.first == 2
    assert core.ledger.pages_of(1) == []
    assert "ann" in fates_of(core, 2)
    live(core, clock, 100)
    core.ledger.seal()
    live(core, clock, 100)
    assert core.ledger.bytes == 0


def test_late_acks_of_old_events_are_on_pages_of_their_own(clock: Clock, core: Core) -> None:
    """
    So whoever looks for an event need not look at every page since then: a page has the events of one block.
    """
    ann, bob = agent(core), agent(core, "bob", "topics/t", "topics/u")
    old = publish(core)
    core.ledger.seal()
    for _ in range(BLOCK):
        publish(core, event="session.created", channel="topics/other")
    live(core, clock, 4)
    new = publish(core, channel="topics/u")
    publish(core)
    ann.say(type="ack", message_id=old)
    bob.say(type="ack", message_id=new)
    bob.say(type="ack", message_id=old)
    live(core, clock, 2)
    core.ledger.note("cem", 1, "redriven")
    core.ledger.note("dan", 2, "redriven")
    assert history(core) == [(0, "sent"), (4, "acknowledged")]
    assert history(core, name="bob") == history(core)
    assert sorted(fates_of(core)) == ["ann", "bob", "cem"]
    assert sorted(fates_of(core, BLOCK + 2)) == ["bob"]
    assert fates_of(core, BLOCK + 2)["bob"].state == "acknowledged"
    assert sorted(fates_of(core, BLOCK + 3)) == ["ann", "bob"]
    assert len(core.ledger.pages_of(1)) == 2
    assert len(core.ledger.pages_of(BLOCK + 3)) == 1


def test_events_of_two_blocks_on_one_page_become_two(core: Core) -> None:
    """
    Audiences are those of the page that they are on.
    """
    publisher = joined(core, quiet=True)
    for _ in range(BLOCK - 2):
        publisher.say(**(TASK | {"event": "session.created"}))
    agent(core)
    agent(core, "bob")
    for _ in range(3):
        publish(core)
    assert [sorted(fates_of(core, BLOCK + number)) for number in (-1, 0, 1)] == [["ann", "bob"]] * 3
    assert core.ledger.pages_of(BLOCK - 1) != core.ledger.pages_of(BLOCK) == core.ledger.pages_of(BLOCK)


def test_oldest_pages_are_forgotten_beyond_the_limit(clock: Clock) -> None:
    """
    And counted.
    """
    core = make_core(clock, max_ledger=1500)
    agent(core)
    for _ in range(10):
        publish(core)
        core.ledger.seal()
    assert fates_of(core, 1) == {}
    assert "ann" in fates_of(core, 10)
    assert 0 < core.ledger.bytes <= 1500
    assert core.counts.limits.max_ledger.value > 0


def test_ledger_can_be_turned_off(clock: Clock) -> None:
    """
    With a limit of 0.
    """
    core = make_core(clock, max_ledger=0)
    agent(core)
    publish(core)
    live(core, clock, 16)
    assert core.application_hub.dead_letters()
    assert fates_of(core) == {}
    assert core.ledger.bytes == 0


def test_retries_of_two_blocks_are_on_two_pages(clock: Clock, core: Core) -> None:
    """
    Retries of one event to several agents are noted together.
    """
    publisher = joined(core, quiet=True)
    for _ in range(BLOCK - 2):
        publisher.say(**(TASK | {"event": "session.created"}))
    agent(core)
    agent(core, "bob")
    for _ in range(3):
        publish(core)
    live(core, clock, 6)
    for pos in range(BLOCK - 1, BLOCK + 2):
        assert {name: fate.sends for name, fate in fates_of(core, pos).items()} == {"ann": 2, "bob": 2}


def test_large_page_is_closed_at_the_next_sweep(clock: Clock, core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A small one after some seconds.
    """
    monkeypatch.setattr("dcm_ws.core.ledger._PAGE_THINGS", 1000)
    agent(core)
    agent(core, "bob")
    publish(core)
    live(core, clock, 4)
    assert core.ledger.bytes == 0
    for _ in range(400):
        publish(core)
    live(core, clock, 1)
    assert core.ledger.bytes > 0
    before = core.ledger.bytes
    publish(core)
    live(core, clock, 11)
    assert core.ledger.bytes > before


def test_page_that_names_very_many_agents_is_closed_at_once(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Many channels, each with subscribers of its own, must not fill the memory between two sweeps.
    """
    monkeypatch.setattr("dcm_ws.core.ledger._CLIENTS_MAX", 1000)
    ledger = make_ledger(clock)
    groups = [{Reader() for _ in range(200)} for _ in range(7)]
    ledger.join(next(iter(groups[0])), "ann")
    for pos, group in enumerate(groups, 1):
        ledger.sent(pos, group, clock.seconds())
    assert ledger.bytes > 0


def test_names_of_clients_that_have_left_are_forgotten(clock: Clock) -> None:
    """
    When the page is closed, or would be if it had anything.
    """
    ledger = make_ledger(clock)
    reader = Reader()
    ledger.join(reader, "ann")
    ledger.leave(reader)
    ledger.leave(reader)
    assert reader.number == 0
    clock.advance(11)
    ledger.expire(1)
    ledger.sent(1, {reader, Reader()}, clock.seconds())
    assert ledger.pages_of(1) == []


def test_reset_forgets_the_ledger(clock: Clock, core: Core) -> None:
    """
    Positions of another log mean nothing in this one.
    """
    agent(core)
    publish(core)
    core.ledger.seal()
    core.hub.reset()
    assert core.ledger.pages_of(1) == []
    assert core.ledger.bytes == 0
    finish(core.hub.sweep())
    agent(core, "bob")
    publish(core)
    assert sorted(fates_of(core, 2)) == ["bob"]


def test_state_of_an_agent_that_was_loaded_is_noted_when_it_returns(clock: Clock) -> None:
    """
    What was owed before a restart is sent again, and that is noted.
    """
    core = make_core(clock)
    event_id = publish(core)
    finish(core.loading.load({"ann": AgentState(1, {"topics/t": 0}, {1: (event_id, 2)}, True, WALL_MS)}, ()))
    clock.advance(5)
    Client(core).auth("ann")
    assert history(core) == [(5, "sent")]


def test_pages_are_written_in_their_order(clock: Clock, core: Core) -> None:
    """
    What is being written can be found, and is taken again if it could not be written.
    """
    agent(core)
    for _ in range(3):
        publish(core)
        core.ledger.seal()
    ledger, size = core.ledger, core.ledger.bytes
    first = ledger.take(1)
    assert len(first) == 1
    assert "ann" in fates_of(core, 1)
    ledger.put_back(first)
    assert ledger.bytes == size
    assert [page.first for page in ledger.take(1 << 20)] == [1, 2, 3]
    pages = ledger.take(1 << 20)
    assert pages == []


def test_written_pages_leave_the_memory(clock: Clock, core: Core) -> None:
    """
    The database has them; what comes later stays.
    """
    agent(core)
    publish(core)
    pages = core.ledger.take(1 << 20)
    publish(core)
    core.ledger.written(pages)
    assert fates_of(core, 1) == {}
    assert "ann" in fates_of(core, 2)
    assert 0 < core.ledger.bytes < 1000


@pytest.mark.parametrize("outcome", ["written", "put_back"])
def test_pages_of_a_former_log_are_forgotten(clock: Clock, core: Core, outcome: str) -> None:
    """
    Whatever becomes of a write that was under way when the log became another one.
    """
    agent(core)
    publish(core)
    pages = core.ledger.take(1 << 20)
    core.ledger.clear()
    getattr(core.ledger, outcome)(pages)
    assert core.ledger.take(1 << 20) == []
    assert core.ledger.bytes == 0


def test_pages_that_are_being_written_count_for_the_limit(clock: Clock) -> None:
    """
    If the database is away for long, the oldest of those that wait go.
    """
    core = make_core(clock, max_ledger=700)
    agent(core)
    publish(core)
    pages = core.ledger.take(1 << 20)
    for _ in range(5):
        publish(core)
        core.ledger.seal()
    assert "ann" in fates_of(core, 1)
    core.ledger.put_back(pages)
    assert core.ledger.bytes <= 700
    assert core.counts.limits.max_ledger.value >= 4


def test_limit_counts(clock: Clock, counts: Counts) -> None:
    """
    A page that is larger than the limit by itself is forgotten at once.
    """
    ledger = make_ledger(clock, counts, max_bytes=10)
    reader = Reader()
    ledger.join(reader, "ann")
    ledger.sent_to(reader, 1)
    ledger.acked(reader.number, Noted(), 1, clock.seconds())
    assert ledger.pages_of(1) == []
    assert counts.limits.max_ledger.value == 1
