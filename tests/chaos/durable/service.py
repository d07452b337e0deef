"""
The service, or a node of a cluster, as a process that is ended and started again, always on the same port.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.chaos.durable.connections import Address
from tests.chaos.durable.history import Moment
from tests.chaos.durable.networks import Place
from tests.integration.machine import ROOT, free_port
from tests.integration.tokens import SECRET, make_token

BUG_VARIABLE = "DCM_WS_TEST_BUG"
"""
Names the bug that is planted into the service.
"""

TURN_VARIABLE = "DCM_WS_TEST_TURN"
"""
Seconds after which the service writes another slot of the inbox, and begins another partition of the log.
"""

PROGRAM = "tests.chaos.durable.planted"
"""
The module that runs as the service, and as its workers.
"""

UNANSWERED = "another node did not answer for an agent:"
"""
Stands in the log before the name of the agent and the time, if an agent was taken without an answer of its node.
"""

CAME_BACK = "connections here get back their agent:"
"""
The same, if an agent was taken back from another node, of which connections stayed here meanwhile.
"""
_PATIENCE = 30.0


class ServiceProcess:
    """
    dcm-ws in production, which writes its log to a file.

    @param turn: as in L{TURN_VARIABLE}.
    @param bug: the name of a bug of L{tests.chaos.durable.bugs} that is planted into it; empty for none.
    @param name: of the node.
    @param place: where it runs.
    @ivar address: where clients reach it.
    """

    def __init__(
        self, folder: Path, url: str, *options: str, turn: float, bug: str = "", name: str, place: Place
    ) -> None:
        self.name = name
        self.place = place
        self.address = Address(place.inside("clients"), free_port(), name)
        self.log = folder / f"{name}.log"
        self._variables = {
            "WS_AUTH_SECRET": SECRET,
            BUG_VARIABLE: bug,
            TURN_VARIABLE: str(turn),
            "PYTHONPATH": str(ROOT),
        }
        self._options = (
            *("--listen", f"tcp:{self.address.port}:interface={place.interface}", "--production"),
            *("--database-url", url.replace("127.0.0.1", place.outside("database"))),
            *("--rate-limit", "off", "--rate-bytes", "off", *options),
        )
        self._process: subprocess.Popen[bytes] | None = None
        self.statuses: list[int] = []

    def start(self) -> None:
        """
        Start it, and wait until it listens.
        """
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("DB_", "DATABASE_", "WS_"))}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(*self.place.prefix, sys.executable, "-m", PROGRAM),
                    *("-n", "--pidfile=", "dcm-ws", *self._options),
                ],
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env=clean | self._variables,
            )
        end = time.monotonic() + _PATIENCE
        while self.get("health") is None:
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the service did not start:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.05)

    def kill(self) -> None:
        """
        End it without warning.
        """
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """
        Tell it to stop, and wait for its end.
        """
        assert self._process is not None
        self._process.terminate()
        try:
            self.statuses.append(self._process.wait(_PATIENCE))
        except subprocess.TimeoutExpired:
            self.statuses.append(-1)
            self.kill()

    def freeze(self) -> None:
        """
        Let it not run.
        """
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """
        Let it run again.
        """
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def workers(self) -> list[int]:
        """
        The processes of its workers that run.
        """
        stats = self.get("stats") or {}
        return [one["pid"] for one in stats.get("workers", ()) if one["pid"]]

    def moments(self, what: str) -> list[Moment]:
        """
        When L{UNANSWERED} or L{CAME_BACK} was logged, and of which agent.
        """
        found = re.findall(rf"{what} (\S+) ([0-9.]+)$", self.log.read_text(errors="replace"), re.MULTILINE)
        return [Moment(float(at), agent) for agent, at in found]

    def end(self) -> None:
        """
        Leave no process behind.
        """
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def get(self, page: str) -> dict[str, Any] | None:
        """
        The JSON of C{/health} or C{/stats}; None if the service does not answer.
        """
        url = f"http://{self.place.inside('control')}:{self.address.port}/{page}"
        # names of agents are not for everybody
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {make_token('judge')}"})
        try:
            with _opener.open(request, timeout=5) as response:
                answer: dict[str, Any] = json.load(response)
                return answer
        except (OSError, ValueError):
            return None


_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
