"""
What operators see and do over HTTP, without a port.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from dcm_ws.http.bodies import Bodies
from dcm_ws.http.dead import DeadPage, RedrivePage
from dcm_ws.http.operators import AgentsPage, PresencePage
from dcm_ws.http.partial import Holder, PartialMessages
from dcm_ws.protocol.channels import Channels
from dcm_ws.protocol.tokens import sign
from tests.core.living import live
from tests.fakes import SECRET, WALL_MS, Client, make_gate
from tests.http.service import Service
from tests.http.test_publish import read

OPERATOR = sign(SECRET, "boss", None, WALL_MS, scope=("operator",))
AGENT = sign(SECRET, "ann", None, WALL_MS)


class Api(Service):
    """
    A service with the calls for operators.
    """

    def __init__(self, **rules: Any) -> None:
        super().__init__(**rules)
        core, gate = self.core, make_gate(self.core)
        wall_ms = core.world.wall_ms
        self.put(b"v1/channels", PresencePage(wall_ms, gate, Channels(), core.whereabouts))
        self.put(
            b"v1/agents",
            AgentsPage(wall_ms, gate, core.records, core.whereabouts, core.expulsion, lambda: core.log.head),
        )
        self.put(b"v1/dead", DeadPage(wall_ms, gate, core.records))
        self.put(b"v1/dead/redrive", RedrivePage(wall_ms, gate, core.records))
        limits = core.counts.limits
        partial: PartialMessages[Holder] = PartialMessages(1 << 20, limits.max_partial_bytes)
        self.site.bodies = Bodies({b"v1/dead/redrive": 1000}, limits, partial)

    def worker(self, agent: str) -> Client:
        """
        A durable agent of C{topics/a} only.
        """
        client = Client(self.core)
        client.auth(agent, durable=True)
        client.say(type="subscribe", channel="topics/a")
        client.say(type="unsubscribe", channel="global")
        client.peer.take()
        return client

    def publish(self) -> str:
        """
        Publish a task; return its id.
        """
        session = self.core.callers.admit(None, None, "")
        return self.core.publishing.publish(session, "topics/a", "task.created", b'{"n":1}').id

    def post(self, body: bytes) -> tuple[int, Any]:
        """
        Ask for a redrive.
        """
        protocol: Any = self.site.buildProtocol(None)
        from twisted.internet.testing import StringTransport

        transport = StringTransport()
        protocol.makeConnection(transport)
        head = f"POST /v1/dead/redrive HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        protocol.dataReceived(head.encode() + body)
        return read(transport)


@pytest.mark.parametrize("path", ["/v1/channels/global/presence", "/v1/agents", "/v1/agents/ann", "/v1/dead"])
def test_for_operators(path: str) -> None:
    """
    In production, these calls take an operator's token.
    """
    api = Api(production=True)
    for token, status, code in (("", 401, "TOKEN_REQUIRED"), (AGENT, 403, "NOT_AUTHORIZED")):
        answer = api.get(f"{path}?token={token}")
        assert (answer[0], json.loads(answer[2])["code"]) == (status, code)
    assert api.get(f"{path}?token={OPERATOR}")[0] in (200, 404)


def test_presence() -> None:
    """
    Operators see who is subscribed to a channel, whose name may have slashes.
    """
    api = Api()
    api.worker("ann")
    for path in ("/v1/channels/topics/a/presence", "/v1/channels/topics%2Fa/presence"):
        presence = api.json(path)
        assert (presence["channel"], presence["total"], presence["missing"]) == ("topics/a", 1, [])
        assert presence["connections"][0]["agent_id"] == "ann"
    assert api.get("/v1/channels/nowhere/presence")[0] == 400
    assert api.get("/v1/channels/topics/a")[0] == 404
    assert api.get("/v1/channels/%ff/presence")[0] == 400


def test_agents() -> None:
    """
    Operators see the agents a page at a time.
    """
    api = Api()
    clients = [api.worker(name) for name in ("ann", "bob", "cy")]
    api.publish()
    clients[1].leave()
    page = api.json("/v1/agents?limit=2")
    assert page["next"] == "bob"
    assert page["agents"] == [
        {
            "agent_id": name,
            "connected": connected,
            "connections": int(connected),
            "left": None if connected else WALL_MS,
            "durable": True,
            "owed": 1,
            "dead": 0,
            "sent": 1,
            "acknowledged": 0,
            "behind": 0,
        }
        for name, connected in (("ann", True), ("bob", False))
    ]
    rest = api.json("/v1/agents?after=bob")
    assert [agent["agent_id"] for agent in rest["agents"]] == ["cy"]
    assert "next" not in rest


def test_agent() -> None:
    """
    Operators see all that is known of an agent: its connections, its channels, and what it has not acknowledged.
    """
    api = Api()
    client = api.worker("team/ann")
    event = api.publish()
    agent = api.json("/v1/agents/team/ann")
    assert [one["client_id"] for one in agent["clients"]] == [client.session.client_id]
    assert agent["channels"] == {"agents/team/ann": 1, "topics/a": 1}
    assert agent["unacknowledged"] == [{"pos": 1, "id": event, "sent": 1}]
    assert api.json("/v1/agents/team%2Fann") == agent
    client.leave()
    api.publish()
    agent = api.json("/v1/agents/team/ann")
    assert (agent["connected"], agent["clients"], agent["behind"]) == (False, [], 1)
    assert api.get("/v1/agents/nobody")[0] == 404
    assert api.get("/v1/agents/%00")[0] == 400


def test_agent_that_is_not_recorded_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    An agent that has just connected is shown, also if the database does not have it yet.
    """
    api = Api()
    api.worker("ann")
    monkeypatch.setattr(type(api.core.records), "agent", lambda self, name: None)
    agent = api.json("/v1/agents/ann")
    assert (agent["connected"], agent["channels"], agent["unacknowledged"]) == (True, {}, [])


def test_dead_letters() -> None:
    """
    Operators list dead letters a page at a time, and have them sent again.
    """
    api = Api()
    api.worker("ann")
    ids = []
    for _ in range(3):
        ids.append(api.publish())
        live(api.core, api.reactor, 20)
    page = api.json("/v1/dead?limit=2&agent=ann&reason=attempts")
    assert [letter["id"] for letter in page["letters"]] == ids[:2]
    assert (page["letters"][0]["data"], page["letters"][0]["redriven_at"]) == ({"n": 1}, None)
    rest = api.json(f"/v1/dead?after={page['next']}")
    assert [letter["id"] for letter in rest["letters"]] == ids[2:]
    assert "next" not in rest
    assert api.post(json.dumps({"ids": ids[:1]}).encode()) == (200, {"letters": 1})
    assert api.post(b"") == (200, {"letters": 2})
    assert api.post(b"{}") == (200, {"letters": 0})
    assert api.json("/v1/dead")["letters"][0]["redriven_at"] is not None


@pytest.mark.parametrize(
    "path",
    [
        "/v1/agents?limit=0",
        "/v1/agents?limit=1001",
        "/v1/agents?limit=x",
        "/v1/agents?limit=%C2%B2",
        "/v1/agents?after=%ff",
        # PostgreSQL has no text with it
        "/v1/agents?after=%00",
        "/v1/dead?id=a%00",
        "/v1/dead?reason=other",
        "/v1/dead?agent=%00",
        "/v1/dead?since=-1",
        "/v1/dead?after=x",
        "/v1/dead?after=1.2",
        "/v1/dead?after=1.x.ann",
        "/v1/dead?after=9999999999999999.1.ann",
    ],
)
def test_malformed_parameters(path: str) -> None:
    """
    A malformed parameter is refused, and named.
    """
    api = Api()
    status, _, body = api.get(path)
    answer = json.loads(body)
    assert (status, answer["code"]) == (400, "INVALID_MESSAGE")
    assert answer["error"].startswith(f"Malformed {path.partition('?')[2].partition('=')[0]}")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"x", "PARSE_ERROR"),
        (b"[]", "INVALID_MESSAGE"),
        (b'{"other":1}', "INVALID_MESSAGE"),
        (b'{"limit":0}', "INVALID_MESSAGE"),
        (b'{"agent":""}', "INVALID_MESSAGE"),
        (b'{"ids":["a\\u0000"]}', "INVALID_MESSAGE"),
        (b'{"agent":"%b"}' % (b"x" * 1000), "TOO_LARGE"),
    ],
)
def test_redrives_that_are_refused(body: bytes, code: str) -> None:
    """
    A redrive that is not understood does nothing.
    """
    assert Api().post(body)[1]["code"] == code


def test_disconnecting() -> None:
    """
    An operator closes the connections of an agent, and may revoke its tokens.
    """
    api = Api(production=True)
    client = Client(api.core)
    client.say(type="auth", token=sign(SECRET, "team/ann", None, WALL_MS))
    path = "/v1/agents/team/ann/connections"
    for given, status in ((None, 401), (AGENT, 403)):
        headers = {} if given is None else {"Authorization": f"Bearer {given}"}
        assert api.get(path, "DELETE", **headers)[0] == status
    operator = {"Authorization": f"Bearer {OPERATOR}"}
    expected = {"agent_id": "team/ann", "closed": 1, "revoked_at": WALL_MS, "missing": []}
    assert json.loads(api.get(f"{path}?revoke=true", "DELETE", **operator)[2]) == expected
    assert client.peer.closed == 4003
    expected |= {"closed": 0, "revoked_at": 0}
    assert json.loads(api.get(path, "DELETE", **operator)[2]) == expected
    for wrong, status in ((f"{path}?revoke=yes", 400), ("/v1/agents/ann", 405), ("/v1/agents/%20/connections", 400)):
        assert api.get(wrong, "DELETE", **operator)[0] == status, wrong


def test_a_revocation_that_cannot_be_written() -> None:
    """
    It is answered with 503.
    """
    api = Api(production=True)
    api.core.expulsion.save = lambda agent, at, ready: ready(False)
    operator = {"Authorization": f"Bearer {OPERATOR}"}
    assert api.get("/v1/agents/ann/connections?revoke=1", "DELETE", **operator)[0] == 503
