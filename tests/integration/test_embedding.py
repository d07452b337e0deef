"""
dcm-ws as a part of somebody else's application: the example of the documentation.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.integration.clients import ask, close_of, hear, say

pytestmark = pytest.mark.integration

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "embedded_app.py"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_example_application(how: signal.Signals) -> None:
    """
    The application's own site works, what it publishes reaches WebSocket clients, and a signal stops all of it cleanly,
    with close code 1012 for the clients.
    """
    application = subprocess.Popen(
        [sys.executable, str(EXAMPLE), "0", "0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert application.stdout is not None
        log = ""
        while "] ready" not in log:
            line = application.stdout.readline()
            assert line, log
            log += line
        websocket = re.search(r"listening on (ws://127\.0\.0\.1:\d+/)", log)
        web = re.search(r"Site starting on (\d+)", log)
        assert websocket is not None and web is not None, log

        with connect(websocket[1]) as client:
            assert hear(client)["type"] == "connected"
            assert ask(client, type="subscribe", channel="topics/tasks", id=1)["success"] is True
            with urllib.request.urlopen(f"http://127.0.0.1:{web[1]}/", b"paint the fence", timeout=10) as answer:
                assert (answer.status, answer.read()) == (201, b"task 1\n")
            for channel in "topics/tasks", "global":
                event = hear(client)
                assert (event["channel"], event["event"]) == (channel, "task.created")
                assert event["data"] == {"task_id": 1, "text": "paint the fence"}
            say(client, type="ack", message_id=event["id"])

            application.send_signal(how)
            assert close_of(client)[0] == 1012
        rest, _ = application.communicate(timeout=30)
        log += rest
    finally:
        application.kill()
        application.wait()
    assert "Traceback" not in log, log
    assert "Unhandled" not in log, log
    assert "] stopped" in log
