"""
What operators see of one event in the database.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.task import Clock

from dcm_ws.brokers import stored_events
from dcm_ws.brokers.stored_events import StoredEvents
from dcm_ws.core.event_records import EventRecord
from dcm_ws.postgres.connection import Place
from dcm_ws.protocol.errors import ErrorCode, ProtocolError
from tests.brokers.engine import Engine
from tests.core.test_ledger import agent, publish
from tests.fakes import make_core
from tests.integration.databases import PostgresServer

pytestmark = pytest.mark.integration


class Rig:
    """
    The events of a database with a log.  The ledger of C{core} is what the process has not written yet.
    """

    def __init__(self, engine: Engine, clock: Clock, url: str) -> None:
        from twisted.internet import reactor

        self.core = make_core(clock)
        self.log = engine.log
        self.events = StoredEvents(reactor, lambda: succeed(Place(url)), engine.log, self.core.events, self.core.ledger)
        self.events.startService()

    def event(self, event_id: str) -> Deferred[EventRecord | None]:
        found: Any = self.events.event(event_id)
        assert isinstance(found, Deferred)
        return found


@pytest_twisted.async_yield_fixture
async def rig(schema: PostgresServer, clock: Clock) -> AsyncIterator[Rig]:
    engine = Engine(schema.url)
    await engine.start()
    made = Rig(engine, clock, schema.url)
    yield made
    made.events.stopService()
    await engine.stop()


def log_event(schema: PostgresServer, pos: int, sender: str | None = None) -> None:
    schema.execute(
        "insert into dcm_ws.log (pos, event_id, channel, event, data, at, sender, mirrored)"
        " values (%s, %s, 'topics/t', 'task.created', '{}', 7, %s, false)",
        *(pos, f"msg_{pos}", sender),
    )


PAGE = '{"clock":1000,"names":{"1":"%s"},"audiences":[[1]],"sent":[%d,5,0]}'


@pytest_twisted.ensureDeferred
async def test_pages_of_all_nodes_and_of_this_process(rig: Rig, schema: PostgresServer) -> None:
    """
    What other nodes have written, and what this one has noted and not written yet, is put together.
    """
    log_event(schema, 1, ',"from":"boss"')
    for name in ("bob", "cy"):
        await schema.run("insert into dcm_ws.ledger (first, upto, entries) values (1, 1, %s)", PAGE % (name, 1))
    await schema.run("insert into dcm_ws.ledger (first, upto, entries) values (2, 2, %s)", PAGE % ("dan", 2))
    agent(rig.core)
    publish(rig.core)
    record = await rig.event("msg_1")
    assert record is not None
    assert (record.pos, record.sender, record.timestamp) == (1, "boss", 7)
    assert [fate.agent for fate in record.fates] == ["ann", "bob", "cy"]
    assert await rig.event("msg_2") is None


@pytest_twisted.ensureDeferred
async def test_questions_wait_for_each_other(rig: Rig, schema: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    On one connection, which is closed behind the last one; and only so many.
    """
    log_event(schema, 1)
    monkeypatch.setattr(stored_events, "WAITING_MAX", 3)
    asked = [rig.event("msg_1") for _ in range(4)]
    with pytest.raises(ProtocolError) as refused:
        rig.events.event("msg_1")
    assert refused.value.code is ErrorCode.NOT_AVAILABLE
    assert [record is not None for record in await gatherResults(asked)] == [True] * 4
    open_now = "select count(*) from pg_stat_activity where application_name = 'dcm-ws ledger'"
    for _ in range(100):
        if await schema.run(open_now) == [(0,)]:
            break
    assert await schema.run(open_now) == [(0,)]
    assert await rig.event("msg_1") is not None


@pytest_twisted.ensureDeferred
async def test_database_that_cannot_be_asked(rig: Rig, schema: PostgresServer) -> None:
    """
    The answer says so, and the next question is asked again.
    """
    log_event(schema, 1)
    await schema.run("alter table dcm_ws.ledger rename to away")
    with pytest.raises(ProtocolError) as refused:
        await rig.event("msg_1")
    assert refused.value.code is ErrorCode.NOT_AVAILABLE
    await schema.run("alter table dcm_ws.away rename to ledger")
    assert await rig.event("msg_1") is not None


@pytest_twisted.ensureDeferred
async def test_log_in_memory(rig: Rig) -> None:
    """
    If the database has no log, memory has the events.
    """
    agent(rig.core)
    event_id = publish(rig.core)
    rig.log.in_memory = True
    record: Any = rig.events.event(event_id)
    assert [fate.agent for fate in record.fates] == ["ann"]
