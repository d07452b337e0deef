"""
The connections to PostgreSQL of one process, of a node, and of a node with NATS: the table in docs/topologies.md.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack

import pytest

from tests.contrib.test_topologies_page import rows
from tests.integration.clients import answer_to, ask_past_events, say
from tests.integration.databases import PostgresServer
from tests.integration.machine import until
from tests.integration.nats_servers import nats
from tests.integration.nodes import node
from tests.integration.running import Service, killed_at_the_end

pytestmark = pytest.mark.integration

COLUMNS = ("one process", "a node on PostgreSQL", "a node on NATS")
MOMENTARY = [row[0].split("`")[1] for row in rows("Connections to PostgreSQL") if "for a moment" in row[0]]


def documented(column: int) -> dict[str, int]:
    """
    How many connections of each name a process has, if it leads, except those that it has for a moment.
    """
    *table, _ = rows("Connections to PostgreSQL")
    lasting = [row for row in table if row[1 + column] and "for a moment" not in row[0]]
    return {row[0].split("`")[1]: int(row[1 + column].split()[0]) for row in lasting}


@pytest.mark.parametrize("column", range(3), ids=COLUMNS)
def test_connections(schema: PostgresServer, column: int) -> None:
    """
    A process that does everything has the connections of the table, each once; another node has those but for the
    metrics.
    """

    def seen() -> Counter[str]:
        found = schema.execute("select application_name from pg_stat_activity where application_name like 'dcm-ws %%'")
        return Counter(name for (name,) in found if name not in MOMENTARY)

    with ExitStack() as stack:
        options: tuple[str, ...] = ()
        if column == 2:
            options = ("--nats", stack.enter_context(nats()).url)

        def start(name: str) -> Service:
            return Service("--database-url", schema.url) if column == 0 else node(schema, name, *options)

        first = stack.enter_context(killed_at_the_end(start("n1")))
        work(first, "ann")
        # what it has published is not in the memory of one that starts now
        if column == 0:
            first.stop()
            first = stack.enter_context(killed_at_the_end(start("n1")))
        second = None if column == 0 else stack.enter_context(killed_at_the_end(start("n2")))
        catch_up(first)
        expected = Counter(documented(column))
        if second is None:
            work(first, "bob")
        else:
            work(second, "bob")
            catch_up(second)
            # the first one reads from memory
            expected = expected + expected
            expected -= Counter({"dcm-ws metrics": 1, "dcm-ws read": 1})
        until(lambda: seen() == expected)


def work(service: Service, agent: str) -> None:
    """
    An agent subscribes to the metrics and publishes.
    """
    client = service.connect()
    ask_past_events(client, type="auth", agent_id=agent, id="in")
    ask_past_events(client, type="subscribe", channel="metrics", id="metrics")
    ask_past_events(client, type="publish", channel="topics/t", event="task.created", data=1, id="out")


def catch_up(service: Service) -> None:
    """
    A client resumes from the beginning of the log.
    """
    client = service.connect()
    resume = {"type": "resume", "epoch": client.connected["epoch"], "pos": 0, "channels": ["topics/t"]}
    say(client, **resume, id="again")
    assert answer_to(client, "again")["resumed"]
