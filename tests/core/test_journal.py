"""
What the database has to learn of agents, and what the service makes of it after a crash.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from dcm_ws.core.agent_states import AgentState, AgentStates
from dcm_ws.core.assembly import Core
from dcm_ws.core.dead_letters import Listed
from dcm_ws.core.journal import Changes
from dcm_ws.core.log import MemoryLog
from tests.core.clients import TASK, joined, texts
from tests.core.living import finish
from tests.fakes import Client, make_core


class Database:
    """
    What the tables have, as the service writes and reads it.
    """

    def __init__(self) -> None:
        self.agents: dict[str, bytes] = {}
        self.rows: list[dict[str, bytes]] = []
        self.dead: dict[tuple[str, str], Listed] = {}

    def write(self, changes: Changes) -> None:
        self.rows.append(dict(changes.agents))
        self.dead.update({(one.agent, one.event_id): one for one in changes.letters.kept})
        for key in changes.letters.dropped:
            self.dead.pop(key, None)

    def flush(self, core: Core) -> dict[str, bytes]:
        """
        Write what has changed; return the changes of agents.
        """
        finish(core.journal.collect())
        changes = core.journal.take()
        if changes is None:
            return {}
        self.write(changes)
        return dict(changes.agents)

    def checkpoint(self, core: Core) -> bool:
        """
        Write the states; return if they were complete.
        """
        finish(core.journal.checkpoint())
        checkpoint = core.journal.take_checkpoint()
        if checkpoint is None:
            return True
        self.agents.update(checkpoint.agents)
        for agent in checkpoint.gone:
            self.agents.pop(agent, None)
        if checkpoint.complete:
            self.rows.clear()
        return checkpoint.complete

    def states(self) -> dict[str, AgentState]:
        states = AgentStates()
        for agent, state in self.agents.items():
            states.add_state(agent, state)
        for row in self.rows:
            states.add_changes(
                b"{" + b",".join(b'"%b":%b' % (agent.encode(), raw) for agent, raw in row.items()) + b"}"
            )
        assert states.errors == []
        return states.states

    def load(self, core: Core) -> None:
        letters = sorted(self.dead.values(), key=lambda letter: letter.died_at)
        finish(core.loading.load(self.states(), letters))


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def core(clock: Clock, database: Database) -> Core:
    """
    A core with a journal.
    """
    core = make_core(clock)
    database.load(core)
    return core


def crashed(clock: Clock, core: Core, database: Database, **choices: Any) -> Core:
    """
    Another core with the same log, that has nothing else but what is in the database.
    """
    log = core.log
    assert isinstance(log, MemoryLog)

    class SameLog(MemoryLog):
        def __new__(cls, *args: Any, **limits: Any) -> Any:
            return log

    new = make_core(clock, log=SameLog, **choices)
    database.load(new)
    return new


def publish(core: Core, *data: Any, channel: str = "topics/t", event: str = "task.created") -> None:
    publisher = joined(core, quiet=True)
    for one in data:
        publisher.say(**(TASK | {"channel": channel, "event": event}), data=one)
    publisher.leave()


def acknowledge(client: Client, *messages: dict[str, Any]) -> None:
    for message in messages:
        client.say(type="ack", message_id=message["id"])


def got(client: Client) -> list[Any]:
    return [data for _, data in texts(client.peer.take())]


def worker(core: Core, *channels: str, agent: str = "ann") -> Client:
    client = joined(core, quiet=True)
    client.auth(agent, durable=True)
    for channel in channels or ("topics/t",):
        client.say(type="subscribe", channel=channel)
    client.peer.take()
    return client


def test_crash(clock: Clock, core: Core, database: Database) -> None:
    """
    An agent gets what it has not acknowledged, and what came after the last flush, in order.
    """
    ann = worker(core)
    publish(core, 0, 1, 2)
    first, *_ = ann.peer.take()
    acknowledge(ann, first)
    database.flush(core)
    publish(core, 3)

    new = crashed(clock, core, database)
    back = joined(new, quiet=True)
    answer, *replayed = back.auth("ann", id=1)
    assert answer["subscriptions"] == ["agents/ann", "topics/t"]
    assert texts(replayed) == [("topics/t", data) for data in (1, 2, 3)]


def test_how_many_agents_are_to_be_written(core: Core) -> None:
    """
    What was found and is not written yet is counted, for those who watch the service.
    """
    worker(core, agent="ann")
    worker(core, agent="ben")
    finish(core.journal.collect())
    assert core.journal.pending == 2
    changes = core.journal.take()
    assert changes is not None and core.journal.pending == 0
    core.journal.put_back(changes)
    assert core.journal.pending == 2
