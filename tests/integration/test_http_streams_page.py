"""
The commands of docs/http-streams.md do what the page says.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.integration.browser import chromium
from tests.integration.machine import until
from tests.integration.running import Service, service

pytestmark = pytest.mark.integration

PAGE = (Path(__file__).parents[2] / "docs" / "http-streams.md").read_text()
CONSOLE = re.compile(r"```console\n(.*?)```", re.DOTALL)
SCRIPT = re.compile(r"```js\n(.*?)```", re.DOTALL)
SECONDS = 60


class BadGateway(BaseHTTPRequestHandler):
    """
    A proxy whose service is away.
    """

    asked = threading.Event()

    def do_GET(self) -> None:
        self.send_error(502)
        self.asked.set()

    def log_message(self, format: str, *args: Any) -> None:
        pass


def pattern_of(shown: str) -> str:
    """
    What matches the output that a page shows; an ellipsis stands for anything in its line.
    """
    return r"\s+".join(re.escape(line).replace("…", ".*?") for line in shown.split("\n") if line)


def test_commands() -> None:
    """
    Run in order against one service, each block prints what is below it.
    """
    blocks = CONSOLE.findall(PAGE)
    assert len(blocks) >= 8
    program = Path(sys.executable).with_name("dcm-ws")
    with service("--heartbeat-interval", "1") as running:
        for block in blocks:
            commands = [line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ ")]
            shown = "\n".join(line for line in block.splitlines() if not line.startswith("$ "))
            script = "\n".join(commands).replace("localhost:3849", f"127.0.0.1:{running.port}")
            script = script.replace("dcm-ws publish", f"{program} publish --url ws://127.0.0.1:{running.port}/ ")
            # what publishes prints an id, which the page leaves out
            script = re.sub(r"(publish [^\n)]*)", r"\1 > /dev/null", script)
            done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=SECONDS, check=False)
            # curl says 28 if its time is up
            assert done.returncode in (0, 28), done.stderr
            printed = done.stdout.replace("\r", "")
            assert re.match(pattern_of(shown), printed) if shown else printed == "", (block, printed)


def test_page_behind_a_proxy() -> None:
    """
    The script for pages behind a proxy goes on after an error of the proxy, which ends an C{EventSource}.
    """
    script = next(found for found in SCRIPT.findall(PAGE) if "setTimeout" in found)
    with service() as running:
        port = running.port
    script = (
        f"got = []; gaps = []; show = (one) => got.push(one.data); reload = (reason) => gaps.push(reason); {script}"
    )
    with chromium("localhost") as page:
        with service("--ws-port", str(port)) as running:
            page.call("Page.navigate", url=f"http://localhost:{port}/livez")
            page.wait_for(f"location.port === '{port}' && document.readyState === 'complete'")
            page.evaluate(script.replace("localhost:3849", f"localhost:{port}"))
            until(lambda: running.stats()["connections"]["eventStream"] == 1)
            publish(running, 1)
            page.wait_for("got.length === 1")
        proxy = HTTPServer(("127.0.0.1", port), BadGateway)
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        assert BadGateway.asked.wait(SECONDS)
        proxy.shutdown()
        proxy.server_close()
        with service("--ws-port", str(port)) as running:
            publish(running, 2)
            page.wait_for("got.length === 2")
            # the log in memory is another one
            assert page.evaluate("JSON.stringify([got, gaps])") == '[[1,2],["epoch"]]'


def publish(running: Service, data: int) -> None:
    """
    Publish to the channel of the page.
    """
    event = f'{{"channel":"topics/builds","event":"task.updated","data":{data}}}'
    with urllib.request.urlopen(f"http://127.0.0.1:{running.port}/v1/publish", event.encode(), timeout=SECONDS) as done:
        assert done.status == 200
