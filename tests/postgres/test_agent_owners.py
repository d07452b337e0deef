"""
Which node of a cluster has which agent, in a real PostgreSQL, and what each of them may write.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_twisted
from msgspec import Raw

from dcm_ws.postgres import agent_owners
from dcm_ws.postgres.agent_owners import Claim, FencedError, Found, Gen, Got, NodeLease, Wanted
from dcm_ws.postgres.agent_rows import LetterKey
from dcm_ws.postgres.connection import DatabaseConnection
from tests.integration.databases import PostgresServer
from tests.postgres.test_agent_rows import connected, letter

pytestmark = pytest.mark.integration


class Rig:
    """
    Two nodes, of which each has a connection.
    """

    def __init__(self, server: PostgresServer, connections: list[DatabaseConnection]) -> None:
        self.server = server
        self.connections = connections
        ((epoch,),) = server.execute("select epoch from dcm_ws.meta")
        self.leases = [NodeLease(self.register(), epoch) for _ in range(2)]

    def register(self) -> int:
        rows = self.server.execute(
            "insert into dcm_ws.node (name, host, pid, version, address) values ('n', 'h', 1, '1', 'a') returning id"
        )
        return int(rows[0][0])

    def fence(self, which: int) -> None:
        self.server.execute("update dcm_ws.node set fenced = true where id = %s", self.leases[which].node)

    async def look(self, which: int, *agents: str, gen: int | None = None, forced: bool = False) -> dict[str, Any]:
        wanted = [Wanted(agent, gen, forced) for agent in agents]
        seen = await agent_owners.look(self.connections[which], self.leases[which], wanted)
        return {one.agent: one for one in seen}

    async def found(self, which: int, agent: str, **how: Any) -> tuple[Found, int]:
        one = (await self.look(which, agent, **how))[agent]
        return one.found, one.gen

    async def flush(self, which: int, **changes: Any) -> Any:
        return await agent_owners.flush(self.connections[which], self.leases[which], json.dumps(changes))

    async def take(
        self, which: int, agent: str, gen: int, state: str, pos: int = 0, event_id: str = ""
    ) -> dict[str, Got]:
        claims = [Claim(agent, gen, Raw(state.encode()), pos, event_id)]
        return await agent_owners.take(self.connections[which], self.leases[which], claims)

    def row(self, agent: str) -> tuple[Any, int | None, int]:
        ((state, node, gen),) = self.server.execute("select state, node, gen from dcm_ws.agent where agent = %s", agent)
        nodes = {lease.node: number for number, lease in enumerate(self.leases)}
        return state, nodes.get(node), gen


@pytest_twisted.async_yield_fixture
async def rig(tables: PostgresServer) -> AsyncIterator[Rig]:
    connections = [await connected(tables) for _ in range(2)]
    yield Rig(tables, connections)
    for connection in connections:
        connection.close()


@pytest_twisted.ensureDeferred
async def test_after_the_restore_of_a_backup(rig: Rig) -> None:
    """
    A node writes nothing, and gives nothing to others, if the log does not have what was delivered there last.
    """
    await rig.server.run(
        "insert into dcm_ws.log (pos, event_id, channel, event, data, at, mirrored)"
        " values (5, 'msg_5', 'global', 'task.created', '{}', 1, false)"
    )
    known = rig.leases[0]
    await rig.look(1, "a")
    for pos, event_id in ((6, "msg_6"), (5, "msg_lost")):
        rig.leases[0] = known._replace(pos=pos, event_id=event_id)
        with pytest.raises(FencedError):
            await rig.look(0, "a")
        with pytest.raises(FencedError):
            await rig.flush(0, a={"gen": 1, "sent": 6})
        rig.leases[0] = known
        assert await rig.take(0, "a", 1, '{"sent":6}', pos, event_id) == {}
    rig.leases[0] = known._replace(pos=5, event_id="msg_5")
    await rig.flush(0, a={"gen": 1, "sent": 5})
    assert await rig.take(0, "a", 1, '{"sent":5}', 5, "msg_5") == {"a": Got(2, False)}
    # what has left the log was there
    await rig.server.run("delete from dcm_ws.log")
    await rig.server.run("update dcm_ws.meta set base = 5")
    await rig.flush(0, a={"gen": 2, "sent": 5})


@pytest_twisted.ensureDeferred
async def test_new_agents_are_taken_at_once(rig: Rig) -> None:
    seen = await rig.look(0, "b", "a")
    assert {agent: (one.found, one.gen, one.state) for agent, one in seen.items()} == {
        "a": (Found.TAKEN, 1, "{}"),
        "b": (Found.TAKEN, 1, "{}"),
    }
    assert rig.row("a") == ({}, 0, 1)
    assert await rig.found(0, "a", gen=1) == (Found.KEPT, 1)


@pytest_twisted.ensureDeferred
async def test_another_node_has_it(rig: Rig) -> None:
    """
    Then its state is not of interest: it is asked.  If it does not answer, the agent is taken nevertheless.
    """
    await rig.look(0, "a")
    one = (await rig.look(1, "a"))["a"]
    assert (one.found, one.owner, one.gen, one.state) == (Found.OWNED, rig.leases[0].node, 1, "")
    assert await rig.found(1, "a", forced=True) == (Found.TAKEN, 2)
    assert rig.row("a") == ({}, 1, 2)
    assert await rig.found(0, "a", gen=1) == (Found.OWNED, 2)


@pytest_twisted.ensureDeferred
async def test_what_was_put_together_is_taken_once(rig: Rig) -> None:
    await rig.look(0, "a")
    assert await rig.take(1, "a", 1, '{"sent":7}') == {"a": Got(2, False)}
    assert rig.row("a") == ({"sent": 7}, 1, 2)
    assert await rig.take(0, "a", 1, '{"sent":8}') == {}
    assert rig.row("a") == ({"sent": 7}, 1, 2)


@pytest_twisted.ensureDeferred
async def test_the_journal_comes_first(rig: Rig) -> None:
    """
    The journal of a node that does not answer, or is fenced, has to be folded into the state of an agent that is taken
    from it; but not what was written by a node that had lost the agent already.
    """
    await rig.look(0, "a", "b")
    await rig.flush(0, a={"gen": 1, "sent": 4}, b={"gen": 1, "sent": 4})
    await rig.flush(0, a={"gen": 1, "sent": 5})
    for how in ({"forced": True}, {}):
        one = (await rig.look(1, "a", **how))["a"]
        assert (one.found, one.gen) == (Found.STALE, 1)
        assert [json.loads(change)["sent"] for change in one.changes] == [4, 5]
        rig.fence(0)
    assert await rig.take(1, "a", 1, '{"sent":5}') == {"a": Got(2, False)}
    await rig.server.run("update dcm_ws.node set fenced = false")
    assert (await rig.flush(0, a={"gen": 1, "sent": 6})).lost == {"a": rig.leases[1].node}
    rig.fence(0)
    rig.fence(1)
    rig.leases[0] = rig.leases[0]._replace(node=rig.register())
    assert await rig.found(0, "a") == (Found.TAKEN, 3)
    assert rig.row("a") == ({"sent": 5}, 0, 3)


@pytest_twisted.ensureDeferred
async def test_agents_of_a_service_without_a_cluster(rig: Rig) -> None:
    """
    Its rows have no number, and agents may be in its journal only.
    """
    await rig.server.run("""insert into dcm_ws.agent (agent, state) values ('a', '{"sent":1}')""")
    await rig.server.run("""insert into dcm_ws.ack (changes) values ('{"a":{"sent":2},"b":{"sent":3}}')""")
    seen = await rig.look(0, "a", "b", "c")
    assert {
        agent: (one.found, one.gen, [json.loads(change) for change in one.changes]) for agent, one in seen.items()
    } == {
        "a": (Found.STALE, 0, [{"sent": 2}]),
        "b": (Found.STALE, 0, [{"sent": 3}]),
        "c": (Found.TAKEN, 1, []),
    }
    assert await rig.take(0, "b", 0, '{"sent":3}') == {"b": Got(1, False)}
    assert rig.row("b") == ({"sent": 3}, 0, 1)


@pytest_twisted.ensureDeferred
async def test_a_node_that_is_fenced_writes_nothing(rig: Rig) -> None:
    await rig.look(0, "a")
    rig.fence(0)
    connection, lease = rig.connections[0], rig.leases[0]
    with pytest.raises(FencedError):
        await rig.look(0, "b")
    with pytest.raises(FencedError):
        await rig.take(0, "a", 1, '{"sent":7}')
    with pytest.raises(FencedError):
        await agent_owners.flush(connection, lease, '{"a":{"gen":1}}', [letter("a", 1)], [])
    with pytest.raises(FencedError):
        await agent_owners.save(connection, lease, [Claim("a", 1, Raw(b'{"sent":7}'))], [], 9)
    with pytest.raises(FencedError):
        await agent_owners.fold(connection, lease, [Claim("a", 1, Raw(b'{"sent":7}'))], [1])
    with pytest.raises(FencedError):
        await agent_owners.expire(connection, lease, 0, keep=0, keep_letters=0, most=1)
    assert rig.row("a") == ({}, 0, 1)
    assert await rig.server.run("select count(*) from dcm_ws.ack") == [(0,)]
    assert await rig.server.run("select count(*) from dcm_ws.dead") == [(0,)]
    other = lease._replace(node=rig.leases[1].node, epoch="another")
    with pytest.raises(FencedError):
        await agent_owners.look(connection, other, [Wanted("b", None)])


@pytest_twisted.ensureDeferred
async def test_checkpoints(rig: Rig) -> None:
    """
    A node saves and forgets only what it has, and shortens only its own journal.
    """
    await rig.look(0, "a", "b")
    await rig.look(1, "c")
    first = await rig.flush(0, a={"gen": 1, "sent": 4})
    other = await rig.flush(1, c={"gen": 1, "sent": 4})
    states = [Claim(agent, 1, Raw(b'{"sent":4}')) for agent in "ac"]
    gone = [Gen("b", 1), Gen("c", 1), Gen("a", 7)]
    await agent_owners.save(rig.connections[0], rig.leases[0], states, gone, other.number)
    assert rig.row("a") == ({"sent": 4}, 0, 1)
    assert rig.row("c") == ({}, 1, 1)
    assert await rig.server.run("select agent from dcm_ws.agent order by 1") == [("a",), ("c",)]
    assert await rig.server.run("select seq from dcm_ws.ack") == [(other.number,)]
    assert first.number < other.number


@pytest_twisted.ensureDeferred
async def test_letters_and_requests(rig: Rig) -> None:
    """
    What operators want is done by the node that has the agent, and by the leader for agents that no node has.
    """
    await rig.look(0, "a")
    one, lease = rig.connections[0], rig.leases[0]
    letters = [letter("a", 1), letter("b", 2), letter("b", 3)]
    await agent_owners.flush(one, lease, None, letters, [])
    assert (await rig.look(1, "a"))["a"].letters
    assert (await rig.look(1, "b"))["b"].letters
    rig.fence(1)
    assert await agent_owners.letters_of(one, ["b"]) == letters[1:]
    await rig.server.run("update dcm_ws.dead set request = case pos when 3 then 'purge' else 'redrive' end")
    (asked,) = await agent_owners.own_requests(one, lease, 10)
    assert (asked.letter, asked.request) == (letters[0], "redrive")
    await agent_owners.own_done(one, lease, [LetterKey("a", "msg_1")])
    assert await agent_owners.own_requests(one, lease, 10) == []
    assert not await agent_owners.other_requests(one, lease, 10, 77)
    assert await rig.server.run("select pos, request, redriven_at from dcm_ws.dead order by pos") == [
        (1, None, None),
        (2, None, 77),
    ]


@pytest_twisted.ensureDeferred
async def test_what_fenced_nodes_have_left(rig: Rig) -> None:
    """
    The leader folds their journals, and forgets after a while what no node has.
    """
    await rig.look(1, "a", "b")
    await rig.flush(1, a={"gen": 1, "sent": 4}, b={"gen": 1, "sent": 4}, c={"sent": 9})
    one, lease = rig.connections[0], rig.leases[0]
    assert (await agent_owners.left(one)).rows == []
    rig.fence(1)
    await rig.take(0, "b", 1, '{"sent":4}')
    left = await agent_owners.left(one)
    assert [json.loads(changes).keys() for _, changes in left.rows] == [{"a", "b", "c"}]
    assert left.states == {"a": ("{}", 1)}
    states = [Claim("a", 1, Raw(b'{"sent":4,"left":5}')), Claim("b", 0, Raw(b"{}")), Claim("c", 0, Raw(b'{"sent":9}'))]
    await agent_owners.fold(one, lease, states, [seq for seq, _ in left.rows])
    assert (await agent_owners.left(one)).rows == []
    assert rig.row("a") == ({"sent": 4, "left": 5}, 1, 1)
    assert rig.row("b") == ({"sent": 4}, 0, 2)
    assert rig.row("c") == ({"sent": 9}, None, 0)
    await agent_owners.flush(one, lease, None, [letter("x", 1, died_at=1000)], [])
    await rig.server.run("update dcm_ws.agent set seen_at = now() - interval '1 minute'")
    assert await agent_owners.expire(one, lease, 20_000, keep=10.0, keep_letters=10.0, most=1)
    while await agent_owners.expire(one, lease, 20_000, keep=10.0, keep_letters=10.0, most=1):
        pass
    assert await rig.server.run("select agent from dcm_ws.agent") == [("b",)]
    assert await rig.server.run("select agent from dcm_ws.dead") == []
    assert await agent_owners.owners_of(one, ["a", "b"]) == {"b": lease.node}


@pytest_twisted.ensureDeferred
async def test_agents_are_given_back(rig: Rig) -> None:
    """
    What a node had it may give back: then another one takes it at once, and what the journal has of it does not count.
    """
    await rig.look(0, "a", "b")
    await rig.look(1, "c")
    await rig.flush(0, a={"gen": 1, "sent": 4})
    assert (await rig.take(1, "b", 1, '{"sent":2}'))["b"].gen == 2
    states = [Claim(agent, 1, Raw(b'{"sent":7}')) for agent in "abc"]
    await agent_owners.give_back(rig.connections[0], rig.leases[0], states)
    assert rig.row("a") == ({"sent": 7}, None, 2)
    assert rig.row("b") == ({"sent": 2}, 1, 2)
    assert rig.row("c") == ({}, 1, 1)
    rig.fence(0)
    seen = (await rig.look(1, "a"))["a"]
    assert (seen.found, seen.gen, json.loads(seen.state)) == (Found.TAKEN, 3, {"sent": 7})
    with pytest.raises(FencedError):
        await agent_owners.give_back(rig.connections[0], rig.leases[0], states)
