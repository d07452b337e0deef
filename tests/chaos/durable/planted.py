"""
Runs the service so that it keeps up its tables often, and with a bug in it if the environment names one:
C{python -m tests.chaos.durable.planted -n dcm-ws ...}.  With a number as its only argument it is that worker.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

from twisted.logger import Logger
from twisted.scripts.twistd import run

from dcm_ws.app import worker, worker_process
from dcm_ws.brokers import handovers
from dcm_ws.brokers.bus_base import BaseBus
from dcm_ws.brokers.handovers import read_question
from dcm_ws.core.ownership import Ownership
from dcm_ws.postgres import upkeep
from tests.chaos.durable import cluster_bugs, engine_bugs  # noqa: F401 - they add their bugs
from tests.chaos.durable.bugs import BUGS
from tests.chaos.durable.service import BUG_VARIABLE, CAME_BACK, PROGRAM, TURN_VARIABLE, UNANSWERED

_KEEP = 86_400
"""
Seconds for which the log keeps events by default.
"""

_log = Logger(namespace="tests.chaos")


def main() -> None:
    """
    Change what the environment says, and run twistd, or a worker.
    """
    if turn := float(os.environ.get(TURN_VARIABLE) or 0):
        upkeep.LOOK_SECONDS = min(turn / 3, upkeep.LOOK_SECONDS)
        upkeep.TURN_SECONDS = turn
        upkeep.PARTS = int(_KEEP / (3 * turn))
    if name := os.environ.get(BUG_VARIABLE):
        BUGS[name].plant()
    setattr(BaseBus, "ask", _told(BaseBus.ask))  # noqa: B010
    setattr(Ownership, "take_over", _noted(Ownership.take_over))  # noqa: B010
    setattr(worker_process, "PROGRAM", PROGRAM)  # noqa: B010
    if sys.argv[1:] and sys.argv[1].isdecimal():
        worker.main()
        return
    sys.argv[0] = "twistd"
    run()


def _told(good: Callable[..., None]) -> Callable[..., None]:
    """
    Ask another node, and log if one that was asked for an agent has not answered.
    """

    def ask(
        self: BaseBus, node: str, topic: str, message: bytes, timeout: float, ready: Callable[[bytes | None], object]
    ) -> None:
        asked: Any = read_question(message) if topic == handovers.TOPIC else None

        def answered(answer: bytes | None) -> None:
            if answer is None and asked is not None:
                _log.info("{what} {agent} {at}", what=UNANSWERED, agent=asked.agent, at=time.monotonic())
            ready(answer)

        good(self, node, topic, message, timeout, answered)

    return ask


def _noted(good: Callable[..., None]) -> Callable[..., None]:
    """
    Take an agent, and log if connections of it have stayed here while another node had it.
    """

    def take_over(self: Ownership, agent: str, *positional: Any) -> None:
        if self.is_connected(agent):
            _log.info("{what} {agent} {at}", what=CAME_BACK, agent=agent, at=time.monotonic())
        good(self, agent, *positional)

    return take_over


if __name__ == "__main__":
    main()
