"""
Courses of events with crashes of the service: what holds after one is what the database has.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import strategies as st
from twisted.internet.task import Clock

from dcm_ws.core.assembly import Core
from dcm_ws.core.journal import Changes
from dcm_ws.core.session import Origin
from tests.core.journalled import Database, restarted
from tests.core.living import finish
from tests.core.promises.ledger import promise
from tests.fakes import Client, RecordingPeer, make_core

_ORIGIN = Origin()

AGENTS = ("ann", "bob")
CHANNELS = ("topics/t", "topics/u")
_CONNECTIONS = 2
Operation = tuple[Any, ...]


def _json(**message: object) -> str:
    return json.dumps(message)


class SlowPeer(RecordingPeer):
    """
    The far end of a client that takes what it is replayed when the test says so.
    """

    def replay(self, frames: Iterator[bytes | None]) -> None:
        self.replaying = frames


class Worker(Client):
    """
    A connection of an agent that acknowledges events.

    @ivar channels: what it is subscribed to.
    @ivar waiting: events that it has a right to and has not been sent.
    @ivar unacknowledged: events that it was sent, by id.
    """

    peer: SlowPeer

    def __init__(self, core: Core, agent: Agent) -> None:
        self.core = core
        self.agent = agent
        self.peer = SlowPeer()
        session = core.hub.connect(self.peer, _ORIGIN)
        assert session is not None
        self.session = session
        self.channels: set[str] = set()
        self.waiting: set[int] = set()
        self.unacknowledged: dict[str, int] = {}


class Agent:
    """
    An agent.

    @ivar workers: its connections.
    @ivar channels: what it was subscribed to when the last one ended.
    @ivar due: events that it must get until it has acknowledged them, as long as the service does not crash.
    @ivar safe: those of them that it must get also after a crash.
    @ivar journalled: the channels whose events are safe when they are published.
    @ivar sent: events that it was sent.
    @ivar acked: events that it has acknowledged, and has not been sent again on another connection since.
    @ivar done: those of them that it must not get again, also after a crash.
    @ivar is_uneven: one of its connections may have to be sent what another one has acknowledged.  The place of an
        agent in a channel is that of the connection that is least far, and passes on to the heir of that connection.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.workers: list[Worker] = []
        self.channels: set[str] = set()
        self.due: set[int] = set()
        self.safe: set[int] = set()
        self.journalled: set[str] = set()
        self.sent: set[int] = set()
        self.acked: set[int] = set()
        self.done: set[int] = set()
        self.is_uneven = False

    @property
    def live(self) -> set[str]:
        return set().union(*(worker.channels for worker in self.workers)) if self.workers else self.channels


class CrashCourse:
    """
    Executes operations, and keeps account of what must survive a crash.
    """

    def __init__(self, max_pending: int) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self._choices: dict[str, Any] = {"max_pending": max_pending, "heartbeat_timeout": 1e9, "max_attempts": 3}
        self.core = make_core(self.clock, **self._choices)
        self.database = Database()
        self.database.load(self.core)
        self.agents = [Agent(name) for name in AGENTS]
        self._ids: dict[str, int] = {}
        self._published = 0
        self._collecting: Iterator[None] | None = None
        # what was taken, and could not be written as far as the service knows
        self._failed: Changes | None = None
        self._seen: list[tuple[set[int], set[str], set[int]]] = []

    # what clients do

    def come(self, which: int) -> None:
        agent = self.agents[which]
        if len(agent.workers) == _CONNECTIONS:
            return
        worker = Worker(self.core, agent)
        worker.say(type="unsubscribe", channel="global")
        if not agent.workers:
            worker.channels = set(agent.channels)
            worker.waiting = set(agent.due)
        agent.workers.append(worker)
        agent.is_uneven = agent.is_uneven or len(agent.workers) > 1
        worker.receive(_json(type="auth", agent_id=agent.name, durable=True))
        self._look(worker)

    def subscribe(self, which: int, number: int, channel: str) -> None:
        worker = self._worker(which, number)
        if worker is not None:
            worker.channels.add(channel)
            worker.receive(_json(type="subscribe", channel=channel))
            self._look(worker)

    def unsubscribe(self, which: int, number: int, channel: str) -> None:
        worker = self._worker(which, number)
        if worker is not None and channel in worker.channels:
            agent = worker.agent
            worker.channels.remove(channel)
            worker.receive(_json(type="unsubscribe", channel=channel))
            # what it has not been sent yet it does not want any more
            left = {n for n in worker.waiting if self._channel_of(n) == channel}
            worker.waiting -= left
            self._drop(agent, left)
            self._look(worker)

    def _drop(self, agent: Agent, events: set[int]) -> None:
        for event in events - agent.sent:
            if not any(event in other.waiting for other in agent.workers):
                agent.due.discard(event)
                agent.safe.discard(event)

    def publish(self, channel: str, times: int) -> None:
        for _ in range(times):
            number, self._published = self._published, self._published + 1
            # the channel is in the number
            number = number * len(CHANNELS) + CHANNELS.index(channel)
            for agent in self.agents:
                if channel in agent.live:
                    agent.due.add(number)
                    if channel in agent.journalled:
                        agent.safe.add(number)
                for worker in agent.workers:
                    if channel in worker.channels:
                        worker.waiting.add(number)
            publisher = Client(self.core)
            publisher.receive(_json(type="publish", channel=channel, event="task.created", data=number))
            publisher.leave()
        self._look_all()

    def read(self, which: int, number: int, most: int) -> None:
        worker = self._worker(which, number)
        if worker is not None and worker.peer.replaying is not None:
            worker.peer.read(most)
            self._look(worker)

    def acknowledge(self, which: int, number: int, how: str) -> None:
        worker = self._worker(which, number)
        if worker is None:
            return
        ids = list(worker.unacknowledged)
        for event_id in {"first": ids[:1], "last": ids[-1:], "all": ids}[how]:
            event = worker.unacknowledged.pop(event_id)
            agent = worker.agent
            agent.due.discard(event)
            agent.safe.discard(event)
            agent.acked.add(event)
            worker.receive(_json(type="ack", message_id=event_id))
        self._look(worker)

    def refuse(self, which: int, number: int) -> None:
        worker = self._worker(which, number)
        if worker is not None and worker.unacknowledged:
            worker.receive(_json(type="nack", message_id=next(iter(worker.unacknowledged)), delay_ms=2000))

    def leave(self, which: int, number: int) -> None:
        worker = self._worker(which, number)
        if worker is not None:
            agent = worker.agent
            agent.workers.remove(worker)
            worker.leave()
            if agent.workers:
                heir = agent.workers[-1]
                heir.waiting |= worker.waiting
            else:
                agent.channels = worker.channels
            self._look_all()

    def advance(self, seconds: int) -> None:
        for _ in range(seconds):
            self.clock.advance(1)
            finish(self.core.hub.sweep())
            finish(self.core.retrying.sweep())
        self._look_all()

    def redrive(self, which: int) -> None:
        self.core.application_hub.redrive(AGENTS[which])
        self._look_all()

    # what the service writes

    def collect(self, steps: int) -> None:
        if self._collecting is None:
            self._collecting = self.core.journal.collect()
            self._seen = [(set(agent.due), set(agent.live), self._acked(agent)) for agent in self.agents]
        for _ in range(steps):
            next(self._collecting, None)

    def look_at_channels(self) -> None:
        """
        A channel that an agent has left need not be in what is being written.
        """
        for agent, (_, live, _) in zip(self.agents, self._seen, strict=False):
            live &= agent.live

    def _acked(self, agent: Agent) -> set[int]:
        return set() if agent.is_uneven else set(agent.acked)

    def flush(self, outcome: str) -> None:
        self.collect(0)
        assert self._collecting is not None
        finish(self._collecting)
        self._collecting = None
        if self._failed is not None:
            self.core.journal.put_back(self._failed)
        changes = self._failed = self.core.journal.take()
        if changes is not None and outcome != "lost":
            self.database.write(changes)
        if outcome == "written":
            if changes is not None:
                self.core.journal.written(changes)
            self._failed = None
            for agent, (due, live, acked) in zip(self.agents, self._seen, strict=True):
                agent.safe |= due & agent.due
                agent.journalled = live
                agent.done |= acked

    def checkpoint(self, steps: int, outcome: str) -> None:
        # as the service does: the states may have nothing that is not written
        self.flush("written")
        covered = len(self.database.rows)
        job = self.core.journal.checkpoint()
        for _ in range(steps):
            next(job, None)
        if outcome == "late":
            self.flush("written")
        finish(job)
        checkpoint = self.core.journal.take_checkpoint()
        if checkpoint is not None:
            if outcome == "lost":
                self.core.journal.put_back_checkpoint(checkpoint)
            else:
                self.database.save(checkpoint, covered)

    def crash(self) -> None:
        self.core = restarted(self.clock, self.core, self.database, **self._choices)
        self._collecting = self._failed = None
        for agent in self.agents:
            agent.workers.clear()
            agent.due = set(agent.safe)
            agent.channels = set(agent.journalled)
            # it was not sent it by this process
            agent.sent.clear()
            # what was acknowledged since it was last written may come again
            agent.acked = set(agent.done)
            agent.is_uneven = False

    def finish(self) -> None:
        """
        @raise BrokenPromiseError: after a crash an agent does not get what it must, gets it in another order, or gets
            what it must not.
        """
        self.crash()
        for agent in self.agents:
            self._get_all(agent)

    def _get_all(self, agent: Agent) -> None:
        worker = Worker(self.core, agent)
        worker.receive(_json(type="unsubscribe", channel="global"))
        worker.receive(_json(type="auth", agent_id=agent.name, durable=True))
        events: list[tuple[int, int]] = []
        while True:
            if worker.peer.replaying is not None:
                worker.peer.read()
            messages = [message for message in worker.peer.take() if message.get("event") == "task.created"]
            if not messages:
                break
            for message in messages:
                events.append((message["pos"], message["data"]))
                worker.receive(_json(type="ack", message_id=message["id"]))
        promise(events == sorted(set(events)), f"{agent.name} gets {events}: not in order, or twice")
        got = {data for _, data in events}
        dead = {self._ids[letter.event_id] for letter in self.core.application_hub.dead_letters(agent.name)}
        missing = agent.safe - got - dead
        promise(not missing, f"{agent.name} does not get {missing}")
        repeated = got & agent.done
        promise(not repeated, f"{agent.name} gets {repeated} again")

    # what clients get

    def _worker(self, which: int, number: int) -> Worker | None:
        workers = self.agents[which].workers
        return workers[number % len(workers)] if workers else None

    @staticmethod
    def _channel_of(event: int) -> str:
        return CHANNELS[event % len(CHANNELS)]

    def _look_all(self) -> None:
        for agent in self.agents:
            for worker in agent.workers:
                self._look(worker)

    def _look(self, worker: Worker) -> None:
        agent = worker.agent
        for message in worker.peer.take():
            if message.get("event") == "task.created":
                event = message["data"]
                promise(event not in agent.done, f"{agent.name} is sent {event} again")
                self._ids[message["id"]] = event
                worker.unacknowledged[message["id"]] = event
                worker.waiting.discard(event)
                agent.sent.add(event)
                # it owes an ack for it again
                agent.acked.discard(event)
        if len(agent.workers) == 1 and worker.session.behind is None:
            # the only one has been sent everything
            agent.is_uneven = False


_which, _few = st.sampled_from((0, 0, 0, 1)), st.sampled_from((0, 0, 1, 2))
_channel = st.sampled_from(CHANNELS)

operation: st.SearchStrategy[Operation] = st.one_of(
    st.tuples(st.just("come"), _which),
    st.tuples(st.just("come"), _which),
    st.tuples(st.just("subscribe"), _which, _few, _channel),
    st.tuples(st.just("subscribe"), _which, _few, _channel),
    st.tuples(st.just("unsubscribe"), _which, _few, _channel),
    st.tuples(st.just("publish"), _channel, st.integers(1, 3)),
    st.tuples(st.just("publish"), _channel, st.integers(1, 3)),
    st.tuples(st.just("publish"), _channel, st.integers(1, 3)),
    st.tuples(st.just("read"), _which, _few, st.integers(1, 4)),
    st.tuples(st.just("acknowledge"), _which, _few, st.sampled_from(("first", "last", "all"))),
    st.tuples(st.just("acknowledge"), _which, _few, st.sampled_from(("first", "last", "all"))),
    st.tuples(st.just("refuse"), _which, _few),
    st.tuples(st.just("leave"), _which, _few),
    st.tuples(st.just("advance"), st.sampled_from((1, 6, 18))),
    st.tuples(st.just("redrive"), _which),
    st.tuples(st.just("collect"), _few),
    st.tuples(st.just("flush"), st.sampled_from(("written", "lost", "unknown"))),
    st.tuples(st.just("flush"), st.just("written")),
    st.tuples(st.just("checkpoint"), _few, st.sampled_from(("written", "late", "lost"))),
    st.tuples(st.just("flush"), st.just("written")),
    st.tuples(st.just("acknowledge"), st.just(0), st.just(0), st.just("all")),
    st.tuples(st.just("crash")),
)
operations = st.lists(operation, min_size=20, max_size=60)
pending = st.sampled_from((1, 2, 4, 10_000))


def play(max_pending: int, todo: list[Operation]) -> None:
    """
    Let everything happen in order, and then a crash.
    """
    course = CrashCourse(max_pending)
    course.come(0)
    course.subscribe(0, 0, CHANNELS[0])
    for name, *arguments in todo:
        act: Callable[..., None] = getattr(course, name)
        act(*arguments)
        course.look_at_channels()
    course.finish()
