"""
Everything that a log may do later, in any order: what clients get, and what publishers are told.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from dcm_ws.core.entries import Draft
from dcm_ws.protocol.channels import parse_channel
from dcm_ws.protocol.events import is_tracked
from tests.core.clients import joined
from tests.core.latelog import LateLog
from tests.examples import examples
from tests.fakes import Client, make_core

CHANNELS = ("topics/t", "topics/u")
EVENTS = ("session.created", "task.created")


class Ledger(LateLog):
    """
    Remembers what has been in the log.

    @ivar logged: the position and the channel of each event, by id.
    """

    def __init__(self, *args: Any, **limits: Any) -> None:
        super().__init__(*args, **limits)
        self.logged: dict[str, tuple[int, str]] = {}

    def attach(self, deliver: Any, reset: Any) -> None:
        def noted(draft: Draft, pos: int, frame: bytes) -> None:
            assert pos == self.head == len(self.logged) + 1
            self.logged[draft.id] = (pos, draft.channel.name)
            deliver(draft, pos, frame)

        super().attach(noted, reset)


class Follower:
    """
    A client that comes back whenever it was away, from the position that it had.

    @ivar since: the position after which it wants the events of each of its channels.
    @ivar applied: the positions of the events that it has, in the order in which they came.
    @ivar excused: it has been told that it may miss events up to here.
    """

    def __init__(self, world: World, agent: str | None) -> None:
        self.world = world
        self.agent = agent
        self.pos = 0
        self.since: dict[str, int] = {}
        self.applied: list[int] = []
        self.unacknowledged: dict[int, str] = {}
        self.again: set[int] = set()
        self.excused = 0
        self.last = 0
        self.client: Client | None = None
        self.come()
        self.subscribe(CHANNELS[0])

    def come(self) -> None:
        self.client = Client(self.world.core)
        self.client.say(type="unsubscribe", channel="global")
        self.last = 0
        position = {"epoch": "epoch", "pos": self.pos, "channels": list(self.since)}
        if self.agent is not None:
            self.client.receive(_json(type="auth", agent_id=self.agent, id="a", resume=position))
        elif self.since:
            self.client.receive(_json(type="resume", id="r", **position))
        self.take()

    def subscribe(self, channel: str) -> None:
        if self.client is not None and channel not in self.since:
            self.since[channel] = self.world.log.head
            self.client.receive(_json(type="subscribe", channel=channel, id="s"))
            self.take()

    def drop(self) -> None:
        if self.client is not None:
            self.take()
            self.client.leave()
            self.client = None
            # an agent gets again what it has not acknowledged
            self.again |= set(self.unacknowledged) if self.agent is not None else set()
            self.unacknowledged.clear()

    def acknowledge(self) -> None:
        if self.client is not None:
            self.take()
            for event_id in self.unacknowledged.values():
                self.client.receive(_json(type="ack", message_id=event_id))
            self.unacknowledged.clear()

    def look(self) -> None:
        if self.client is not None and self.client.peer.replaying is not None:
            self.client.peer.read()
            self.take()

    def take(self) -> None:
        assert self.client is not None
        for message in self.client.peer.take():
            if "gap" in message or message.get("type") == "gap":
                self.excused = self.pos = message["pos"]
            elif message.get("id") == "s":
                self.pos = max(self.pos, message["pos"])
            elif "pos" in message and "data" in message:
                self.apply(message)

    def apply(self, message: dict[str, Any]) -> None:
        pos = message["pos"]
        assert self.last < pos, "out of order on one connection"
        self.last = pos
        assert self.world.log.logged[message["id"]] == (pos, message["channel"])
        assert message["channel"] in self.since
        if pos in self.applied:
            assert pos in self.again, "twice"
        self.again.discard(pos)
        self.applied.append(pos)
        self.pos = max(self.pos, pos)
        if is_tracked(message["event"]):
            self.unacknowledged[pos] = message["id"]

    def check(self) -> None:
        missing = {
            pos
            for pos, channel in self.world.log.logged.values()
            if channel in self.since and pos > max(self.since[channel], self.excused)
        } - set(self.applied)
        assert not missing


class World:
    """
    @ivar requests: what each publish was answered, by its id.
    """

    def __init__(self, tail: int, span: int, max_events: int) -> None:
        clock = Clock()
        clock.advance(1000)
        self.core = make_core(clock, log=Ledger, max_events=max_events)
        assert isinstance(self.core.log, Ledger)
        self.log = self.core.log
        self.log.tail, self.log.span, self.log.finds_late = tail, span, True
        self.publishers = [joined(self.core, quiet=True) for _ in range(2)]
        self.sent = 0
        self.accepted: dict[int, str] = {}
        self.refused = 0
        self.followers = [Follower(self, None), Follower(self, None), Follower(self, "ann")]

    def step(self, name: str, one: int, two: int) -> None:
        log, follower = self.log, self.followers[one % len(self.followers)]
        match name:
            case "publish":
                self.sent += 1
                text = _json(
                    type="publish", channel=CHANNELS[two % 2], event=EVENTS[two // 2 % 2], data=1, id=self.sent
                )
                self.publishers[one % 2].receive(text)
            case "commit" if log.appends:
                log.commit(one % len(log.appends))
            case "refuse" if log.appends:
                log.refuse(one % len(log.appends))
                self.refused += 1
            case "answer" if log.answers:
                log.answer(one % len(log.answers))
            case "read" if log.pages:
                log.read(one % len(log.pages), fails=two == 0)
            case "find" if log.finds:
                log.found(one % len(log.finds), fails=two == 0)
            case "hear":
                channel = parse_channel(CHANNELS[two % 2])
                event_id, event = f"other_{log.head + 1}", EVENTS[one % 2]
                tracked = is_tracked(event)
                source = " database"
                log.hear(Draft(event_id, channel, event, b"1", 0, b"", channel.name, "task", tracked, False, source))
            case "subscribe":
                follower.subscribe(CHANNELS[1])
            case "look":
                follower.look()
            case "ack":
                follower.acknowledge()
            case "drop":
                follower.drop()
            case "come" if follower.client is None:
                follower.come()
            case "publisher leaves":
                self.hear_answers(one % 2)
                self.publishers[one % 2].leave()
                self.publishers[one % 2] = joined(self.core, quiet=True)
        for each in self.followers:
            if each.client is not None:
                each.take()

    def hear_answers(self, index: int) -> None:
        for message in self.publishers[index].peer.take():
            if message["success"]:
                assert self.log.logged[message["message_id"]][0] == message["pos"]
                assert message["id"] not in self.accepted
                self.accepted[message["id"]] = message["message_id"]
            else:
                assert message["code"] == "NOT_AVAILABLE"

    def settle(self) -> None:
        for follower in self.followers:
            if follower.client is None:
                follower.come()
        for _ in range(200):
            self.log.settle()
            for follower in self.followers:
                follower.look()
                follower.acknowledge()
            if not self.core.clients.behind and not self.log.pages and not self.log.finds:
                break
        for index in range(2):
            self.hear_answers(index)


def _json(**message: Any) -> str:
    return json.dumps(message)


STEPS = st.tuples(
    st.sampled_from(
        (
            *("publish", "publish", "hear", "commit", "commit", "commit", "refuse", "answer", "publisher leaves"),
            *("read", "read", "find", "look", "look", "look", "ack", "subscribe", "drop", "come", "come"),
        )
    ),
    st.integers(0, 5),
    st.integers(0, 5),
)


@given(
    steps=st.lists(STEPS, min_size=20, max_size=150),
    tail=st.sampled_from((-1, 0, 3)),
    span=st.sampled_from((1, 3, 1000)),
    max_events=st.sampled_from((8, 1000)),
)
@settings(max_examples=examples(150), deadline=None)
def test_log_that_does_things_in_any_order(
    steps: list[tuple[str, int, int]], tail: int, span: int, max_events: int
) -> None:
    """
    Each follower gets every event of its channels, once, in order, or is told of a gap; publishers are told the truth.
    """
    world = World(tail, span, max_events)
    for step in steps:
        world.step(*step)
    world.settle()

    assert not world.core.clients.behind, "a client never gets events directly again"
    foreign = sum(event_id.startswith("other_") for event_id in world.log.logged)
    assert len(world.log.logged) == foreign + world.sent - world.refused
    for follower in world.followers:
        follower.check()
        assert follower.excused == 0 or max_events == 8
