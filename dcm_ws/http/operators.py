"""
What operators see over HTTP of agents: who is connected and subscribed, and what agents are owed
(docs/protocol.md, section 12).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.web.server import Request

from dcm_ws.core.agent_records import AgentRecord, Choice
from dcm_ws.core.dead_letters import Listed
from dcm_ws.core.expulsion import Expelled, Expulsion
from dcm_ws.core.rights import demand_operator
from dcm_ws.core.session import Session
from dcm_ws.core.whereabouts import Found, Whereabouts
from dcm_ws.http.admission import RefusedError
from dcm_ws.http.api import ApiPage, Gate
from dcm_ws.http.queries import identifier, malformed, rest_of_path, text, whole
from dcm_ws.protocol.channels import Channels
from dcm_ws.protocol.errors import ProtocolError

MOST = 1000
"""
Agents, or dead letters, in one response.
"""

PAGE = 100
"""
The same, unless the caller asks for another number.
"""

T = TypeVar("T")

_OWED_SHOWN = 100
_CONNECTIONS = b"connections"
_PRESENCE = "/presence"


class Records(Protocol):
    """
    Where the records of agents and dead letters are; see L{AgentRecords<dcm_ws.core.agent_records.AgentRecords>}.
    """

    def agents(self, after: str, most: int) -> list[AgentRecord] | Deferred[list[AgentRecord]]: ...

    def agent(self, name: str) -> AgentRecord | Deferred[AgentRecord | None] | None: ...

    def letters(self, choice: Choice) -> list[Listed] | Deferred[list[Listed]]: ...

    def redrive(self, choice: Choice) -> int | Deferred[int]: ...


class OperatorPage(ApiPage):
    """
    A call for operators.
    """

    def answer_call(self, request: Request, session: Session) -> bytes | int | Deferred[bytes]:
        demand_operator(session)
        return self.answer_operator(request)

    def answer_operator(self, request: Request) -> Deferred[bytes]:
        """
        Answer a call of an operator; see L{answer_call}.
        """
        raise NotImplementedError


class PresencePage(OperatorPage):
    """
    C{/v1/channels/CHANNEL/presence}: the connections that are subscribed to a channel.
    """

    isLeaf = True

    def __init__(self, wall_ms: Callable[[], int], gate: Gate, channels: Channels, whereabouts: Whereabouts) -> None:
        super().__init__(wall_ms, gate)
        self._channels = channels
        self._whereabouts = whereabouts

    def answer_operator(self, request: Request) -> Deferred[bytes]:
        name = rest_of_path(request)
        if not name.endswith(_PRESENCE):
            raise not_found()
        channel = self._channels.parse(name.removesuffix(_PRESENCE))
        found: Deferred[Found] = Deferred()
        self._whereabouts.of_channel(channel.name, found.callback)
        return found.addCallback(lambda found: self.answer(request, {"channel": channel.name} | _shown(found)))


class AgentsPage(OperatorPage):
    """
    C{/v1/agents}, C{/v1/agents/AGENT}, and C{DELETE /v1/agents/AGENT/connections}.

    @param head: returns the last position of the log.
    """

    isLeaf = True
    allowed = (*OperatorPage.allowed, "DELETE")

    def __init__(
        self,
        wall_ms: Callable[[], int],
        gate: Gate,
        records: Records,
        whereabouts: Whereabouts,
        expulsion: Expulsion,
        head: Callable[[], int],
    ) -> None:
        super().__init__(wall_ms, gate)
        self._records = records
        self._whereabouts = whereabouts
        self._expulsion = expulsion
        self._head = head

    def methods(self, request: Request) -> tuple[str, ...]:
        # an agent whose name ends like this is asked for with its slash as %2F
        *agent, last = request.postpath or [b""]
        if agent and last == _CONNECTIONS:
            return ("DELETE", "OPTIONS")
        return OperatorPage.allowed

    def answer_operator(self, request: Request) -> Deferred[bytes]:
        if request.method == b"DELETE":
            return self._disconnect(request)
        if request.postpath:
            return self._answer_one(request, identifier(rest_of_path(request), "agent"))
        most = whole(request, "limit", 1, MOST) or PAGE
        after = text(request, "after") or ""
        # one more, to see if there are more
        found = as_deferred(self._records.agents(after, most + 1))
        return found.addCallback(lambda records: self._answer_page(request, records, after, most))

    def _disconnect(self, request: Request) -> Deferred[bytes]:
        name, found = rest_of_path(request), text(request, "revoke") or "false"
        if found not in ("true", "false", "1", "0"):
            raise malformed("revoke", "use true or false")
        agent = identifier(name.removesuffix(f"/{_CONNECTIONS.decode()}"), "agent")
        done: Deferred[Expelled] = Deferred()

        def ready(found: Expelled | ProtocolError) -> None:
            if isinstance(found, ProtocolError):
                done.errback(found)
            else:
                done.callback(found)

        self._expulsion.expel(agent, ready, revoke=found in ("true", "1"))
        return done.addCallback(lambda expelled: self.answer(request, {"agent_id": agent} | expelled._asdict()))

    def _answer_page(self, request: Request, records: Sequence[AgentRecord], after: str, most: int) -> bytes:
        agents = [self._line(record) for record in records[:most]]
        more = {"next": records[most - 1].agent} if len(records) > most else {}
        return self.answer(request, {"agents": agents} | more)

    def _line(self, record: AgentRecord) -> dict[str, object]:
        state, number = record.state, self._whereabouts.number(record.agent)
        return {
            "agent_id": record.agent,
            "connected": bool(number),
            "connections": number,
            "left": None if number or state is None else state.left,
            "durable": state is not None and state.durable,
            "owed": 0 if state is None else len(state.owed),
            "dead": record.dead,
            "sent": record.sent,
            "acknowledged": record.acknowledged,
            "behind": 0 if state is None else max(0, self._head() - record.sent),
        }

    def _answer_one(self, request: Request, agent: str) -> Deferred[bytes]:
        found: Deferred[Found] = Deferred()
        self._whereabouts.of_agent(agent, found.callback)
        return found.addCallback(self._look_up, agent).addCallback(
            lambda both: self._answer_agent(request, agent, *both)
        )

    def _look_up(self, found: Found, agent: str) -> Deferred[tuple[Found, AgentRecord | None]]:
        return as_deferred(self._records.agent(agent)).addCallback(lambda record: (found, record))

    def _answer_agent(self, request: Request, agent: str, found: Found, record: AgentRecord | None) -> bytes:
        if record is None:
            if not found.total:
                raise not_found(f"Nothing is known of agent {agent}")
            record = AgentRecord(agent, None, 0)
        state = record.state
        owed = {} if state is None else state.owed
        shown = _shown(found)
        return self.answer(
            request,
            self._line(record)
            | {"connected": bool(found.total), "connections": found.total}
            | {"clients": shown["connections"], "missing": shown["missing"]}
            | {"channels": {} if state is None else dict(sorted(state.places.items()))}
            | {
                "unacknowledged": [
                    {"pos": pos, "id": owed[pos][0], "sent": owed[pos][1]} for pos in sorted(owed)[:_OWED_SHOWN]
                ]
            },
        )


def as_deferred(value: T | Deferred[T]) -> Deferred[T]:
    """
    What is there now or later, as what is there later.
    """
    return value if isinstance(value, Deferred) else succeed(value)


def not_found(reason: str = "There is nothing here; see /openapi.json") -> RefusedError:
    """
    The refusal of a path, or of a name, that there is not.
    """
    return RefusedError(HTTPStatus.NOT_FOUND, HTTPStatus.NOT_FOUND.name, reason)


def _shown(found: Found) -> dict[str, Any]:
    return {"total": found.total, "connections": found.connections, "missing": found.missing}
