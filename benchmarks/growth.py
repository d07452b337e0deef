"""
How the cost of the hot paths grows, as log-log plots.

    python -m benchmarks.growth docs/images/growth.svg

It measures the service's own part, in CPU time, as far as the queues of the connections: what the kernel takes for each
write, which is most of the rest, grows with the writes and with nothing else.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot
from twisted.internet.task import Clock

from benchmarks.test_micro import Sink
from dcm_ws.core.session import Origin
from dcm_ws.protocol.channels import parse_channel
from tests.fakes import make_core

POWERS = [10**power for power in range(1, 6)]
BENCH = parse_channel("topics/bench")


class Stage:
    """
    A core with clients that take everything.
    """

    def __init__(self) -> None:
        self.core = make_core(Clock(), max_connections=200_000, max_pending=1_000_000)

    def clients(self, number: int, channel: str | None = None) -> list[object]:
        """
        Connect C{number} more clients, each subscribed only to C{channel}.
        """
        made = []
        for _ in range(number):
            session = self.core.hub.connect(Sink(), Origin())
            assert session is not None
            self.core.registry.leave(session, "global")
            if channel is not None:
                self.core.registry.join(session, channel)
            made.append(session)
        return made


def connections(number: int) -> Callable[[], object]:
    stage = Stage()
    stage.clients(number)
    stage.clients(1, "topics/bench")
    return lambda: stage.core.router.announce(BENCH, "system.info", {})


def subscribers(number: int) -> Callable[[], object]:
    stage = Stage()
    stage.clients(number, "topics/bench")
    return lambda: stage.core.router.announce(BENCH, "system.info", {})


def channels(number: int) -> Callable[[], object]:
    stage = Stage()
    (session,) = stage.clients(1, "topics/bench")
    for channel in range(number):
        stage.core.registry.join(session, f"topics/{channel}")
    return lambda: stage.core.router.announce(BENCH, "system.info", {})


def pending(number: int) -> Callable[[], object]:
    stage = Stage()
    (session,) = stage.clients(1, "topics/bench")
    for _ in range(number):
        stage.core.router.announce(BENCH, "task.updated", {})

    def one_more() -> None:
        event = stage.core.router.announce(BENCH, "task.updated", {})
        assert stage.core.deliveries.ack(session, event)

    return one_more


def retry_with_nothing_due(number: int) -> Callable[[], object]:
    stage = Stage()
    stage.clients(1, "topics/bench")
    for _ in range(number):
        stage.core.router.announce(BENCH, "task.updated", {})
    return lambda: list(stage.core.retrying.sweep())


def message_size(number: int) -> Callable[[], object]:
    stage = Stage()
    (publisher,) = stage.clients(1)
    stage.clients(100, "topics/bench")
    message = {"type": "publish", "channel": "topics/bench", "event": "system.info", "data": "x" * number}
    text = json.dumps(message)
    return lambda: stage.core.interpreter.receive(publisher, text)  # type: ignore[attr-defined]


ROWS = [
    ("connections that are idle", "an event to one subscriber", connections),
    ("subscribers", "an event to all of them", subscribers),
    ("channels", "an event on one of them", channels),
    ("pending deliveries", "one more, and its ack", pending),
    ("pending deliveries", "a sweep with nothing due", retry_with_nothing_due),
    ("bytes of data", "a client's event to 100 subscribers", message_size),
]


def cost(step: Callable[[], object]) -> float:
    """
    Microseconds of CPU for one step: the least of several measurements.
    """
    times, best = 1, float("inf")
    while True:
        began = time.process_time()
        for _ in range(times):
            step()
        taken = time.process_time() - began
        if taken > 0.02:
            break
        times *= 4
    for _ in range(5):
        began = time.process_time()
        for _ in range(times):
            step()
        best = min(best, (time.process_time() - began) / times)
    return best * 1e6


def main() -> None:
    """
    Measure, print and draw.
    """
    parser = argparse.ArgumentParser(description="How the cost of the hot paths grows.")
    parser.add_argument("out", help="an SVG file")
    choices = parser.parse_args()
    gc.disable()
    figure, axes = pyplot.subplots(2, 3, figsize=(11, 6), layout="constrained")
    for (grows, what, make), axis in zip(ROWS, axes.flat, strict=True):
        costs = []
        for number in POWERS:
            costs.append(cost(make(number)))
            print(f"{what}: {number} {grows}: {costs[-1]:.2f} us", file=sys.stderr)
            gc.collect()
        axis.loglog(POWERS, costs, "o-", color="#2f5bea")
        axis.set_title(what, fontsize=10)
        axis.set_xlabel(grows)
        axis.set_ylabel("µs of CPU")
        axis.set_ylim(min(0.5, min(costs) / 2), max(100.0, max(costs) * 2))
        axis.grid(alpha=0.3)
    figure.savefig(choices.out, metadata={"Date": None})


if __name__ == "__main__":
    main()
