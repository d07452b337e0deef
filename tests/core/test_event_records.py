"""
What operators see of one event.
"""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.internet.task import Clock

from dcm_ws.core.assembly import Core
from dcm_ws.core.event_records import event_fields, sender_of
from dcm_ws.protocol.channels import parse_channel
from dcm_ws.protocol.replies import from_field
from tests.core.clients import TASK
from tests.core.living import live
from tests.core.test_ledger import agent
from tests.fakes import WALL_MS, make_core


def test_event_with_what_became_of_it(clock: Clock, core: Core) -> None:
    """
    By its id: who published it, where and when, and its fate at each agent.
    """
    ann, bob = agent(core), agent(core, "bob")
    event_id = ann.say(**TASK, id=1)[-1]["message_id"]
    live(core, clock, 1)
    bob.say(type="ack", message_id=event_id)
    record = core.events.event(event_id)
    assert record is not None
    assert event_fields(record, record.fates[1:]) == {
        "id": event_id,
        "pos": 1,
        "channel": "topics/t",
        "event": "task.created",
        "timestamp": WALL_MS,
        "from": "ann",
        "tracked": True,
        "total": 2,
        "agents": [
            {
                "agent_id": "bob",
                "state": "acknowledged",
                "sent": 1,
                "first_sent_at": WALL_MS,
                "last_sent_at": WALL_MS,
                "acknowledged_at": WALL_MS + 1000,
                "died_at": None,
                "reason": None,
                "redriven_at": None,
                "history": [{"at": WALL_MS, "what": "sent"}, {"at": WALL_MS + 1000, "what": "acknowledged"}],
            }
        ],
    }


def test_history_says_why_it_died(clock: Clock, core: Core) -> None:
    agent(core)
    event_id = core.application_hub.announce(parse_channel("topics/t"), "task.created", None)
    live(core, clock, 16)
    record = core.events.event(event_id)
    assert record is not None
    fates: Any = event_fields(record, record.fates)["agents"]
    (fate,) = fates
    assert (fate["reason"], fate["history"][-1]) == (
        "attempts",
        {"at": WALL_MS + 15_000, "what": "dead", "reason": "attempts"},
    )
    assert record.sender is None


def test_event_that_the_log_does_not_have(clock: Clock) -> None:
    """
    It never had it, or it has left it; or it was not logged.
    """
    core = make_core(clock, max_events=2)
    client = agent(core)
    first = client.say(**TASK, id=1)[-1]["message_id"]
    beat = client.say(**(TASK | {"event": "agent.heartbeat"}), id=2)[-1]["message_id"]
    assert core.events.event(first) is not None
    for _ in range(3):
        client.say(**TASK)
    assert core.events.event(first) is None
    assert core.events.event(beat) is None
    assert core.events.event("msg_none") is None


def test_sender_is_the_agent_that_a_field_names() -> None:
    """
    Whatever its name; what somebody has written by hand names nobody.
    """
    for name in ("ann", 'a "b" \\ ü'):
        assert sender_of(from_field(name).decode()) == name
    assert sender_of(None) is None
    assert sender_of("") is None
    assert sender_of(",{") is None
    assert sender_of(msgspec.json.encode("x").decode()) is None
