"""
The JSON of the HTTP calls, as JSON Schemas for C{/openapi.json}.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, get_args

from dcm_ws.core.dead_letters import Reason
from dcm_ws.core.fates import HISTORY_MAX
from dcm_ws.core.ledger_pages import What
from dcm_ws.protocol.commands import KEY_MAX, POSITION_MAX
from dcm_ws.protocol.events import CATALOGUE
from dcm_ws.protocol.posts import BATCH_MAX

Schema = dict[str, Any]


def ref(name: str) -> Schema:
    """
    A reference to a schema of L{SCHEMAS}.
    """
    return {"$ref": f"#/components/schemas/{name}"}


def array_of(items: Schema, **more: Any) -> Schema:
    """
    An array.
    """
    return {"type": "array", "items": items, **more}


def record(required: dict[str, Schema], optional: dict[str, Schema] | None = None, **more: Any) -> Schema:
    """
    An object.
    """
    return {"type": "object", "required": [*required], "properties": {**required, **(optional or {})}, **more}


def text(description: str = "", **more: Any) -> Schema:
    """
    A string.
    """
    return {"type": "string", **more, **({"description": description} if description else {})}


def number(description: str = "", **more: Any) -> Schema:
    """
    A whole number that is not negative.
    """
    found = {"type": "integer", "minimum": 0, **more}
    return {**found, "description": description} if description else found


def or_null(schema: Schema) -> Schema:
    """
    The same, or C{null}.
    """
    return {**schema, "type": [schema["type"], "null"]}


FLAG: Schema = {"type": "boolean"}
ANY: Schema = {"description": "any JSON value"}
_CHARACTER = r"[^\u0000-\u001f\u007f]"
_EVENT_CHARACTER = "[A-Za-z0-9_.:-]"
IDENTIFIER = text(
    "1 to 128 Unicode characters, slashes and inner spaces included; no control characters", minLength=1, maxLength=128
)
CHANNEL = ref("Channel")
NO_NUL = r"^[^\u0000]*$"
"""
A pattern of texts that a database can hold.
"""

EVENT_NAME = text(pattern=f"^{_EVENT_CHARACTER}{{1,64}}$")
TIME = number("ms since the epoch")
POSITION = number("a position in the log", maximum=POSITION_MAX)
REASON = text(enum=list(get_args(Reason)))

_SCHEMAS: dict[str, Schema] = {
    "Post": record(
        {"channel": CHANNEL, "event": ref("Publishable")},
        {
            "data": ANY,
            "key": or_null(text("publish it once, however often it is sent within 10 minutes", maxLength=KEY_MAX)),
        },
    ),
    "Posts": array_of(ref("Post"), maxItems=BATCH_MAX),
    "Published": record(
        {"id": text("the event's id")},
        {
            "pos": number("its position in the log; missing if it is not logged", minimum=1),
            "duplicate": {"const": True, "description": "it was published before, with the same key"},
            "timestamp": TIME,
        },
    ),
    "PublishedTogether": array_of(ref("Published"), description="in the order of the request"),
    "Event": record(
        {"id": text(), "channel": CHANNEL, "event": EVENT_NAME, "data": ANY, "timestamp": TIME, "pos": POSITION},
        {
            "from": text("the agent that published it"),
            "origin": text("in `global`: the channel that it was published to"),
        },
    ),
    "Connection": record(
        {
            "client_id": text(),
            "agent_id": or_null(text()),
            "session_id": or_null(text()),
            "node": text("the node of a cluster that has it; empty without a cluster"),
            "since": {**TIME, "description": "when it was opened, in ms since the epoch"},
            "observer": FLAG,
            "pos": {**POSITION, "description": "everything up to this position has been sent to it"},
            "unacknowledged": number("events that it was sent and has not acknowledged"),
            "subscribed": number("channels that it is subscribed to"),
            "subscriptions": array_of(text(), description="the first 100 of them, in the answer about an agent"),
        }
    ),
    "Presence": record(
        {
            "channel": CHANNEL,
            "total": number("connections that are subscribed"),
            "connections": array_of(ref("Connection")),
            "missing": array_of(text(), description="nodes that have not answered in time"),
        }
    ),
    "Agent": record(
        {
            "agent_id": text(),
            "connected": FLAG,
            "connections": number(),
            "left": or_null({**TIME, "description": "when its last connection ended; null if it is connected"}),
            "durable": FLAG,
            "owed": number("events that it was sent and has not acknowledged"),
            "dead": number("its dead letters"),
            "sent": {**POSITION, "description": "it has been sent everything in its channels up to this position"},
            "acknowledged": {**POSITION, "description": "of that, it has acknowledged everything up to this position"},
            "behind": number("events of the log after `sent`"),
        }
    ),
    "Agents": record({"agents": array_of(ref("Agent"))}, {"next": text("the next page begins after this agent")}),
    "AgentDetail": {
        "allOf": [
            ref("Agent"),
            record(
                {
                    "clients": array_of(ref("Connection")),
                    "missing": array_of(text(), description="nodes that have not answered in time"),
                    "channels": {
                        "type": "object",
                        "additionalProperties": POSITION,
                        "description": "its channels, with the position up to which it has been sent everything",
                    },
                    "unacknowledged": array_of(
                        record({"pos": POSITION, "id": text(), "sent": number("how often it was sent")}),
                        description="the first 100 events that it has not acknowledged",
                    ),
                }
            ),
        ]
    },
    "Disconnected": record(
        {
            "agent_id": text(),
            "closed": number("connections that were closed"),
            "revoked_at": number("tokens issued up to this time are refused, in ms since the epoch; 0 if none are"),
            "missing": array_of(text(), description="nodes that have not answered in time"),
        }
    ),
    "EventRecord": record(
        {
            "id": text("the event's id"),
            "pos": POSITION,
            "channel": CHANNEL,
            "event": EVENT_NAME,
            "timestamp": {**TIME, "description": "when it was published"},
            "from": or_null(text("the agent that published it")),
            "tracked": {**FLAG, "description": "agents acknowledge it"},
            "total": number("agents that the ledger has something of"),
            "agents": array_of(ref("Fate")),
        },
        {"next": text("`after` of the next page")},
    ),
    "Fate": record(
        {
            "agent_id": text(),
            "state": text(enum=["sent", "acknowledged", "dead", "redriven"]),
            "sent": number("how often it was sent"),
            "first_sent_at": or_null(TIME),
            "last_sent_at": or_null(TIME),
            "acknowledged_at": or_null(TIME),
            "died_at": or_null(TIME),
            "reason": {"enum": [*get_args(Reason), None]},
            "redriven_at": or_null(TIME),
            "history": array_of(
                record({"at": TIME, "what": text(enum=list(get_args(What)))}, {"reason": REASON}),
                description=f"what happened, in its order: the first {HISTORY_MAX - 1} entries, and the last one",
            ),
        }
    ),
    "DeadLetter": record(
        {
            "agent_id": text(),
            "id": text("the event's id"),
            "pos": POSITION,
            "channel": CHANNEL,
            "event": EVENT_NAME,
            "data": ANY,
            "timestamp": {**TIME, "description": "when it was published"},
            "sent": number("how often it was sent"),
            "reason": REASON,
            "died_at": TIME,
            "redriven_at": or_null(TIME),
        }
    ),
    "DeadLetters": record({"letters": array_of(ref("DeadLetter"))}, {"next": text("`after` of the next page")}),
    "Redrive": record(
        {},
        {
            "agent": or_null(IDENTIFIER),
            "ids": array_of(text(maxLength=128, pattern=NO_NUL), maxItems=1000),
            "reasons": array_of(REASON),
            "since": or_null(number("died at this time or later, in ms since the epoch", maximum=POSITION_MAX + 1)),
            "until": or_null(number("died before this time", maximum=POSITION_MAX + 1)),
            "limit": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100},
        },
        additionalProperties=False,
        description="which dead letters; without any field, the oldest 100",
    ),
    "Redriven": record({"letters": number("how many are sent again")}),
    "Health": record(
        {"status": text(enum=["healthy", "degraded", "draining"]), "connectedClients": number(), "version": text()}
    ),
    "Stats": record({"connectedClients": number(), "pendingDeliveries": number(), "limits": {"type": "object"}}),
    "Ready": record({"status": {"const": "ok"}, "timestamp": TIME}),
    "Error": record(
        {"error": text("for people"), "code": text("for programs", examples=["INVALID_CHANNEL"]), "timestamp": TIME},
        {
            "retry_after_ms": number("try again after this time"),
            "gap": record({"reason": text(enum=["expired", "epoch", "ahead"]), "oldest": text("an offset")}),
        },
    ),
}


def schemas(channels: Iterable[str] = (), events: Iterable[str] = ()) -> dict[str, Schema]:
    """
    The schemas by name.

    @param channels: those that the operator adds, as C{--extra-channel} has them.
    @param events: the same of C{--extra-event}.
    """
    own = ["global", "metrics", f"(agents|sessions|topics)/{_CHARACTER}{{1,128}}"]
    return {
        "Channel": text(
            "`global`, `metrics`, `agents/AGENT`, `sessions/SESSION`, `topics/TOPIC`, or what the operator adds",
            pattern=f"^({'|'.join([*own, *(_pattern(name, _CHARACTER) for name in channels)])})$",
            examples=["topics/build"],
        ),
        "Publishable": text(
            "an event of the catalogue, or what the operator adds",
            pattern=f"^({'|'.join(_pattern(name, _EVENT_CHARACTER) for name in [*sorted(CATALOGUE), *events])})$",
            examples=["task.created"],
        ),
        **_SCHEMAS,
    }


def _pattern(name: str, character: str) -> str:
    """
    A name, which may end with a star, as a regular expression.
    """
    literal = re.sub(r"[^\w/ -]", lambda found: f"\\{found[0]}", name.removesuffix("*"))
    return literal + (f"{character}+" if name.endswith("*") else "")
