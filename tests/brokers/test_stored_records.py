"""
What operators see of agents and dead letters in the database of a cluster.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import succeed

from dcm_ws.brokers import stored_records
from dcm_ws.brokers.stored_records import StoredRecords
from dcm_ws.core.agent_records import Choice, place_of
from dcm_ws.core.dead_letters import Listed
from dcm_ws.postgres.connection import Place
from dcm_ws.protocol.errors import ErrorCode, ProtocolError
from tests.integration.databases import UNREACHABLE, PostgresServer
from tests.integration.owed import bury

pytestmark = pytest.mark.integration


@pytest.fixture
def records(schema: PostgresServer) -> Iterator[StoredRecords]:
    made = make_records(schema.url)
    made.startService()
    yield made
    made.stopService()


def make_records(url: str) -> StoredRecords:
    from twisted.internet import reactor

    return StoredRecords(reactor, lambda: succeed(Place(url)))


def state(server: PostgresServer, agent: str, gen: int = 0, **fields: Any) -> None:
    """
    Write the state of an agent.
    """
    server.execute("insert into dcm_ws.agent (agent, state, gen) values (%s, %s, %s)", agent, json.dumps(fields), gen)


def change(server: PostgresServer, **agents: Any) -> None:
    """
    Write a row of the journal.
    """
    server.execute("insert into dcm_ws.ack (changes) values (%s)", json.dumps(agents))


@pytest_twisted.ensureDeferred
async def test_agents(schema: PostgresServer, records: StoredRecords) -> None:
    """
    An agent is as its state, and what has changed since, say; changes of a node that has lost it do not count.
    """
    state(schema, "ann", sent=5, channels={"topics/a": 0}, owed={"3": ["msg_3", 1]})
    change(schema, ann={"owed": {"4": ["msg_4", 2]}}, dan={"sent": 7, "channels": {}})
    change(schema, ann={"settled": [3]}, bob={"gone": True})
    state(schema, "bob", sent=5)
    state(schema, "cy", gen=2, sent=5)
    change(schema, cy={"sent": 6, "gen": 1})
    bury(schema, "eve", 9)
    found = await records.agents("", 10)
    assert [(one.agent, one.sent, one.dead) for one in found] == [
        ("ann", 5, 0),
        ("cy", 5, 0),
        ("dan", 7, 0),
        ("eve", 0, 1),
    ]
    assert found[0].state is not None
    assert found[0].state.owed == {4: ("msg_4", 2)}
    assert [one.agent for one in await records.agents("ann", 2)] == ["cy"]
    assert await records.agent("ann") == found[0]
    assert await records.agent("eve") == found[3]
    assert await records.agent("bob") is None
    assert await records.agent("nobody") is None


@pytest_twisted.ensureDeferred
async def test_letters(schema: PostgresServer, records: StoredRecords) -> None:
    """
    Dead letters are listed a page at a time, and by agent, event, reason and time; a service is asked to redrive them.
    """
    ids = [bury(schema, "ann", n, died_at=1_795_000_000_000 + n // 2, data={"n": n}) for n in range(5)]
    bury(schema, "bob", 9, reason="poison", died_at=1)

    def events(letters: list[Listed]) -> list[str]:
        return [letter.event_id for letter in letters]

    found = await records.letters(Choice())
    assert events(found) == ["msg_9", *ids]
    assert found[1].data == b'{"n": 0}'
    for number in range(1, 6):
        first = await records.letters(Choice(most=number))
        rest = await records.letters(Choice(after=place_of(first[-1])))
        assert events(first + rest) == ["msg_9", *ids]
    assert events(await records.letters(Choice(agent="bob"))) == ["msg_9"]
    assert events(await records.letters(Choice(reasons=["attempts"], event_ids=ids[:2]))) == ids[:2]
    assert events(await records.letters(Choice(since=2, until=1_795_000_000_001))) == ids[:2]
    assert await records.redrive(Choice(agent="ann", most=2)) == 2
    wanted = await schema.run("select event_id from dcm_ws.dead where request = 'redrive' order by event_id")
    assert [name for (name,) in wanted] == ids[:2]
    await schema.run("update dcm_ws.dead set request = 'purge' where event_id = %s", ids[4])
    await schema.run("update dcm_ws.dead set request = null, redriven_at = 1 where event_id = %s", ids[3])
    assert await records.redrive(Choice(agent="ann")) == 3
    assert await records.redrive(Choice(agent="nobody")) == 0


@pytest_twisted.ensureDeferred
async def test_database_that_cannot_be_reached(schema: PostgresServer) -> None:
    """
    Without the database, and if too many wait for it, the answer is C{NOT_AVAILABLE}; the next question connects again.
    """
    gone = make_records(UNREACHABLE)
    gone.startService()
    with pytest.raises(ProtocolError) as error:
        await gone.agents("", 1)
    assert error.value.code is ErrorCode.NOT_AVAILABLE
    records = make_records(schema.url)
    records.startService()
    asked = [records.agents("", 1) for _ in range(stored_records.WAITING_MAX + 1)]
    with pytest.raises(ProtocolError):
        records.agents("", 1)
    for one in asked:
        assert await one == []
    await schema.run(
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'dcm-ws operators'"
    )
    for _ in range(50):
        try:
            assert await records.agents("", 1) == []
            break
        except ProtocolError:
            continue
    else:
        raise AssertionError("it does not connect again")
    records.stopService()
