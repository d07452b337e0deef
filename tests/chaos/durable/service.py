"""
The service as a process that is ended and started again, always on the same port.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.integration.machine import ROOT, free_port
from tests.integration.tokens import SECRET

BUG_VARIABLE = "DCM_WS_TEST_BUG"
"""
Names the bug that is planted into the service.
"""

TURN_VARIABLE = "DCM_WS_TEST_TURN"
"""
Seconds after which the service writes another slot of the inbox, and begins another partition of the log.
"""
_PATIENCE = 30.0


class ServiceProcess:
    """
    dcm-ws in production, which writes its log to a file.

    @param turn: as in L{TURN_VARIABLE}.
    @param bug: the name of a bug of L{tests.chaos.durable.bugs} that is planted into it; empty for none.
    """

    def __init__(self, folder: Path, url: str, *options: str, turn: float, bug: str = "") -> None:
        self.port = free_port()
        self.log = folder / "service.log"
        self._variables = {
            "WS_AUTH_SECRET": SECRET,
            BUG_VARIABLE: bug,
            TURN_VARIABLE: str(turn),
            "PYTHONPATH": str(ROOT),
        }
        self._options = (
            *("--listen", f"tcp:{self.port}:interface=127.0.0.1", "--production", "--database-url", url),
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
                [sys.executable, "-m", "tests.chaos.durable.planted", "-n", "--pidfile=", "dcm-ws", *self._options],
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
        try:
            with _opener.open(f"http://127.0.0.1:{self.port}/{page}", timeout=5) as response:
                answer: dict[str, Any] = json.load(response)
                return answer
        except (OSError, ValueError):
            return None


_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
