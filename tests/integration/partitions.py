"""
What happens to the nodes of a cluster when networks are cut: what is sent over them is lost, and nobody is told.

L{tests.integration.test_partitions} runs this in a network namespace.  Each node has one of its own in it, with links
to clients, to PostgreSQL and to NATS, and with none to other nodes.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.durable.database import Database, database
from tests.chaos.durable.networks import ADMITTED, Place, prepare
from tests.integration.balancers import balancers
from tests.integration.clients import Client, answer_to, ask_past_events, close_of, hear, hear_event, say, silence
from tests.integration.machine import free_port, until
from tests.integration.nats_servers import NatsServer
from tests.integration.nodes import agent
from tests.integration.owed import make_tables
from tests.integration.running import TWISTD, Service, killed_at_the_end
from tests.integration.tokens import SECRET

PUBLISH = "select dcm_ws.publish('topics/t', 'task.created', %s)"


class Node(Service):
    """
    A node in its own network, of which the test asks how it is over a link that is never cut.

    @ivar name: in the database.
    """

    def __init__(self, number: int, database: Database, nats: NatsServer) -> None:
        self.place = place = Place(number, own=True)
        self.name = f"n{number}"
        place.make()
        super().__init__(
            *("--listen", f"tcp:{free_port()}:interface=0.0.0.0", "--cluster", "--node-name", self.name),
            *("--database-url", database.url.replace("127.0.0.1", place.outside("database"))),
            *("--nats", f"nats://{place.outside('nats')}:{nats.port}", "--drain-delay", "0"),
            *("--heartbeat-interval", "2", "--heartbeat-timeout", "5"),
            env={"WS_AUTH_SECRET": SECRET},
            program=(*place.prefix, *TWISTD, "-n", "--pidfile=", "dcm-ws"),
            host=place.inside("control"),
        )

    @property
    def is_ready(self) -> bool:
        return self.get("/readyz")[0] == 200

    @property
    def leads(self) -> bool:
        return bool(self.stats()["log"]["state"] == "up")


class Ground:
    """
    Three nodes, and what they share.

    @ivar test: the number of the test that uses them.
    """

    def __init__(self, database: Database, nats: NatsServer, nodes: list[Node]) -> None:
        self.database = database
        self.nats = nats
        self.nodes = nodes
        self.test = 0

    def leader(self) -> Node:
        (found,) = [node for node in self.nodes if node.leads]
        return found

    def others(self) -> list[Node]:
        return [node for node in self.nodes if not node.leads]

    def publish(self, data: int) -> None:
        self.database.execute(PUBLISH, str(data))

    def agent(self, node: Node, name: str) -> Client:
        """
        An agent that is owed nothing from the tests before.
        """
        return agent(node, self.name(name))

    def wait_until_written(self, name: str) -> None:
        """
        Wait until the database knows what an agent is subscribed to.
        """
        written = "select 1 from dcm_ws.ack where changes->%s->'channels' ? 'topics/t'"
        until(lambda: self.database.execute(written, self.name(name)))

    def name(self, name: str) -> str:
        return f"{name}-{self.test}"


@pytest.fixture(scope="module")
def running() -> Iterator[Ground]:
    prepare()
    with ExitStack() as stack:
        postgres = stack.enter_context(database(600, ADMITTED))
        make_tables(postgres)
        nats = NatsServer(Path(stack.enter_context(tempfile.TemporaryDirectory())), interface="0.0.0.0")
        nats.start()
        stack.callback(nats.stop, kill=True)
        nodes = []
        for number in (1, 2, 3):
            node = Node(number, postgres, nats)
            stack.callback(node.place.remove)
            stack.enter_context(killed_at_the_end(node))
            nodes.append(node)
        yield Ground(postgres, nats, nodes)


@pytest.fixture
def ground(running: Ground) -> Iterator[Ground]:
    """
    All is well at the beginning of each test.
    """
    running.test += 1
    until(lambda: all(node.is_ready for node in running.nodes) and sum(node.leads for node in running.nodes) == 1)
    until(lambda: all(node.stats()["bus"]["state"] == "up" for node in running.nodes))
    yield running
    for node in running.nodes:
        node.forget_clients()


def data_of(client: Client) -> Any:
    return hear_event(client, "task.created")["data"]


def test_nodes_do_not_reach_each_other(ground: Ground) -> None:
    """
    They need not: all that the other tests see goes through PostgreSQL and NATS.
    """
    one, two, _ = ground.nodes
    reach = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 2)"
    for link in ("control", "clients", "database", "nats"):
        program = [*one.place.prefix, sys.executable, "-c", reach, two.place.inside(link), str(two.port)]
        assert subprocess.run(program, stderr=subprocess.DEVNULL).returncode != 0
    listener = ground.agent(two, "ann")
    publisher = ground.agent(one, "bob")
    ask_past_events(publisher, type="publish", channel="topics/t", event="task.created", data=1, id="p")
    assert data_of(listener) == 1


def test_a_node_does_not_reach_postgresql(ground: Ground) -> None:
    """
    Its clients stay connected, get no events and cannot publish, until it is back: then they are told to come again,
    and get what they have missed.
    """
    one, two = ground.leader(), ground.others()[0]
    listener, elsewhere = ground.agent(two, "ann"), ground.agent(one, "bob")
    ground.wait_until_written("ann")
    two.place.cut("database")
    ground.publish(1)
    assert data_of(elsewhere) == 1
    until(lambda: not two.is_ready)
    say(listener, type="publish", channel="topics/t", event="task.created", data=2, id="p")
    assert answer_to(listener, "p")["code"] == "NOT_AVAILABLE"
    silence(listener)
    until(lambda: ground.database.execute("select fenced from dcm_ws.node where name = %s", two.name) == [(True,)])
    silence(listener)
    two.place.repair("database")
    assert close_of(listener)[0] == 1012
    until(lambda: two.is_ready)
    assert data_of(ground.agent(two, "ann")) == 1


def test_the_leader_does_not_reach_postgresql(ground: Ground) -> None:
    """
    Another node leads.  If the network is back before the node is fenced, its clients stay connected and miss nothing.
    """
    one, others = ground.leader(), ground.others()
    listener, elsewhere = ground.agent(one, "ann"), ground.agent(others[0], "bob")
    one.place.cut("database")
    until(lambda: any(node.leads for node in others))
    one.place.repair("database")
    ground.publish(1)
    assert data_of(elsewhere) == 1
    assert data_of(listener) == 1
    assert not ground.database.execute("select 1 from dcm_ws.node where name = %s and fenced", one.name)


@pytest.mark.parametrize("what", ["the network of a node", "all servers"])
def test_no_nats(ground: Ground, what: str) -> None:
    """
    Logged events arrive as always, others only where they are published, and agents of other nodes seem to be gone.
    """
    one, two, _ = ground.nodes
    watcher, far = one.connect(), ground.agent(two, "ann")
    hear_about(watcher, "agent.connected", ground.name("ann"))
    if what == "all servers":
        ground.nats.stop(kill=True)
    else:
        two.place.cut("nats")
    beat = {"type": "publish", "channel": "topics/t", "event": "agent.heartbeat", "data": 1}
    publisher = ground.agent(one, "bob")
    hear_about(watcher, "agent.connected", ground.name("bob"))
    ask_past_events(publisher, **beat, id="beat")
    assert hear_event(watcher, "agent.heartbeat")["data"] == 1
    ground.publish(2)
    assert data_of(publisher) == 2
    assert hear(far)["data"] == 2
    hear_about(watcher, "agent.disconnected", ground.name("ann"))
    # it comes to the other node, although the one that has it does not hear that
    moved = ground.agent(one, "ann")
    ground.publish(3)
    assert 3 in (data_of(moved), data_of(moved))
    moved.close()
    if what == "all servers":
        ground.nats.start()
    else:
        two.place.repair("nats")
    until(lambda: all(node.stats()["bus"]["state"] == "up" for node in ground.nodes))
    assert ground.agent(two, "eve")
    hear_about(watcher, "agent.connected", ground.name("eve"))


def hear_about(client: Client, event: str, name: str) -> None:
    """
    Wait until a client hears that an agent has come or gone.
    """
    while hear_event(client, event)["data"]["agent_id"] != name:
        pass


def test_clients_do_not_reach_a_node(ground: Ground) -> None:
    """
    They come to other nodes through the load balancer, and get what they have missed; the node finds out that their old
    connections are silent.
    """
    addresses = [f"{node.place.inside('clients')}:{node.port}" for node in ground.nodes]
    with balancers(["haproxy"], addresses) as (front,):
        clients = [front.connect(ground.name(f"agent{number}")) for number in range(6)]
        for number, client in enumerate(clients):
            ask_past_events(client, type="auth", agent_id=ground.name(f"agent{number}"), durable=True, id="in")
            ask_past_events(client, type="subscribe", channel="topics/t", id="on")
        two = ground.nodes[1]
        assert two.stats()["connectedClients"] == 2
        two.place.cut("clients")
        ground.publish(1)
        silent = [number for number, client in enumerate(clients) if not hears(client)]
        assert len(silent) == 2
        for number in silent:
            assert data_of(front.connect(ground.name(f"agent{number}"))) == 1
        until(lambda: two.stats()["connectedClients"] == 0)
        two.place.repair("clients")


def hears(client: Client) -> bool:
    """
    Is the client sent an event?
    """
    try:
        return bool(hear_event(client, "task.created", timeout=3.0))
    except TimeoutError:
        return False
