"""
What agents are owed over crashes of the service, end to end: the service as its users run it, its database, its clients
and its commands.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.cli.running import run
from tests.integration.clients import Client, answer_to, ask_past_events, hear, say
from tests.integration.databases import PostgresServer
from tests.integration.machine import until
from tests.integration.running import Service, service

pytestmark = pytest.mark.integration


def started(server: PostgresServer, *options: str) -> Any:
    return service("--database-url", server.url, "--log", "postgres", *options)


def worker(running: Service, agent: str, *channels: str) -> Client:
    """
    A durable agent that has subscribed to some more channels.
    """
    client = running.connect()
    ask_past_events(client, type="unsubscribe", channel="global", id="left")
    say(client, type="auth", agent_id=agent, durable=True, id="auth")
    answer = answer_to(client, "auth")
    assert answer["success"], answer
    for channel in channels:
        ask_past_events(client, type="subscribe", channel=channel, id=channel)
    return client


def receive(client: Client, number: int) -> list[dict[str, Any]]:
    """
    The next events, which may have to be read in the database; there must be so many of them.
    """
    events: list[dict[str, Any]] = []
    while len(events) < number:
        if "event" in (frame := hear(client)):
            events.append(frame)
    say(client, type="ping", id="now")
    while (frame := hear(client)).get("type") != "pong":
        if "event" in frame:
            events.append(frame)
    return events


def data_of(events: list[dict[str, Any]]) -> list[Any]:
    return [event["data"] for event in events]


def publish(running: Service, *data: Any, channel: str = "topics/t") -> None:
    with running.connect() as client:
        for one in data:
            ask_past_events(client, type="publish", channel=channel, event="task.created", data=one, id="p")


def flushed(running: Service, server: PostgresServer) -> None:
    """
    Wait until all that has happened is written.
    """
    before = running.stats()["journal"]["flushes"]
    # one may have begun already
    until(lambda: running.stats()["journal"]["flushes"] >= before + 2)


def killed(running: Service) -> None:
    running.stop(signal.SIGKILL)


def test_kill_and_restart(tables: PostgresServer, tmp_path: Path) -> None:
    """
    After kill -9, an agent gets exactly what it had not acknowledged, from all channels that it was subscribed to,
    and what was published meanwhile; what it acknowledged before the last flush does not come again.
    """
    with started(tables) as running:
        ann = worker(running, "ann", "topics/t", "topics/u")
        publish(running, 0, 1, 2)
        publish(running, 3, channel="topics/u")
        events = receive(ann, 4)
        assert data_of(events) == [0, 1, 2, 3]
        for event in events[:2]:
            say(ann, type="ack", message_id=event["id"])
        flushed(running, tables)
        killed(running)
    # nobody listens now
    tables.execute("select dcm_ws.publish('topics/u', 'task.created', '4')")
    listed = run(tmp_path, "agents", "ann", "--json", DATABASE_URL=tables.url)
    assert listed.returncode == 0, listed.stderr
    shown = json.loads(listed.stdout)
    assert shown["owed"] == 2 and set(shown["channels"]) == {"agents/ann", "topics/t", "topics/u"}
    with started(tables) as running:
        ann = worker(running, "ann")
        publish(running, 5)
        assert data_of(receive(ann, 4)) == [2, 3, 4, 5]


def test_stop_and_restart(tables: PostgresServer) -> None:
    """
    A service that stops in order writes everything: no ack is repeated.
    """
    with started(tables) as running:
        ann = worker(running, "ann", "topics/t")
        publish(running, 0, 1)
        first, _ = receive(ann, 2)
        say(ann, type="ack", message_id=first["id"])
        assert running.stop() == 0
    with started(tables) as running:
        assert data_of(receive(worker(running, "ann"), 1)) == [1]


def test_the_database_restarts(tables: PostgresServer) -> None:
    """
    What agents acknowledge while the database is away is written when it is back.
    """
    with started(tables) as running:
        ann = worker(running, "ann", "topics/t")
        publish(running, 0, 1, 2)
        events = receive(ann, 3)
        say(ann, type="ack", message_id=events[0]["id"])
        flushed(running, tables)
        tables.stop("immediate")
        try:
            say(ann, type="ack", message_id=events[1]["id"])
            until(lambda: running.health()["database"]["state"] == "down")
        finally:
            tables.start()
        flushed(running, tables)
        killed(running)
    with started(tables) as running:
        assert data_of(receive(worker(running, "ann"), 1)) == [2]


def test_dead_letters(tables: PostgresServer, tmp_path: Path) -> None:
    """
    A dead letter is listed after a restart; redriven, it goes to its agent only; acknowledged, it is gone.
    """
    url = {"DATABASE_URL": tables.url}
    quick = ("--ack-timeout", "0.3", "--max-attempts", "1")
    with started(tables, *quick) as running:
        ann = worker(running, "ann", "topics/t")
        publish(running, {"n": 1}, {"n": 2})
        until(lambda: running.stats()["deadLetters"]["kept"] == 2)
        flushed(running, tables)
        killed(running)
    with started(tables) as running:
        ann = worker(running, "ann")
        ben = worker(running, "ben", "topics/t")
        assert receive(ann, 0) == []
        listed = run(tmp_path, "dead", "list", "--json", **url).stdout.splitlines()
        first, second = map(json.loads, listed)
        assert (first["agent"], first["data"], first["reason"]) == ("ann", {"n": 1}, "attempts")
        done = run(tmp_path, "dead", "redrive", first["event_id"], "--wait", "3", "--json", **url)
        assert json.loads(done.stdout) == {"letters": 1, "taken": 1, "acknowledged": 0}, done.stderr
        (event,) = receive(ann, 1)
        assert (event["id"], event["data"]) == (first["event_id"], {"n": 1})
        assert receive(ben, 0) == []
        say(ann, type="ack", message_id=event["id"])
        done = run(tmp_path, "dead", "purge", "--yes", second["event_id"], "--wait", "30", "--json", **url)
        assert json.loads(done.stdout) == {"letters": 1, "purged": 1}, done.stderr
        flushed(running, tables)
        assert run(tmp_path, "dead", "list", **url).stderr == "no dead letters\n"
