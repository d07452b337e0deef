"""
What agents are owed, written to a real PostgreSQL and read from it, and who may write.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import closing
from typing import Any

import psycopg2
import pytest
import pytest_twisted
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import deferLater

from dcm_ws.postgres import agent_rows
from dcm_ws.postgres.agent_rows import Lease, LetterKey, NotLeadingError, Request, StoredLetter
from dcm_ws.postgres.connection import DatabaseConnection, Place, connect
from tests.integration.databases import PostgresServer

pytestmark = pytest.mark.integration


async def connected(server: PostgresServer) -> DatabaseConnection:
    from twisted.internet import reactor

    connection = DatabaseConnection(reactor)
    await connect(connection, Place(server.url), "dcm-ws test")
    return connection


@pytest_twisted.async_yield_fixture
async def connection(tables: PostgresServer) -> AsyncIterator[DatabaseConnection]:
    made = await connected(tables)
    yield made
    made.close()


def letter(agent: str, pos: int, **fields: Any) -> StoredLetter:
    values: dict[str, Any] = {
        "agent": agent,
        "event_id": f"msg_{pos}",
        "pos": pos,
        "channel": "topics/a",
        "event": "task.created",
        "data": '{"text":"ü \\u0000 \\\\ \' %s"}',
        "at": 1_795_000_000_000,
        "sender": ',"from":"b"',
        "deliveries": 3,
        "reason": "attempts",
        "died_at": 1_795_000_060_000,
        "redriven_at": None,
    }
    return StoredLetter(**values | fields)


async def stored(connection: DatabaseConnection) -> list[StoredLetter]:
    return [one async for page in agent_rows.letters(connection) for one in page]


async def journal(connection: DatabaseConnection) -> list[tuple[int, Any]]:
    return [(seq, json.loads(changes)) async for page in agent_rows.journal(connection) for seq, changes in page]


async def states(connection: DatabaseConnection) -> dict[str, Any]:
    return {agent: json.loads(state) async for page in agent_rows.states(connection) for agent, state, _ in page}


@pytest_twisted.ensureDeferred
async def test_what_is_written_is_read(connection: DatabaseConnection) -> None:
    lease = await agent_rows.claim(connection)
    first = await agent_rows.write(connection, lease, '{"a":{"sent":5}}', [letter("a", 1), letter("b", 1)])
    assert await agent_rows.write(connection, lease, None, [letter("a", 2)]) is None
    second = await agent_rows.write(connection, lease, '{"a":{"sent":6}}', dropped=[LetterKey("b", "msg_1")])
    assert await journal(connection) == [(first, {"a": {"sent": 5}}), (second, {"a": {"sent": 6}})]
    assert await stored(connection) == [letter("a", 1), letter("a", 2)]


@pytest_twisted.ensureDeferred
async def test_a_letter_that_changes(connection: DatabaseConnection, tables: PostgresServer) -> None:
    """
    A letter that is redriven, or dies again, replaces what is stored; what an operator has asked for stays until it is
    done.
    """
    lease = await agent_rows.claim(connection)
    await agent_rows.write(connection, lease, None, [letter("a", 1), letter("a", 2)])
    await tables.run("update dcm_ws.dead set request = case pos when 1 then 'redrive' else 'purge' end")
    wanted = [Request("a", "msg_1", "redrive"), Request("a", "msg_2", "purge")]
    assert await agent_rows.requests(connection, 10) == wanted
    assert await agent_rows.requests(connection, 1) == wanted[:1]
    again = [letter("a", pos, deliveries=1, reason="poison", died_at=7, redriven_at=8) for pos in (1, 2)]
    await agent_rows.write(connection, lease, None, again)
    assert await stored(connection) == again
    assert await agent_rows.requests(connection, 10) == wanted
    await agent_rows.redriven(connection, lease, [LetterKey("a", "msg_1"), LetterKey("a", "msg_2")])
    assert await agent_rows.requests(connection, 10) == wanted[1:]


@pytest_twisted.ensureDeferred
async def test_checkpoints(connection: DatabaseConnection) -> None:
    """
    A checkpoint replaces states, forgets agents, and deletes what it covers of the journal.
    """
    lease = await agent_rows.claim(connection)
    numbers = [await agent_rows.write(connection, lease, json.dumps({"a": {"sent": n}})) for n in range(3)]
    assert numbers[1] is not None
    both = '{"a":{"sent":1},"b":{"sent":7}}'
    await agent_rows.checkpoint(connection, lease, both, [], numbers[1])
    assert await states(connection) == {"a": {"sent": 1}, "b": {"sent": 7}}
    assert await journal(connection) == [(numbers[2], {"a": {"sent": 2}})]
    await agent_rows.checkpoint(connection, lease, '{"a":{"sent":2}}', ["b", "c"], 0)
    assert await states(connection) == {"a": {"sent": 2}}
    assert len(await journal(connection)) == 1


@pytest_twisted.ensureDeferred
async def test_pages(connection: DatabaseConnection, tables: PostgresServer) -> None:
    """
    A page has a limited number of rows and of bytes, and all pages together have each row once, in order.
    """
    await tables.run(
        "insert into dcm_ws.agent (agent, state) select 'agent-' || n, '{}' from generate_series(1, %s) n",
        agent_rows.PAGE_ROWS * 2 + 1,
    )
    pages = [page async for page in agent_rows.states(connection)]
    assert [len(page) for page in pages] == [agent_rows.PAGE_ROWS, agent_rows.PAGE_ROWS, 1]
    agents = [agent for page in pages for agent, *_ in page]
    assert len(set(agents)) == len(agents)
    # each row takes more than half a page
    await tables.run(
        "insert into dcm_ws.ack (changes) select jsonb_build_object(n::text, repeat('x', %s))"
        " from generate_series(1, 5) n",
        agent_rows.PAGE_BYTES // 2 + 1,
    )
    numbers = [[seq for seq, _ in page] async for page in agent_rows.journal(connection)]
    assert numbers == [[1, 2], [3, 4], [5]]
    await tables.run(
        "insert into dcm_ws.dead (agent, event_id, pos, channel, event, data, at, deliveries, reason, died_at)"
        " select 'a', n::text, n, 'x', 'x', repeat('x', %s), 1, 1, 'attempts', 1 from generate_series(1, 2) n",
        agent_rows.PAGE_BYTES + 1,
    )
    assert [len(page) async for page in agent_rows.letters(connection)] == [1, 1]


def counted(server: PostgresServer) -> list[Any]:
    return server.execute(
        "select (select count(*) from dcm_ws.ack), (select count(*) from dcm_ws.dead),"
        " (select count(*) from dcm_ws.dead where request is null), (select count(*) from dcm_ws.agent)"
    )


async def write_all(connection: DatabaseConnection, lease: Lease) -> list[bool]:
    """
    Write in every way; returns whether each was refused.
    """
    refused = []
    for attempt in (
        agent_rows.write(connection, lease, '{"a":{"sent":1}}', [letter("a", 5)], [LetterKey("a", "msg_1")]),
        agent_rows.checkpoint(connection, lease, '{"a":{}}', ["b"], 1),
    ):
        try:
            await attempt
            refused.append(False)
        except NotLeadingError:
            refused.append(True)
    await agent_rows.redriven(connection, lease, [LetterKey("a", "msg_2")])
    return refused


@pytest_twisted.ensureDeferred
async def test_a_former_leader_writes_nothing(connection: DatabaseConnection, tables: PostgresServer) -> None:
    """
    Neither a process that another one has replaced, nor one that knows another log, changes anything.
    """
    first = await agent_rows.claim(connection)
    await agent_rows.write(connection, first, '{"a":{"sent":0}}', [letter("a", 1), letter("a", 2)])
    await agent_rows.checkpoint(connection, first, '{"b":{}}', [], 0)
    await tables.run("update dcm_ws.dead set request = 'redrive' where pos = 2")
    second = await agent_rows.claim(connection)
    assert second.leader > first.leader and second.epoch == first.epoch
    before = counted(tables)
    assert await write_all(connection, first) == [True, True]
    assert await write_all(connection, second._replace(epoch="zzzzzzzz")) == [True, True]
    assert counted(tables) == before
    assert await write_all(connection, second) == [False, False]
    assert counted(tables) == [(1, 2, 2, 1)]


def waiting(server: PostgresServer) -> int:
    """
    How many connections wait for a lock.
    """
    count: int = server.execute("select count(*) from pg_stat_activity where wait_event_type = 'Lock'")[0][0]
    return count


async def until_it_waits(server: PostgresServer) -> None:
    """
    Until a connection waits for a lock.
    """
    from twisted.internet import reactor

    while not await server.run("select 1 from pg_stat_activity where wait_event_type = 'Lock'"):
        await deferLater(reactor, 0.01)


@pytest_twisted.ensureDeferred
async def test_a_new_leader_waits_for_what_is_written_now(
    connection: DatabaseConnection, tables: PostgresServer
) -> None:
    """
    What a former leader is just writing is there when the new one reads.
    """
    first = await agent_rows.claim(connection)
    with closing(psycopg2.connect(tables.url)) as slow:
        parameters = {**first._asdict(), "changes": '{"a":{"sent":1}}', "letters": "[]", "dropped": "[]"}
        slow.cursor().execute(agent_rows._WRITE, parameters)
        claimed = ensureDeferred(agent_rows.claim(connection))
        await until_it_waits(tables)
        assert not claimed.called
        slow.commit()
    await claimed
    assert await journal(connection) == [(1, {"a": {"sent": 1}})]


@pytest_twisted.ensureDeferred
async def test_what_is_written_while_a_new_leader_comes_is_refused(
    connection: DatabaseConnection, tables: PostgresServer
) -> None:
    first = await agent_rows.claim(connection)
    with closing(psycopg2.connect(tables.url)) as other:
        other.cursor().execute(agent_rows._CLAIM)
        written = ensureDeferred(agent_rows.write(connection, first, '{"a":{"sent":1}}', [letter("a", 1)]))
        await until_it_waits(tables)
        other.commit()
    with pytest.raises(NotLeadingError):
        await written
    assert counted(tables) == [(0, 0, 0, 0)]
