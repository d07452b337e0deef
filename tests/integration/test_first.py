from __future__ import annotations

import signal

import pytest

from tests.integration.clients import ask, hear
from tests.integration.databases import PostgresServer
from tests.integration.running import service

pytestmark = pytest.mark.integration


def test_notification_reaches_every_client(database: PostgresServer) -> None:
    """
    What psql notifies, every connected client hears; SIGTERM ends the service with status 0.
    """
    with service("--database-url", database.url) as running:
        one, two = running.connect(), running.connect("/ws")
        database.notify('{"channel":"topics/deployments","event":"task.completed","data":{"task_id":"1"}}')
        for client in (one, two):
            event = hear(client)
            assert event["channel"] == "global"
            assert event["event"] == "task.completed"
            assert event["data"] == {"task_id": "1"}
        assert ask(one, type="subscribe", channel="metrics", id=1)["success"] is True
        assert hear(one)["event"] == "metric.update"
        assert running.stop(signal.SIGTERM) == 0
