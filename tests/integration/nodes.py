"""
The nodes of a cluster, as real processes.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.integration.databases import PostgresServer
from tests.integration.running import Service


def node(database: PostgresServer, name: str, *options: str, **how: Any) -> Service:
    """
    A node of the cluster on C{database}, which stops without a delay unless the options have one.

    @param how: as of L{Service}.
    """
    delay = () if "--drain-delay" in options else ("--drain-delay", "0")
    return Service("--database-url", database.url, "--cluster", "--node-name", name, *delay, *options, **how)


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
