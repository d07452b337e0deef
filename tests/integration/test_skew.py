"""
Nodes of different versions in one cluster, and nodes whose database gets a newer schema.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator

import pytest

from dcm_ws.postgres.migrations import MARK
from dcm_ws.postgres.migrations import VERSION as SCHEMA
from dcm_ws.version import VERSION
from tests import forking, newer
from tests.integration import running
from tests.integration.clients import ask_past_events, close_of, hear_event, say, silence
from tests.integration.databases import PostgresServer
from tests.integration.machine import PATIENCE, until
from tests.integration.nodes import agent, cluster, node
from tests.integration.running import Service

pytestmark = pytest.mark.integration

TASK = "task.created"
NEWER = (sys.executable, "-m", "tests.newer", "-n", "--pidfile=", "dcm-ws")
NEXT_SCHEMA = f"comment on schema dcm_ws is '{MARK} {SCHEMA + 1}'; alter table dcm_ws.agent add tags text[]"
"""
A step of a next release, which adds something.
"""


@pytest.fixture(params=["newer", "older"])
def nodes(schema: PostgresServer, request: pytest.FixtureRequest) -> Iterator[list[Service]]:
    """
    A node of this version and one of the next, of which one leads.
    """
    with cluster(schema, 0) as nodes:
        for which in ("newer", "older") if request.param == "newer" else ("older", "newer"):
            how = {"program": NEWER} if which == "newer" else {}
            nodes.append(node(schema, which, **how))
        for one in nodes:
            until(lambda one=one: one.stats()["bus"]["heard"])
        yield nodes


def test_nodes_of_two_minor_versions(schema: PostgresServer, nodes: list[Service]) -> None:
    """
    They pass on events and agents as nodes of one version do, no matter which of them leads.
    """
    versions = schema.execute("select version from dcm_ws.node where not fenced order by 1")
    assert versions == [(VERSION,), (newer.VERSION,)]
    # with a limit of messages that wait, they would not notice the end of the services
    listeners = [one.connect(max_queue=None) for one in nodes]
    for number, (here, there) in enumerate((nodes, nodes[::-1])):
        name = f"agent-{number}"
        first = agent(here, name)
        for listener in listeners:
            while hear_event(listener, "agent.connected")["data"]["agent_id"] != name:
                pass
        publisher = agent(there, f"publisher-{number}")
        for data in (1, 2):
            ask_past_events(publisher, type="publish", channel="topics/t", event=TASK, data=data, id=data)
        got = [hear_event(first, TASK) for _ in range(2)]
        assert [one["data"] for one in got] == [1, 2]
        say(first, type="ack", message_id=got[0]["id"])
        silence(first)
        taken = here.stats()["bus"]["unanswered"] + there.stats()["bus"]["unanswered"]
        second = agent(there, name)
        assert hear_event(second, TASK)["data"] == 2
        # it was asked for and given, and not taken by force
        assert here.stats()["bus"]["unanswered"] + there.stats()["bus"]["unanswered"] == taken
        # while both connections are open, an ack on the former one counts
        say(first, type="ack", pos=got[1]["pos"])
        beat = {"status": "ready", "number": number}
        ask_past_events(publisher, type="publish", channel="topics/t", event="agent.heartbeat", data=beat, id="b")
        assert hear_event(first, "agent.heartbeat")["data"] == beat
        assert hear_event(second, "agent.heartbeat")["data"] == beat
        second.close()
        third = agent(here, name)
        ask_past_events(publisher, type="publish", channel="topics/t", event=TASK, data=3, id=3)
        assert hear_event(third, TASK)["data"] == 3
        for client in (first, third, publisher):
            client.close()
    for one in nodes:
        assert "failed" not in one.log and "cannot be read" not in one.log, one.log


def test_a_newer_schema(schema: PostgresServer) -> None:
    """
    A node goes on while its sessions last.  When it connects again it closes its clients, and says why; it does not
    start either.
    """
    with cluster(schema, 2) as (one, two):
        client, stays = agent(one, "ann"), agent(two, "bob")
        schema.execute(NEXT_SCHEMA)
        for number in range(2):
            ask_past_events(client, type="publish", channel="topics/t", event=TASK, data=number, id=number)
            got = hear_event(stays, TASK)
            assert got["data"] == number
            say(stays, type="ack", pos=got["pos"])
        flushes = two.stats()["journal"]["flushes"]
        until(lambda: two.stats()["journal"]["flushes"] >= flushes + 2)
        assert two.stats()["journal"]["failures"] == 0
        schema.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'dcm-ws log' and pid in ("
            "select pid from pg_locks where locktype = 'advisory' and classid = 1684237687 and objid = 1)"
        )
        assert close_of(client)[0] == 1012
        until(lambda: one.get("/readyz")[0] == 503)
        until(lambda: f"versions up to {SCHEMA}" in one.health()["log"]["reason"])
        assert one.log.count(f"versions up to {SCHEMA} (use the newer dcm-ws that installed it)") == 1
        # the other one still has its session, and leads now
        until(lambda: two.stats()["log"]["state"] == "up")
        client = agent(two, "ann")
        ask_past_events(client, type="publish", channel="topics/t", event=TASK, data=7, id=7)
        assert hear_event(stays, TASK)["data"] == 7
        command = [*running.TWISTD, "-n", "--pidfile=", "dcm-ws", "--ws-port", "0", "--cluster"]
        ended = forking.run([*command, "--database-url", schema.url], input="", timeout=PATIENCE)
        assert ended.returncode == 1
        assert f"is of version {SCHEMA + 1}, and this dcm-ws knows versions up to {SCHEMA}" in ended.stdout
        assert one.stop(signal.SIGTERM) == 0
