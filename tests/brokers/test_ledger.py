"""
The ledger in the database, as the service writes it and looks after it.
"""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet.task import Clock

from dcm_ws.brokers import flushes
from dcm_ws.core.fates import Fate, fates
from dcm_ws.core.ledger_pages import entries_of
from tests.brokers.engine import Engine
from tests.brokers.test_agent_store import Start, acknowledge, after_a_failure, publish, restarted, worker
from tests.brokers.test_agent_store import start as start
from tests.brokers.test_postgres_log import hurried as hurried
from tests.core.living import live
from tests.integration.databases import PostgresServer

pytestmark = pytest.mark.integration


def stored(server: PostgresServer, pos: int) -> dict[str, Fate]:
    """
    What the database has of an event.
    """
    pages = server.execute("select entries from dcm_ws.ledger where first <= %s and upto >= %s", pos, pos)
    return {fate.agent: fate for fate in fates(entries_of((page.encode() for (page,) in pages), pos))}


def history(server: PostgresServer, pos: int) -> list[str]:
    return [entry.what for entry in stored(server, pos)["ann"].history]


@pytest_twisted.ensureDeferred
async def test_what_happens_to_an_event_is_written_with_the_journal(start: Start, clock: Clock) -> None:
    """
    Over retries, a restart, its death and its redrive.
    """
    node = await start()
    worker(node)
    publish(node, 0)
    live(node.core, clock, 6)
    await node.flush()
    assert history(node.server, 1) == ["sent", "sent"]
    assert node.core.ledger.bytes == 0
    node = await restarted(start, node)
    clock.advance(1)
    worker(node)
    live(node.core, clock, 16)
    await node.flush()
    assert history(node.server, 1) == ["sent"] * 5 + ["dead"]
    node.core.application_hub.redrive("ann")
    node = await restarted(start, node)
    clock.advance(1)
    await node.flush()
    node.core.application_hub.redrive("ann")
    clock.advance(1)
    ann = worker(node)
    clock.advance(1)
    ann.session.heard_at = clock.seconds()
    ann.say(type="ack", pos=1)
    await node.flush()
    assert history(node.server, 1) == ["sent"] * 5 + ["dead", "redriven", "sent", "acknowledged"]
    fate = stored(node.server, 1)["ann"]
    assert (fate.state, fate.sends, fate.reason) == ("acknowledged", 6, "attempts")


@pytest_twisted.ensureDeferred
async def test_what_could_not_be_written_is_written_later(start: Start) -> None:
    """
    The database was away.
    """
    node = await after_a_failure(start)
    node.store.hurry()
    await node.flush()
    assert history(node.server, 1) == ["sent", "acknowledged"]
    assert history(node.server, 2) == ["sent"]


@pytest_twisted.ensureDeferred
async def test_last_flush_writes_the_ledger(start: Start) -> None:
    """
    A service that stops loses nothing of it.
    """
    node = await start()
    ann = worker(node)
    publish(node, 0)
    acknowledge(ann, *ann.peer.take())
    await node.store.stopService()
    assert history(node.server, 1) == ["sent", "acknowledged"]


@pytest_twisted.ensureDeferred
async def test_much_is_written_in_parts(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Each of a limited size.
    """
    node = await start()
    worker(node)
    monkeypatch.setattr(flushes, "LEDGER_BYTES", 1)
    for number in range(5):
        publish(node, number)
        node.core.ledger.seal()
    await node.flush()
    assert node.core.ledger.bytes == 0
    assert await node.server.run("select count(*), count(distinct at) from dcm_ws.ledger") == [(5, 5)]


@pytest_twisted.ensureDeferred
async def test_ledger_is_kept_as_long_as_the_log(schema: PostgresServer, hurried: None) -> None:
    """
    It is dropped with the partitions of the log, and not before.
    """
    engine = Engine(schema.url, keep=160.0)
    await engine.start()
    for number in range(1, 41):
        await engine.answered(engine.publish(str(number)))
        await schema.run(f"insert into dcm_ws.ledger (first, upto, entries) values (1, {number}, '')")
        await schema.run("update dcm_ws.log set logged_at = logged_at - interval '6 s'")
        await engine.has_looked()
    await engine.until(lambda: engine.log.first > 10)
    await engine.has_looked()
    await engine.has_looked()
    kept = [pos for (pos,) in await schema.run("select upto from dcm_ws.ledger order by 1")]
    assert set(range(engine.log.first, 41)) <= set(kept)
    assert 1 < kept[0] <= engine.log.first
    parts = (await schema.run("select count(*) from pg_inherits where inhparent = 'dcm_ws.ledger'::regclass"))[0][0]
    assert 5 <= parts <= 20
    await schema.run("update dcm_ws.log set logged_at = logged_at - interval '1 day'")
    await engine.until(lambda: engine.log.first == 41)
    await engine.has_looked()
    await engine.has_looked()
    assert [pos for (pos,) in await schema.run("select upto from dcm_ws.ledger where upto < 38")] == []
    assert engine.counts.limits.ledger_max_bytes.value == 0
    await engine.stop()


@pytest_twisted.ensureDeferred
async def test_ledger_that_is_too_large_loses_its_oldest_part(schema: PostgresServer, hurried: None) -> None:
    """
    The log stays, and what still comes for its events has a place.
    """
    engine = Engine(schema.url, ledger_bytes=2 << 20)
    await engine.start()
    large = "select string_agg(md5(n::text), '') from generate_series(1, 5000) n"
    for number in range(1, 31):
        await engine.answered(engine.publish(str(number)))
        sql = f"insert into dcm_ws.ledger (first, upto, entries) values ({number}, {number}, ({large}))"
        await schema.run(sql)
        await engine.has_looked()
    await engine.has_looked()
    size = "select sum(pg_total_relation_size(relid)) from pg_partition_tree('dcm_ws.ledger')"
    assert (await schema.run(size))[0][0] < 3 << 20
    kept = [pos for (pos,) in await schema.run("select upto from dcm_ws.ledger order by 1")]
    assert kept[-1] == 30 and 1 not in kept
    assert engine.counts.limits.ledger_max_bytes.value > 0
    assert engine.log.first == 1
    await schema.run("insert into dcm_ws.ledger (first, upto, entries) values (1, 1, '')")
    await engine.stop()
