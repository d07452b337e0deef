"""
The ledger in the tables of the database.
"""

from __future__ import annotations

import pytest
import pytest_twisted

from dcm_ws.core.ledger_pages import BLOCK
from dcm_ws.postgres import agent_owners, agent_rows, ledger_rows
from dcm_ws.postgres.agent_owners import FencedError, NodeLease
from dcm_ws.postgres.agent_rows import Lease, NotLeadingError
from dcm_ws.postgres.connection import DatabaseConnection
from dcm_ws.postgres.ledger_rows import FoundEvent
from tests.integration.databases import PostgresServer
from tests.postgres.test_agent_rows import connection as connection

TEXT = '{"text":"ü \\\\ \' %s {}"}'.encode()


def log_events(tables: PostgresServer, *positions: int) -> None:
    for pos in positions:
        tables.execute(
            f"""insert into dcm_ws.log (pos, event_id, channel, event, data, at, mirrored)
            values ({pos}, 'msg_{pos}', 'topics/a', 'task.created', '[{pos}]', 7, false)"""
        )


async def found(connection: DatabaseConnection, pos: int) -> list[bytes]:
    return await ledger_rows.find_pages(connection, pos, (pos // BLOCK + 1) * BLOCK)


@pytest_twisted.ensureDeferred
async def test_pages_that_have_a_position_are_found(connection: DatabaseConnection, tables: PostgresServer) -> None:
    """
    In the order in which they were written, and no others.
    """
    log_events(tables, 1)
    lease = await agent_rows.claim(connection)
    await agent_rows.note(connection, lease, [(1, 5, TEXT), (3, 9, b"[2]")])
    await agent_rows.note(connection, lease, [(2, 4, b"[3]"), (BLOCK + 1, BLOCK + 2, b"[4]")])
    assert await found(connection, 1) == [TEXT]
    assert await found(connection, 4) == [TEXT, b"[2]", b"[3]"]
    assert await found(connection, 9) == [b"[2]"]
    assert await found(connection, 10) == []
    assert await found(connection, BLOCK + 1) == [b"[4]"]


@pytest_twisted.ensureDeferred
async def test_what_is_read_at_once_is_limited(
    connection: DatabaseConnection, tables: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The oldest pages come, whatever somebody has written into the table.
    """
    log_events(tables, 1)
    lease = await agent_rows.claim(connection)
    await agent_rows.note(connection, lease, [(1, 1, b"[%d]" % number) for number in range(10)])
    monkeypatch.setattr(ledger_rows, "PAGES_MAX", 4)
    assert len(await found(connection, 1)) == 4
    monkeypatch.setattr(ledger_rows, "BYTES_MAX", 5)
    assert len(await found(connection, 1)) == 2


@pytest_twisted.ensureDeferred
async def test_what_is_older_than_the_log_is_left_out(connection: DatabaseConnection, tables: PostgresServer) -> None:
    """
    Also if the log is empty; the other pages are written.
    """
    await tables.run(
        """alter table dcm_ws.ledger detach partition dcm_ws.ledger_1; drop table dcm_ws.ledger_1;
        create table dcm_ws.ledger_50 partition of dcm_ws.ledger for values from (50) to (maxvalue);
        update dcm_ws.meta set base = 49"""
    )
    lease = await agent_rows.claim(connection)
    await agent_rows.note(connection, lease, [(1, 49, b"[1]"), (1, 50, b"[2]")])
    log_events(tables, 60)
    await agent_rows.note(connection, lease, [(40, 59, b"[3]"), (40, 60, b"[4]")])
    assert await found(connection, 45) == [b"[2]", b"[4]"]


@pytest_twisted.ensureDeferred
async def test_only_the_leader_writes(connection: DatabaseConnection, tables: PostgresServer) -> None:
    """
    A process that has lost the lock without knowing it writes nothing.
    """
    log_events(tables, 1)
    lease = await agent_rows.claim(connection)
    with pytest.raises(NotLeadingError):
        await agent_rows.note(connection, Lease(lease.leader - 1, lease.epoch), [(1, 1, b"[1]")])
    assert await found(connection, 1) == []


@pytest_twisted.ensureDeferred
async def test_a_node_that_is_fenced_writes_nothing(connection: DatabaseConnection, tables: PostgresServer) -> None:
    """
    Its pages say which node they are of.
    """
    log_events(tables, 1)
    ((node, epoch),) = await tables.run(
        """insert into dcm_ws.node (name, host, pid, version, address) values ('n', 'h', 1, '1', 'a')
        returning id, (select epoch from dcm_ws.meta)"""
    )
    lease = NodeLease(node, epoch)
    await agent_owners.note(connection, lease, [(1, 1, b"[1]")])
    await tables.run("update dcm_ws.node set fenced = true")
    with pytest.raises(FencedError):
        await agent_owners.note(connection, lease, [(1, 1, b"[2]")])
    assert await tables.run("select node, entries from dcm_ws.ledger") == [(node, "[1]")]


@pytest_twisted.ensureDeferred
async def test_an_event_is_found_by_its_id(connection: DatabaseConnection, tables: PostgresServer) -> None:
    """
    With the index.
    """
    log_events(tables, 1, 2)
    found_event = await ledger_rows.find_event(connection, "msg_2")
    assert found_event == FoundEvent(2, "msg_2", "topics/a", "task.created", "[2]", 7, None)
    assert await ledger_rows.find_event(connection, "msg_3") is None
    await tables.run(
        "insert into dcm_ws.log select n, 'x' || n, 'a', 'b', '1', 1, null, null, null, null, false from "
        "generate_series(10, 5000) n; analyze dcm_ws.log"
    )
    ((plan,), *_) = await tables.run("explain select * from dcm_ws.log where event_id = 'x77'")
    assert "event_id" in plan and "Index Scan" in plan


@pytest.mark.parametrize("large", [False, True])
def test_events_of_a_log_that_was_there_before(tables: PostgresServer, large: bool) -> None:
    """
    A large log is not indexed at once, because nobody could publish meanwhile; its next partitions are.
    """
    tables.execute("drop table dcm_ws.ledger; drop index dcm_ws.log_event_id")
    step = ledger_rows.statement("log/4")  # type: ignore[attr-defined]
    tables.execute(step.replace("256 << 20", "0") if large else step)
    tables.execute(
        """alter table dcm_ws.log detach partition dcm_ws.log_1;
        alter table dcm_ws.log attach partition dcm_ws.log_1 for values from (minvalue) to (100);
        create table dcm_ws.log_100 partition of dcm_ws.log for values from (100) to (maxvalue)"""
    )
    indexed = tables.execute(
        "select tablename from pg_indexes where schemaname = 'dcm_ws' and indexdef like '%%(event_id)' order by 1"
    )
    assert ("log_100",) in indexed and ("log_1",) in indexed
