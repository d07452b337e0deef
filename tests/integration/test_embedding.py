"""
dcm-ws as a part of somebody else's application: the example of the documentation.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from tests.integration.clients import ask, close_of, hear, say
from tests.integration.machine import PATIENCE, until

pytestmark = pytest.mark.integration

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "embedded_app.py"

REDRIVING = """
import sys
from twisted.internet import reactor
from twisted.internet.task import LoopingCall
from twisted.logger import globalLogBeginner, textFileLogObserver
from dcm_ws import Settings, make_service

globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)])
service = make_service(
    Settings(listen=("tcp:0:interface=127.0.0.1",), ack_timeout=0.2, retry_interval=0.05), reactor
)

def redrive():
    for letter in service.hub.dead_letters("ann"):
        if letter.redriven_at is None:
            print("dead:", letter.event, letter.data.decode(), letter.reason, letter.deliveries)
            print("redriven:", *service.hub.redrive("ann"), flush=True)

LoopingCall(redrive).start(0.1)
service.startService()
reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
reactor.run()
"""


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
            with urllib.request.urlopen(f"http://127.0.0.1:{web[1]}/", b"paint the fence", timeout=PATIENCE) as answer:
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


def test_dead_letters() -> None:
    """
    An application sees which events an agent did not acknowledge, and has them sent to it again.
    """
    application = subprocess.Popen(
        [sys.executable, "-c", REDRIVING], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert application.stdout is not None
        log = ""
        while (websocket := re.search(r"listening on ws(://127\.0\.0\.1:\d+/)", log)) is None:
            line = application.stdout.readline()
            assert line, log
            log += line
        with connect("ws" + websocket[1]) as client:
            assert hear(client)["type"] == "connected"
            say(client, type="auth", agent_id="ann", durable=True)
            say(client, type="publish", channel="global", event="task.created", data={"n": 1})
            tasks: list[Any] = []
            while len(tasks) < 4:
                frame = hear(client)
                if frame.get("event") == "task.created":
                    tasks.append(frame)
            say(client, type="ack", message_id=tasks[0]["id"])
            until(lambda: _stats(websocket[1])["deadLetters"]["kept"] == 0)
        assert tasks[1:] == tasks[:1] * 3
        figures = _stats(websocket[1])
        assert (figures["deadLetters"]["died"], figures["deadLetters"]["redriven"]) == (1, 1)
        application.send_signal(signal.SIGTERM)
        rest, _ = application.communicate(timeout=30)
        log += rest
    finally:
        application.kill()
        application.wait()
    assert 'dead: task.created {"n":1} attempts 3' in log.replace('{"n": 1}', '{"n":1}')
    assert "redriven: 1 1" in log


def _stats(url: str) -> Any:
    with urllib.request.urlopen(f"http{url}stats", timeout=PATIENCE) as answer:
        return json.load(answer)
