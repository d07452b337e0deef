"""
What only one engine of the bus has.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest
import pytest_twisted

from dcm_ws.brokers.bus_nats import NatsBus
from dcm_ws.brokers.bus_postgres import PostgresBus
from dcm_ws.core.counts import Counts
from dcm_ws.nats.connection import Credentials
from dcm_ws.nats.tls import tls_options
from dcm_ws.nats.urls import read_urls
from dcm_ws.postgres.connection import Place
from tests.brokers.rigs import MESSAGE, WAITING, NatsRig, Node, PostgresRig
from tests.integration.conftest import stoppable
from tests.integration.databases import PostgresServer, pgbouncer
from tests.integration.nats_servers import nats

__all__ = ["stoppable"]


@pytest_twisted.async_yield_fixture
async def rig(stoppable: PostgresServer) -> AsyncIterator[PostgresRig]:
    rig = PostgresRig(stoppable)
    yield rig
    await rig.end()


async def test_connections_terminated(rig: PostgresRig) -> None:
    """
    Connections to PostgreSQL that end again and again cost messages; those that come are in order and whole, and in the
    end all come again.
    """
    one, two = await rig.node("1"), await rig.node("2")
    two.hear("events")
    number = 0
    for _ in range(5):
        for _ in range(200):
            number += 1
            one.bus.cast("events", b"%06d" % number + b"x" * (number % 20_000))
        rig.database.kill_backends("dcm-ws bus")
        await rig.until(lambda: one.bus.report()["state"] == "down" or one.bus.report()["waiting"] == 0)
    await rig.are("up")

    def again() -> bool:
        one.bus.cast("events", b"999999")
        return ("1", b"999999") in two.heard["events"]

    await rig.until(again)
    heard = [(int(message[:6]), len(message) - 6) for _, message in two.heard["events"] if message != b"999999"]
    assert heard == sorted(heard)
    assert all(size == number % 20_000 for number, size in heard)
    assert one.bus.report()["reconnects"] >= 1


async def test_casts_do_not_come_back(rig: PostgresRig) -> None:
    """
    What a node cast is not read again by itself, though PostgreSQL sends it.
    """
    one, two = await rig.node("1"), await rig.node("2")
    two.hear("events")
    one.bus.cast("events", b"hello")
    await rig.until(lambda: two.heard["events"])
    assert (one.bus.report()["heard"], two.bus.report()["heard"]) == (0, 1)


async def test_messages_of_a_turn_go_together(rig: PostgresRig) -> None:
    """
    What is sent in one turn is one transaction, and small messages are one notification.
    """
    one, two = await rig.node("1"), await rig.node("2")
    two.hear("events")
    sent: list[int] = []
    connection = one.bus._connection  # type: ignore[attr-defined]
    send = connection.send

    def record(channels: Any, payloads: Any) -> Any:
        sent.append(len(payloads))
        return send(channels, payloads)

    connection.send = record
    for _ in range(20):
        one.bus.cast("events", b"x" * 200)
    await rig.until(lambda: len(two.heard["events"]) == 20)
    assert sent == [1]


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
async def test_other_encodings(rig: PostgresRig, encoding: str) -> None:
    """
    A database with another encoding carries any bytes.
    """
    name = f"bus_{encoding.lower()}"
    await rig.database.run(f"create database {name} encoding '{encoding}' template template0")
    url = rig.database.url.rpartition("/")[0] + "/" + name

    class Other(PostgresRig):
        def _bus(self, counts: Counts, max_waiting: int) -> PostgresBus:
            bus = super()._bus(counts, max_waiting)

            async def address() -> Place:
                return Place(url)

            bus._address = address
            return bus

    other = Other(rig.database)
    one, two = await other.node("1"), await other.node("2")
    two.hear("events")
    messages = [bytes(range(256)), "ü✓".encode(), b"plain"]
    for message in messages:
        one.bus.cast("events", message)
    await other.until(lambda: len(two.heard["events"]) == 3)
    assert [message for _, message in two.heard["events"]] == messages
    await other.end()


async def test_pooler(rig: PostgresRig, stoppable: PostgresServer) -> None:
    """
    Behind a pool in transaction mode, the bus says that notifications do not arrive.
    """
    with pgbouncer(stoppable, "transaction") as url:

        async def address() -> Place:
            return Place(url)

        counts = Counts()
        bus = PostgresBus(
            rig._reactor,
            address,
            counts=counts,
            now=time.monotonic,
            random=lambda: 0.0,
            max_message=MESSAGE,
            max_waiting=WAITING,
        )
        bus.join("1", "tests")
        bus.startService()
        await rig.until(lambda: bus.report()["reason"])
        assert "notifications do not arrive" in bus.report()["reason"]
        ending = bus.stopService()
        assert ending is not None
        await ending


def nats_bus(rig: NatsRig, url: str, counts: Counts, **more: Any) -> NatsBus:
    return NatsBus(
        rig._reactor,
        read_urls([url]),
        credentials=Credentials,
        tls=tls_options(None),
        counts=counts,
        now=time.monotonic,
        random=Random(1).random,
        max_message=MESSAGE,
        max_waiting=WAITING,
        **more,
    )


class OneServer(NatsRig):
    """
    One NATS server for two clusters of nodes.
    """

    more: dict[str, str]

    def _bus(self, counts: Counts, max_waiting: int) -> NatsBus:
        return nats_bus(self, self.servers[0].url, counts, **self.more)


async def joined(rig: OneServer, name: str, cluster: str, **more: str) -> Node:
    rig.more, rig.cluster = more, cluster
    return await rig.node(name)


async def test_node_that_is_gone_is_known_at_once() -> None:
    """
    NATS says at once that nobody has the name of a node; the question does not wait for the end of its time.
    """
    with nats() as server:
        rig = OneServer([server])
        one = await joined(rig, "1", cluster="a")
        answers: list[bytes | None] = []
        one.bus.ask("2", "events", b"?", 3600.0, answers.append)
        await rig.until(lambda: answers)
        assert answers == [None]
        await rig.end()


async def test_clusters_on_one_server() -> None:
    """
    Two clusters, or two prefixes, on one NATS do not hear each other.
    """
    with nats() as server:
        rig = OneServer([server])
        nodes = [
            await joined(rig, name, **more)
            for name, more in (
                ("1", {"cluster": "a"}),
                ("2", {"cluster": "a"}),
                ("2", {"cluster": "b"}),
                ("2", {"cluster": "a", "prefix": "other.one"}),
            )
        ]
        for node in nodes:
            node.hear("events")
        nodes[0].bus.cast("events", b"cast")
        nodes[0].bus.tell("2", "events", b"told")
        await rig.until(lambda: len(nodes[1].heard["events"]) == 2)
        assert [len(node.heard["events"]) for node in nodes] == [0, 2, 0, 0]
        await rig.end()


async def test_server_with_small_messages() -> None:
    """
    A server that takes only small messages carries large ones in parts.
    """
    with nats("max_payload: 4096") as server:
        rig = OneServer([server])
        one, two = await joined(rig, "1", cluster="a"), await joined(rig, "2", cluster="a")
        two.hear("events")
        message = bytes(range(256)) * 4112
        one.bus.cast("events", message)
        await rig.until(lambda: two.heard["events"])
        assert two.heard["events"] == [("1", message)]
        await rig.end()


async def test_nonsense_from_others() -> None:
    """
    What others publish on the subjects of the bus is counted, and nothing else happens.
    """
    with nats() as server:
        rig = OneServer([server])
        one = await joined(rig, "1", cluster="a")
        one.hear("events")
        stranger = await joined(rig, "2", cluster="a")
        client = stranger.bus._client  # type: ignore[attr-defined]
        for payload in (b"", b"hello", b"1 m 9 events 7 1 3\nrest", b"1 a 9 events 7 0 1\nanswer"):
            client.publish(b"dcm-ws.a.all", payload)
        client.publish(b"dcm-ws.a.gone.1.x", b"")
        client.publish(b"dcm-ws.a.gone.1.5", b"not from the server")
        stranger.bus.cast("events", b"real")
        await rig.until(lambda: one.heard["events"])
        assert one.heard["events"] == [("2", b"real")]
        assert one.bus.report()["broken"] == 2
        await rig.end()
