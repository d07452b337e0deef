"""
The nodes of a cluster, as real processes.
"""

from __future__ import annotations

import signal
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from tests.integration.clients import Client, ask_past_events, unsubscribe_global
from tests.integration.databases import PostgresServer
from tests.integration.running import Service


def node(database: PostgresServer, name: str, *options: str, **how: Any) -> Service:
    """
    A node of the cluster on C{database}, which stops without a delay unless the options have one.

    @param how: as of L{Service}.
    """
    delay = () if "--drain-delay" in options else ("--drain-delay", "0")
    return Service("--database-url", database.url, "--cluster", "--node-name", name, *delay, *options, **how)


def agent(service: Service, name: str = "ann", *, channels: Collection[str] = ("topics/t",)) -> Client:
    """
    A client of a durable agent, which gets the events of its own channel and of C{channels} only.
    """
    client = service.connect()
    unsubscribe_global(client)
    ask_past_events(client, type="auth", agent_id=name, durable=True, id="in")
    for channel in channels:
        ask_past_events(client, type="subscribe", channel=channel, id="on")
    return client


@contextmanager
def cluster(database: PostgresServer, number: int, *options: str) -> Iterator[list[Service]]:
    """
    So many nodes, by the names n1, n2 and so on; the first one leads.  A test may stop some of them.
    """
    nodes: list[Service] = []
    try:
        for each in range(1, number + 1):
            nodes.append(node(database, f"n{each}", *options))
        yield nodes
    finally:
        for one in nodes:
            if one.process.poll() is None:
                one.process.send_signal(signal.SIGCONT)
            one.stop(signal.SIGKILL)
            one.forget_clients()
            assert "Traceback" not in one.log, one.log
