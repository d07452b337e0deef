"""
Debian's Chromium without windows, by its DevTools protocol.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.integration.machine import PATIENCE, debian_command, until

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--ignore-certificate-errors",
    "--remote-debugging-port=0",
)


class Page:
    """
    A tab.
    """

    def __init__(self, devtools: ClientConnection) -> None:
        self._devtools = devtools
        self._ids = itertools.count(1)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """
        A command of the protocol; returns its result.
        """
        number = next(self._ids)
        self._devtools.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            answer: dict[str, Any] = json.loads(self._devtools.recv(timeout=30))
            if answer.get("id") == number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def evaluate(self, expression: str) -> Any:
        """
        The value of a JavaScript expression; None if it fails.
        """
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """
        Wait until the expression is true.
        """
        until(lambda: self.evaluate(expression))


@contextlib.contextmanager
def chromium(host: str) -> Iterator[Page]:
    """
    A browser with one empty tab, for which C{host} is this machine.
    """
    folder = Path(tempfile.mkdtemp(prefix="dcm-ws-test-"))
    process = subprocess.Popen(
        [
            debian_command("chromium-headless-shell"),
            *FLAGS,
            f"--user-data-dir={folder}",
            f"--host-resolver-rules=MAP {host} 127.0.0.1",
            "about:blank",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # Debian's command is a script, which the browser outlives
        start_new_session=True,
    )
    assert process.stderr is not None
    # a full pipe would hold the browser up
    reading = threading.Thread(target=process.stderr.read, daemon=True)
    try:
        found = None
        for line in process.stderr:
            if found := re.search(r"DevTools listening on ws://([^/]*)/", line):
                break
        assert found is not None, "Chromium did not start"
        reading.start()
        with urllib.request.urlopen(f"http://{found[1]}/json/list", timeout=20) as answer:
            target = next(one for one in json.load(answer) if one["type"] == "page")
        with connect(target["webSocketDebuggerUrl"], max_size=None, proxy=None) as devtools:
            yield Page(devtools)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=PATIENCE)
        if reading.ident is not None:
            # what it has written to has no other end when all its processes have ended
            reading.join(PATIENCE)
            assert not reading.is_alive(), "Chromium did not end"
        shutil.rmtree(folder, ignore_errors=True)
