"""
The processes of the service: one, several nodes, or one with workers, and the NATS server between them.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.durable.networks import Place, is_isolated, isolate
from tests.chaos.durable.service import ServiceProcess
from tests.integration.nats_servers import NatsServer

_numbers = itertools.count(1)
_TIMESTAMP = 20


@dataclass(frozen=True, slots=True)
class Shape:
    """
    What the service consists of.

    @ivar nodes: how many of its processes have ports of their own.
    @ivar workers: how many each of them has.
    @ivar nats: they hear each other over NATS.
    """

    nodes: int = 1
    workers: int = 1
    nats: bool = False

    @property
    def is_cluster(self) -> bool:
        """
        Are there several processes that serve clients?
        """
        return self.nodes > 1 or self.workers > 1

    def __str__(self) -> str:
        several = f"{self.nodes} nodes" if self.nodes > 1 else f"{self.workers} workers"
        return f"{several if self.is_cluster else 'one process'}{' and NATS' if self.nats else ''}"


def add_options(parser: argparse._ActionsContainer) -> None:
    """
    Let a command line choose the shape.
    """
    parser.add_argument("--nodes", type=int, default=1, help="so many processes on the same database")
    parser.add_argument("--workers", type=int, default=1, help="so many workers in each process")
    parser.add_argument("--nats", action="store_true", help="nodes hear each other over NATS")


def shape_of(choice: argparse.Namespace) -> Shape:
    """
    What was chosen.  If it is a cluster, this program runs in a network namespace from now on, if there can be one.
    """
    shape = Shape(choice.nodes, choice.workers, choice.nats)
    if shape.is_cluster:
        isolate()
    return shape


@contextmanager
def installed(
    shape: Shape, folder: Path, url: str, *options: str, turn: float, bug: str
) -> Iterator[tuple[list[ServiceProcess], NatsServer | None]]:
    """
    The processes, which are not started yet.
    """
    own = shape.is_cluster and is_isolated()
    places = [Place(next(_numbers), own=own) for _ in range(shape.nodes)]
    nats = NatsServer(folder, interface=places[0].interface) if shape.nats else None
    nodes: list[ServiceProcess] = []
    try:
        if nats is not None:
            nats.start()
        for number, place in enumerate(places, start=1):
            place.make()
            name = f"n{number}" if shape.nodes > 1 else "service"
            more: list[str] = []
            if shape.nodes > 1:
                more += ["--cluster", "--node-name", name, "--drain-delay", "0.5"]
            if shape.workers > 1:
                more += ["--workers", str(shape.workers)]
            if nats is not None:
                more += ["--nats", f"nats://{place.outside('nats')}:{nats.port}"]
            nodes.append(ServiceProcess(folder, url, *options, *more, turn=turn, bug=bug, name=name, place=place))
        yield nodes, nats
    finally:
        for node in nodes:
            node.end()
        if nats is not None:
            nats.stop(kill=True)
        for place in places:
            place.remove()


def log_of(nodes: Sequence[ServiceProcess]) -> str:
    """
    The lines that all have logged, in the order of their times.
    """
    lines: list[tuple[str, str]] = []
    for node in nodes:
        at = ""
        mark = f"{node.name} " if len(nodes) > 1 else ""
        for line in node.log.read_text(errors="replace").splitlines():
            # those of a traceback have none
            at = line[:_TIMESTAMP] if line[:2] == "20" else at
            lines.append((at, f"{mark}{line}"))
    lines.sort(key=lambda one: one[0])
    return "\n".join(line for _, line in lines)
