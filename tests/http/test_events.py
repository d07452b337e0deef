"""
The ledger of one event over HTTP, without a port.
"""

from __future__ import annotations

import json

import pytest

from dcm_ws.http.events import EventPage
from tests.fakes import make_gate
from tests.http.test_operators import AGENT, OPERATOR, Api


def api(**rules: object) -> Api:
    made = Api(**rules)
    made.put(b"v1/events", EventPage(made.core.world.wall_ms, make_gate(made.core), made.core.events))
    return made


def test_ledger_of_an_event() -> None:
    """
    Operators see what became of it at each agent, a page of agents at a time.
    """
    service = api()
    clients = [service.worker(name) for name in ("ann", "bob", "cy/d")]
    event_id = service.publish()
    clients[1].say(type="ack", message_id=event_id)
    page = service.json(f"/v1/events/{event_id}?limit=2")
    assert [(one["agent_id"], one["state"], one["sent"]) for one in page["agents"]] == [
        ("ann", "sent", 1),
        ("bob", "acknowledged", 1),
    ]
    assert (page["id"], page["pos"], page["total"], page["next"]) == (event_id, 1, 3, "bob")
    rest = service.json(f"/v1/events/{event_id}?limit=2&after=bob")
    assert [one["agent_id"] for one in rest["agents"]] == ["cy/d"]
    assert "next" not in rest
    only = service.json(f"/v1/events/{event_id}?agent=cy%2Fd")
    assert [one["agent_id"] for one in only["agents"]] == ["cy/d"]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/events/msg_none", 404, "NOT_FOUND"),
        ("/v1/events", 400, "INVALID_MESSAGE"),
        ("/v1/events/" + 65 * "x", 400, "INVALID_MESSAGE"),
        ("/v1/events/%00", 400, "INVALID_MESSAGE"),
        ("/v1/events/%ff", 400, "INVALID_MESSAGE"),
        ("/v1/events/x?limit=0", 400, "INVALID_MESSAGE"),
        ("/v1/events/x?agent=%ff", 400, "INVALID_MESSAGE"),
    ],
)
def test_what_is_not_there_or_malformed(path: str, status: int, code: str) -> None:
    """
    The answer says so.
    """
    answer = api().get(path)
    assert (answer[0], json.loads(answer[2])["code"]) == (status, code)


def test_for_operators() -> None:
    """
    In production, it takes an operator's token.
    """
    service = api(production=True)
    for token, status in (("", 401), (AGENT, 403), (OPERATOR, 404)):
        assert service.get(f"/v1/events/x?token={token}")[0] == status
