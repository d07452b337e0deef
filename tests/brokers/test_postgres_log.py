"""
The log in a real PostgreSQL: numbering, reading, and what happens to it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg2
import pytest
import pytest_twisted
from twisted.internet.threads import deferToThread
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from dcm_ws.brokers.numberer import NoLogError
from dcm_ws.brokers.postgres_log import LogState
from dcm_ws.core.entries import Page
from dcm_ws.postgres import pace, upkeep
from tests.brokers.engine import Engine, logged
from tests.integration.databases import PostgresServer

pytestmark = pytest.mark.integration

PUBLISH = "select dcm_ws.publish(%s, 'task.created', %s)"


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The tables are looked after all the time.
    """
    monkeypatch.setattr(upkeep, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(upkeep, "TURN_SECONDS", 0.0)
    monkeypatch.setattr(upkeep, "_EMPTY", -1)


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """
    What is logged of the log.
    """
    logged: list[str] = []

    def observe(event: LogEvent) -> None:
        if event.get("log_namespace") == "dcm_ws.log":
            logged.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)  # type: ignore[arg-type]
    yield logged
    globalLogPublisher.removeObserver(observe)  # type: ignore[arg-type]


@pytest_twisted.async_yield_fixture
async def engine(schema: PostgresServer) -> AsyncIterator[Engine]:
    """
    The log in it.
    """
    engine = Engine(schema.url)
    await engine.start()
    yield engine
    await engine.stop()


async def in_thread(execute: Callable[..., Any], *arguments: object) -> Any:
    """
    Run a statement that may wait for a transaction of the engine, which goes on meanwhile.
    """
    return await deferToThread(execute, *arguments)


def connected(database: PostgresServer) -> Any:
    """
    A connection that begins a transaction with its first statement.
    """
    return closing(psycopg2.connect(database.url, options="-c lock_timeout=60s"))


@pytest_twisted.ensureDeferred
async def test_what_is_committed_is_delivered(schema: PostgresServer, engine: Engine) -> None:
    """
    An event of SQL is delivered after its commit, and one of a client under the next position.
    """
    (event_id,) = (await schema.run(PUBLISH, "topics/a", '{"n": 1}'))[0]
    await engine.head_is(1)
    published = engine.publish('{"n":2}', "agents/ann", publisher="bob")
    assert published.waiting
    await engine.head_is(2)
    assert not published.waiting and published.pos == 2
    assert engine.delivered == [
        (1, event_id, "topics/a", "task.created", '{"n": 1}'),
        (2, published.id, "agents/ann", "task.created", '{"n":2}'),
    ]
    assert await logged(schema) == engine.delivered
    assert engine.counts.engine.numbered == 2


@pytest_twisted.ensureDeferred
async def test_one_step_for_each_event(schema: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Events that come one by one take one numbering step each.
    """
    monkeypatch.setattr(pace, "IDLE", 60.0)
    engine = Engine(schema.url)
    await engine.start()
    looks = engine.counts.engine.step_seconds.counts
    await engine.until(lambda: sum(looks))
    before = sum(looks)
    for number in (1, 2, 3):
        engine.publish(str(number))
        await engine.head_is(number)
    assert sum(looks) == before + 3
    await engine.stop()


@pytest_twisted.ensureDeferred
async def test_what_is_rolled_back_is_not_delivered(schema: PostgresServer, engine: Engine) -> None:
    """
    Neither a transaction that is rolled back nor a savepoint leaves anything behind.
    """
    with connected(schema) as connection, connection.cursor() as cursor:
        cursor.execute(PUBLISH, ("topics/a", "1"))
        connection.rollback()
        cursor.execute(PUBLISH, ("topics/a", "2"))
        cursor.execute("savepoint s")
        cursor.execute(PUBLISH, ("topics/a", "3"))
        cursor.execute("rollback to s")
        cursor.execute("savepoint t")
        cursor.execute(PUBLISH, ("topics/a", "4"))
        cursor.execute("release t")
        connection.commit()
    await engine.head_is(2)
    assert engine.data() == ["2", "4"]


@pytest_twisted.ensureDeferred
async def test_long_transaction_delays_nobody_else(schema: PostgresServer, engine: Engine) -> None:
    """
    What was committed while a transaction was open that had published before is delivered at once; what that one has
    published comes when it ends, in the order of the calls.
    """
    with connected(schema) as connection, connection.cursor() as cursor:
        cursor.execute(PUBLISH, ("topics/a", '"early"'))
        for number in range(3):
            await schema.run(PUBLISH, "topics/a", str(number))
            await engine.head_is(number + 1)
        cursor.execute(PUBLISH, ("topics/a", '"late"'))
        connection.commit()
    await engine.head_is(5)
    assert engine.data() == ["0", "1", "2", '"early"', '"late"']


@pytest_twisted.ensureDeferred
async def test_transaction_that_was_open_when_the_service_started(schema: PostgresServer) -> None:
    """
    A service that starts finds what was committed while none ran, and what is committed later by a transaction that
    was open then.
    """
    with connected(schema) as connection, connection.cursor() as cursor:
        cursor.execute(PUBLISH, ("topics/a", '"open"'))
        await schema.run(PUBLISH, "topics/a", '"before"')
        for _ in range(2):
            engine = Engine(schema.url)
            await engine.start()
            await schema.run(PUBLISH, "topics/a", '"during"')
            await engine.has_data('"during"')
            await engine.stop()
        connection.commit()
    engine = Engine(schema.url)
    await engine.start()
    await engine.until(lambda: '"open"' in engine.data())
    await engine.stop()
    assert [data for *_, data in await logged(schema)] == ['"before"', '"during"', '"during"', '"open"']


@pytest_twisted.ensureDeferred
async def test_large_transaction(schema: PostgresServer, engine: Engine) -> None:
    """
    A transaction of 20,000 events is read from the log in parts, and what clients publish meanwhile comes behind it.
    """
    # on a busy machine, the events before them take longer than publishers wait
    engine.patient = True
    await schema.run("select dcm_ws.publish('topics/a', 'task.created', n::text) from generate_series(1, 20000) n")
    await engine.until(lambda: engine.log.delivery.fetched >= 1)
    published = [engine.publish(f'"{n}"') for n in range(100)]
    await engine.head_is(20_100)
    assert engine.data() == [str(n) for n in range(1, 20_001)] + [f'"{n}"' for n in range(100)]
    assert [one.pos for one in published] == list(range(20_001, 20_101))


@pytest_twisted.ensureDeferred
async def test_large_events(schema: PostgresServer, engine: Engine) -> None:
    """
    Events of a megabyte arrive whole, also many at once.
    """
    engine.patient = True
    texts = [json.dumps(str(n) * 1_000_000) for n in range(10)]
    with connected(schema) as connection, connection.cursor() as cursor:
        for text in texts:
            cursor.execute(PUBLISH, ("topics/a", text))
        connection.commit()
    for text in texts:
        engine.publish(text)
    await engine.head_is(20)
    assert engine.data() == texts + texts
    page = await engine.page(0, {"topics/a": 0})
    assert page is not None and page.upto == 20


@pytest_twisted.ensureDeferred
async def test_key_is_used_once(schema: PostgresServer, engine: Engine) -> None:
    """
    Of events with the same key only the first is logged, in one step or in several; the others are told its id and
    position.
    """
    first, second = engine.publish("1", key="k"), engine.publish("2", key="k")
    await engine.answered(second)
    third = engine.publish("3", key="k")
    other = engine.publish("4", key="j")
    await engine.answered(third, other)
    assert engine.data() == ["1", "4"]
    assert (first.pos, first.duplicate) == (1, False)
    assert (second.pos, second.id, second.duplicate) == (1, first.id, True)
    assert (third.pos, third.id, third.duplicate) == (1, first.id, True)
    assert other.pos == 2


@pytest_twisted.ensureDeferred
async def test_key_is_used_again_while_nobody_numbers(schema: PostgresServer) -> None:
    """
    Of events with the same key that wait together, those are duplicates that were published within ten minutes after
    the first; a later one is another event.
    """
    keyed = """
        insert into dcm_ws.inbox (slot, event_id, channel, event, data, at, key)
        values (0, %s, 'topics/a', 'task.created', '1', %s, 'k')
    """
    for number, minute in enumerate((0, 1, 9, 15, 16)):
        await schema.run(keyed, f"msg_{number}", 60_000 * minute)
    engine = Engine(schema.url)
    await engine.start()
    await engine.has_looked()
    assert [event_id for _, event_id, *_ in engine.delivered] == ["msg_0", "msg_3"]
    await engine.stop()


@pytest_twisted.ensureDeferred
async def test_key_is_numbered_late(schema: PostgresServer, engine: Engine) -> None:
    """
    The ten minutes for which a key holds are those between two publishes, however long it takes to number them.
    """
    keyed = """
        insert into dcm_ws.inbox (slot, event_id, channel, event, data, at, key)
        values (0, %s, 'topics/a', 'task.created', '1', (extract(epoch from now()) * 1000)::bigint - %s, 'k')
    """
    await schema.run(keyed, "msg_first", 1_200_000)
    await engine.head_is(1)
    await schema.run("update dcm_ws.log set logged_at = logged_at - interval '20 minutes'")
    await schema.run(keyed, "msg_again", 900_000)
    await schema.run(keyed, "msg_later", 0)
    await engine.head_is(2)
    assert [event_id for _, event_id, *_ in engine.delivered] == ["msg_first", "msg_later"]


@pytest_twisted.ensureDeferred
async def test_key_is_used_once_over_a_restart(schema: PostgresServer) -> None:
    """
    The keys are in the log, so a service that starts knows them.
    """
    ids = []
    for _ in range(2):
        engine = Engine(schema.url)
        await engine.start()
        published = engine.publish("1", key="k")
        await engine.answered(published)
        ids.append(published.id)
        await engine.stop()
    assert ids[0] == ids[1]
    assert len(await logged(schema)) == 1


@pytest_twisted.ensureDeferred
async def test_event_that_the_database_refuses(schema: PostgresServer, engine: Engine) -> None:
    """
    An event that the database cannot store is refused, and those that came with it are logged.
    """
    await schema.run("alter table dcm_ws.log add constraint odd check (data <> '13')")
    published = [engine.publish(str(n)) for n in range(20)]
    await engine.answered(*published)
    assert [n for n, one in enumerate(published) if one.pos is None] == [13]
    assert engine.data() == [str(n) for n in range(20) if n != 13]
    await engine.is_up()


@pytest_twisted.ensureDeferred
async def test_events_that_the_database_refuses_together(schema: PostgresServer, engine: Engine) -> None:
    """
    Of events that were published together none is logged if the database cannot store one of them.
    """
    await schema.run("alter table dcm_ws.log add constraint odd check (data <> '13')")
    before = [engine.publish(str(n)) for n in range(3)]
    together = engine.publish_all("11", "12", "13", "14")
    others = engine.publish_all("21", "22")
    await engine.answered(*before, *together, *others)
    assert [one.pos for one in together] == [None] * 4
    assert [one.pos is None for one in (*before, *others)] == [False] * 5
    assert engine.data() == ["0", "1", "2", "21", "22"]
    await engine.is_up()


@pytest_twisted.ensureDeferred
async def test_publisher_waits_a_second_at_most(schema: PostgresServer, engine: Engine) -> None:
    """
    While the log cannot be written, a publisher is refused after a second, and its event is not logged later.
    """
    with connected(schema) as connection, connection.cursor() as cursor:
        cursor.execute("lock table dcm_ws.log in exclusive mode")
        began = engine._reactor.seconds()
        published = [engine.publish(str(n)) for n in range(5)]
        await engine.answered(*published)
        assert engine._reactor.seconds() - began > 0.9
        assert [one.pos for one in published] == [None] * 5
    await engine.is_up()
    later = engine.publish('"later"')
    await engine.answered(later)
    assert later.pos is not None
    assert engine.data()[-1] == '"later"'


@pytest_twisted.ensureDeferred
async def test_pages_and_single_events(schema: PostgresServer, engine: Engine) -> None:
    """
    What is not in memory any more is read in the database: the same events, in the same order, with the same frames.
    """
    for number in range(30):
        await schema.run(PUBLISH, f"topics/{number % 3}", str(number))
    await schema.run(PUBLISH, "metrics", "30")
    await schema.run(PUBLISH, "global", "31")
    await engine.head_is(32)
    near = await engine.page(0, {"topics/0": 0, "topics/1": 15, "global": 20})
    assert near is not None
    assert engine.counts.engine.reads == 0
    again = Engine(schema.url)
    await engine.stop()
    await again.start()
    far = await again.page(0, {"topics/0": 0, "topics/1": 15, "global": 20})
    assert far is not None
    assert [(entry.pos, entry.frame, entry.mirror) for entry in far.entries] == [
        (entry.pos, entry.frame, entry.mirror) for entry in near.entries
    ]
    assert (far.upto, far.lost) == (near.upto, near.lost) == (32, 0)
    assert again.log.report()["readsWaiting"] == 0
    answers: list[Page | None] = []
    for _ in range(2):
        again.log.page(0, {"topics/0": 0}, 1, answers.append)
    assert again.log.report()["readsWaiting"] == 2
    await again.until(lambda: len(answers) == 2)
    assert again.log.report()["readsWaiting"] == 0
    part = await again.page(0, {"topics/0": 0}, most=4)
    assert part is not None and [entry.pos for entry in part.entries] == [1, 4, 7, 10] and part.upto == 10
    rest = await again.page(10, {"topics/0": 0}, most=100)
    assert rest is not None and [entry.pos for entry in rest.entries] == [13, 16, 19, 22, 25, 28] and rest.upto == 32
    nothing = await again.page(28, {"topics/0": 0}, most=100)
    assert nothing is not None and nothing.entries == [] and nothing.upto == 32
    found = await again.find(5, 31, 99)
    assert found is not None and sorted(found) == [5, 31]
    assert again.counts.engine.reads == 7
    await again.stop()


@pytest_twisted.ensureDeferred
async def test_events_of_unknown_channels(schema: PostgresServer, engine: Engine) -> None:
    """
    An event whose channel fits none is one of global, live and from the log.
    """
    await schema.run(PUBLISH, "projects", "1")
    await engine.head_is(1)
    assert engine.delivered[0][2] == "global"
    await engine.stop()
    again = Engine(schema.url)
    await again.start()
    page = await again.page(0, {"global": 0, "topics/a": 0})
    await again.stop()
    assert page is not None
    assert [(entry.channel, entry.named, entry.mirrored) for entry in page.entries] == [("global", "projects", False)]


@pytest_twisted.ensureDeferred
async def test_connections_that_end(schema: PostgresServer, engine: Engine) -> None:
    """
    Whatever connections end: what was committed is delivered once and in order, and what was acknowledged is in the
    log.
    """
    stop = threading.Event()
    committed: list[int] = []

    def write() -> None:
        while not stop.is_set():
            schema.execute(PUBLISH, "topics/sql", str(len(committed)))
            committed.append(len(committed))

    writer = threading.Thread(target=write)
    writer.start()
    acknowledged = []
    for number in range(60):
        acknowledged.append((number, engine.publish(json.dumps(f"c{number}"), "topics/client")))
        if number % 12 == 5:
            schema.kill_backends("dcm-ws log")
        await engine.answered(acknowledged[-1][1])
    stop.set()
    writer.join()
    await engine.is_up()
    await engine.until(lambda: [int(row[4]) for row in engine.delivered if row[2] == "topics/sql"] == committed)
    assert await logged(schema) == engine.delivered
    assert [row[0] for row in engine.delivered] == list(range(1, len(engine.delivered) + 1))
    data = engine.data()
    for number, published in acknowledged:
        if published.pos is not None:
            assert engine.delivered[published.pos - 1][4] == json.dumps(f"c{number}")
        assert data.count(json.dumps(f"c{number}")) <= 1
    assert sum(published.pos is not None for _, published in acknowledged) > 30
    assert engine.opened == [0]


@pytest_twisted.ensureDeferred
async def test_second_service_waits(schema: PostgresServer, engine: Engine) -> None:
    """
    Only one service numbers the events of a database; another one waits, and goes on when the first has ended.
    """
    second = Engine(schema.url)
    second.reader.startService()
    second.numberer.startService()
    await second.until(lambda: second.log.state is LogState.STANDBY)
    refused = second.publish('"refused"')
    await second.answered(refused)
    assert refused.pos is None
    await schema.run(PUBLISH, "topics/a", "1")
    await engine.head_is(1)
    await engine.stop()
    await second.is_up()
    await schema.run(PUBLISH, "topics/a", "2")
    await second.until(lambda: second.data() == ["2"])
    assert second.opened == [1]
    await second.stop()
    engine.numberer.startService()


@pytest_twisted.ensureDeferred
async def test_slots_of_the_inbox_turn(schema: PostgresServer, hurried: None, engine: Engine) -> None:
    """
    The inbox is emptied again and again, also under writers and while a transaction is open that has published: that
    one only holds back its own slot.
    """
    numbers: list[str] = []
    slots: set[int] = set()
    with connected(schema) as writing, writing.cursor() as writer:
        writing.autocommit = True

        def write() -> None:
            writer.execute(PUBLISH, ("topics/a", str(len(numbers))))
            numbers.append(str(len(numbers)))
            writer.execute("select slot from dcm_ws.meta")
            slots.add(writer.fetchone()[0])

        def inbox() -> set[str]:
            writer.execute("select data from dcm_ws.inbox")
            return {data for (data,) in writer.fetchall()}

        with connected(schema) as connection, connection.cursor() as cursor:
            await in_thread(cursor.execute, PUBLISH, ("topics/a", '"open"'))
            # to look into the inbox would lock all slots of it
            cursor.execute(
                "select right(relation::regclass::text, 1)::int from pg_locks where pid = pg_backend_pid()"
                " and mode = 'RowExclusiveLock' and relation::regclass::text ~ '^dcm_ws[.]inbox_[012]$'"
            )
            (held,) = cursor.fetchone()
            # the next slot is the one that the open transaction has written
            while slots != {(held + 2) % 3} or not engine.log.report()["heldSince"]:
                slots.clear()
                await in_thread(write)
            for _ in range(20):
                await in_thread(write)
            assert slots == {(held + 2) % 3}
            await engine.head_is(len(numbers))
            assert engine.data() == numbers
            connection.commit()
        await engine.has_data('"open"')
        before = {'"open"', *numbers}
        while slots != {0, 1, 2} or before & await in_thread(inbox):
            await in_thread(write)
        await engine.head_is(len(numbers) + 1)
    assert [row for row in engine.data() if row != '"open"'] == numbers
    assert await logged(schema) == engine.delivered


@pytest_twisted.ensureDeferred
async def test_retention(schema: PostgresServer, hurried: None) -> None:
    """
    Old events are dropped with their partition; a reader that would get them is told of a gap; the newest partition
    stays, and positions go on.
    """
    engine = Engine(schema.url, keep=160.0)
    await engine.start()
    for number in range(40):
        await engine.answered(engine.publish(str(number)))
        await schema.run("update dcm_ws.log set logged_at = logged_at - interval '6 s'")
        await engine.has_looked()
    await engine.until(lambda: engine.log.first > 10)
    first = engine.log.first
    # the youngest event that was dropped is older than 160 s
    assert 10 < first <= 18
    kept = [row[0] for row in await logged(schema)]
    assert kept == list(range(first, 41))
    assert 5 <= engine.log.report()["partitions"] <= 20
    await engine.stop()
    again = Engine(schema.url, keep=160.0)
    await again.start()
    assert again.log.first == first
    assert not again.log.complete(0, {"topics/a": 0})
    assert again.log.complete(first - 1, {"topics/a": 0})
    page = await again.page(0, {"topics/a": 0})
    assert page is not None
    assert page.lost == first - 1
    assert [entry.pos for entry in page.entries] == kept
    await schema.run("update dcm_ws.log set logged_at = logged_at - interval '1 day'")
    await again.until(lambda: again.log.first == 41)
    assert len(again.log) == 0
    published = again.publish('"next"')
    await again.answered(published)
    assert published.pos == 41
    await again.stop()


@pytest_twisted.ensureDeferred
async def test_inbox_that_cannot_be_emptied_is_reported(schema: PostgresServer, hurried: None, engine: Engine) -> None:
    """
    An open transaction that has published keeps its slot of the inbox from being emptied; the report says since when.
    """
    with connected(schema) as connection, connection.cursor() as cursor:
        cursor.execute(PUBLISH, ("topics/a", "1"))
        began = engine.wall_ms()
        await engine.until(lambda: engine.log.report()["heldSince"])
        held = engine.log.report()["heldSince"]
        assert held is not None and began - 1000 < held <= engine.wall_ms()
        await engine.has_looked()
        assert engine.log.report()["heldSince"] == held
        connection.commit()
    await engine.until(lambda: engine.log.report()["heldSince"] is None)


@pytest_twisted.ensureDeferred
async def test_partition_that_cannot_be_dropped_is_reported(schema: PostgresServer, hurried: None) -> None:
    """
    What reads the log for long, such as a backup, keeps its oldest partitions; the report says since when.
    """
    engine = Engine(schema.url, keep=160.0)
    await engine.start()
    for number in range(3):
        await engine.answered(engine.publish(str(number)))
        await schema.run("update dcm_ws.log set logged_at = logged_at - interval '20 s'")
        await engine.has_looked()
    await engine.until(lambda: engine.log.report()["partitions"] > 1)
    with connected(schema) as connection, connection.cursor() as cursor:
        cursor.execute("lock table dcm_ws.log_1 in access share mode")
        await schema.run("update dcm_ws.log set logged_at = logged_at - interval '1 day'")
        await engine.until(lambda: engine.log.report()["heldSince"])
        assert engine.log.first == 1
    await engine.until(lambda: engine.log.report()["heldSince"] is None and engine.log.first > 1)
    await engine.stop()


@pytest_twisted.ensureDeferred
async def test_log_is_bounded_in_bytes(schema: PostgresServer, hurried: None) -> None:
    """
    Beyond its size, the log loses its oldest events before their time.
    """
    most = 8 << 20
    engine = Engine(schema.url, max_bytes=most)
    await engine.start()
    # random text, which the database cannot make smaller
    for step in range(60):
        await engine.until(lambda step=step: engine.log.head == 100 * step)  # type: ignore[misc]
        await schema.run(
            "select dcm_ws.publish('topics/a', 'task.created', to_json((select string_agg(md5(random()::text), '')"
            " from generate_series(1, 100) where n > 0))) from generate_series(1, 100) n",
        )
    await engine.head_is(6000)
    await engine.has_looked()
    assert engine.log.bytes <= most + (most >> 2)
    assert 1000 < engine.log.first < 6000
    await engine.stop()


@pytest_twisted.ensureDeferred
async def test_database_without_the_schema(database: PostgresServer) -> None:
    """
    Then the log is in memory, and says why; what was published before that was known is logged there.
    """
    engine = Engine(database.url)
    published = engine.publish("1")
    await engine.start()
    assert published.pos == 1
    assert engine.publish("2").pos == 2
    assert engine.data() == ["1", "2"]
    report = engine.log.report()
    assert (report["engine"], report["state"]) == ("memory", "up")
    assert "dcm_ws" in report["reason"]
    await engine.stop()


@pytest_twisted.ensureDeferred
async def test_schema_is_required(database: PostgresServer) -> None:
    """
    C{--log postgres} does not start without the schema.
    """
    engine = Engine(database.url, required=True)
    with pytest.raises(NoLogError, match="dcm_ws"):
        await engine.start()
    await engine.stop()


@pytest_twisted.ensureDeferred
async def test_another_server_is_another_epoch(schema: PostgresServer) -> None:
    """
    On a server that is not the one on which the log was written, the log gets another epoch; what waited in the inbox
    is delivered once, and what had a position already is not delivered again.
    """
    engine = Engine(schema.url)
    await engine.start()
    await schema.run(PUBLISH, "topics/a", '"numbered"')
    await engine.head_is(1)
    epoch = engine.log.epoch
    await engine.stop()
    await schema.run(PUBLISH, "topics/a", '"waits"')
    # what a dump of another server has: its identity, and numbers of its transactions
    await schema.run("update dcm_ws.meta set system_id = '1'; update dcm_ws.inbox set xid = '9000000000'")
    await schema.run("update dcm_ws.log set snapshot = '9000000001:9000000001:'")
    engine = Engine(schema.url)
    await engine.start()
    assert engine.log.epoch != epoch
    await engine.until(lambda: engine.data() == ['"waits"'])
    await schema.run(PUBLISH, "topics/a", '"new"')
    await engine.until(lambda: engine.data() == ['"waits"', '"new"'])
    epoch = engine.log.epoch
    await engine.stop()
    engine = Engine(schema.url)
    await engine.start()
    assert engine.log.epoch == epoch
    await engine.stop()
    assert [row[4] for row in await logged(schema)] == ['"numbered"', '"waits"', '"new"']


@pytest_twisted.ensureDeferred
async def test_lost_tail_is_another_epoch(schema: PostgresServer, engine: Engine) -> None:
    """
    A log that does not have what was delivered any more, or something else in its place, is another one: everything
    is told so.
    """
    for number in range(3):
        await schema.run(PUBLISH, "topics/a", str(number))
    await engine.head_is(3)
    await schema.run("delete from dcm_ws.log where pos = 3")
    await schema.run("update dcm_ws.log set snapshot = pg_current_snapshot() where pos = 2")
    schema.kill_backends("dcm-ws log")
    await engine.until(lambda: len(engine.opened) == 2)
    assert engine.opened == [0, 2]
    assert engine.log.epoch == "epoch1" == (await schema.run("select epoch from dcm_ws.meta"))[0][0]
    await schema.run(PUBLISH, "topics/a", '"new"')
    await engine.until(lambda: engine.delivered[-1][0] == 3 and engine.data()[-1] == '"new"')


@pytest_twisted.ensureDeferred
async def test_new_timeline(schema: PostgresServer, engine: Engine) -> None:
    """
    After a failover, a service that finds its last event keeps the epoch; one that starts then cannot know whether
    something is missing.
    """
    await schema.run(PUBLISH, "topics/a", "1")
    await engine.head_is(1)
    epoch = engine.log.epoch
    await schema.run("update dcm_ws.meta set timeline = timeline + 1")
    schema.kill_backends("dcm-ws log")
    await engine.until(lambda: engine.log.state is not LogState.UP)
    await engine.is_up()
    assert engine.log.epoch == epoch
    assert engine.opened == [0]
    await engine.stop()
    await schema.run("update dcm_ws.meta set timeline = timeline + 1")
    again = Engine(schema.url)
    await again.start()
    assert again.log.epoch != epoch
    await again.stop()


@pytest_twisted.ensureDeferred
async def test_epoch_by_hand(schema: PostgresServer, hurried: None, engine: Engine, lines: list[str]) -> None:
    """
    An operator can give the log another epoch, after a restore that nothing shows.
    """
    epoch = engine.log.epoch
    lines.clear()
    await schema.run("select dcm_ws.new_epoch()")
    await engine.until(lambda: engine.log.epoch != epoch)
    await engine.is_up()
    assert engine.opened == [0, 0]
    assert await schema.run("select epoch from dcm_ws.meta") == [(engine.log.epoch,)]
    assert lines == [
        f"the log was given the epoch {engine.log.epoch}: it is opened again",
        "the log is another one than before: clients are told to load their state again",
        f"log: epoch {engine.log.epoch}, position 0",
    ]


@pytest_twisted.ensureDeferred
async def test_another_leader_meanwhile(schema: PostgresServer, engine: Engine, lines: list[str]) -> None:
    """
    If another service was the leader meanwhile, what agents are owed is read again.  The log is the same one.
    """
    await schema.run(PUBLISH, "topics/a", "1")
    await engine.head_is(1)
    epoch = engine.log.epoch
    lines.clear()
    engine.store.current = False
    schema.kill_backends("dcm-ws log")
    await engine.until(lambda: len(engine.opened) == 2)
    assert engine.log.epoch == epoch
    await engine.until(lambda: len(lines) == 3)
    assert lines[1] == (
        "another service has been the leader meanwhile: what agents are owed is read again,"
        " and clients are told to load their state again"
    )


@pytest_twisted.ensureDeferred
async def test_gate(schema: PostgresServer, engine: Engine) -> None:
    """
    While there are many events, transactions do not notify; afterwards they do again.
    """

    def is_closed() -> bool:
        return bool(
            schema.execute("select 1 from pg_locks where locktype = 'advisory' and classid = 1684237687 and objid = 2")
        )

    assert not is_closed()
    published = 0
    while published < 10_000:
        published += 250
        await schema.run("select dcm_ws.publish('topics/a', 'task.created', '0') from generate_series(1, 250)")
        await engine.head_is(published)
        # on a busy machine it may be open again by now
        if is_closed():
            break
    else:
        pytest.fail(f"it was never closed in {published} events")
    await engine.until(lambda: not is_closed())


@pytest_twisted.ensureDeferred
async def test_limits_of_the_service_hold_in_sql(schema: PostgresServer, engine: Engine) -> None:
    """
    What clients may not publish, SQL may not either.
    """
    with pytest.raises(psycopg2.Error, match="50"):
        await schema.run(PUBLISH, "topics/a", "[" * 51 + "]" * 51)
    await schema.run(PUBLISH, "topics/a", "[" * 50 + "]" * 50)
    await engine.head_is(1)
