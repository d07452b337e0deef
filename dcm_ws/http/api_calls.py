"""
The HTTP calls: one table, of which C{/openapi.json} is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dcm_ws.http.api_schemas import CHANNEL, IDENTIFIER, NO_NUL, REASON, Schema, array_of, ref, text
from dcm_ws.protocol.commands import KEY_MAX, POSITION_MAX

JSON = "application/json"
SSE = "text/event-stream"
TEXT = "text/plain"


class Parameter(NamedTuple):
    """
    @ivar place: C{path}, C{query} or C{header}.
    """

    name: str
    place: str
    schema: Schema
    description: str = ""


class Answer(NamedTuple):
    """
    A response.

    @ivar content: by media type; empty for a response without a body.
    @ivar headers: with their descriptions.
    """

    status: int
    description: str
    content: dict[str, Schema]
    headers: dict[str, str]


class Call(NamedTuple):
    """
    @ivar paths: below the root; parameters are in braces.
    @ivar tag: the group that it belongs to.
    @ivar errors: the statuses of its errors.
    @ivar takes_token: its callers are identified by a token, which production requires.
    """

    method: str
    path: str
    name: str
    tag: str
    summary: str
    answers: Sequence[Answer]
    errors: Sequence[int] = ()
    parameters: Sequence[Parameter] = ()
    body: Schema | None = None
    body_required: bool = True
    takes_token: bool = True


def _or_empty(schema: Schema) -> Schema:
    """
    A parameter that counts as absent if it is empty.
    """
    return {"anyOf": [schema, {"const": ""}]}


_READ_ERRORS = (400, 401, 403, 429, 503)
_STREAM_HEADERS = {
    "Stream-Next-Offset": "where the stream goes on",
    "Stream-Up-To-Date": "`true` if there is no more at the moment",
    "Stream-Cursor": "of long polls: to be sent back as `cursor`",
    "ETag": "of a page",
    "Cache-Control": "",
}
_AGENT = Parameter("agent", "path", IDENTIFIER)
_CHANNEL = Parameter("channel", "path", CHANNEL, "slashes in it may be percent-encoded")
_LIMIT = Parameter("limit", "query", _or_empty({"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}))
_TIME_MAX = POSITION_MAX + 1


def _json(description: str, schema: str, status: int = 200, **headers: str) -> Answer:
    return Answer(status, description, {JSON: ref(schema)}, headers)


CALLS: tuple[Call, ...] = (
    Call(
        "post",
        "/v1/publish",
        "publish",
        "publishing",
        "Publish one event, or up to 1,000 together: all of them or none",
        [
            Answer(
                200,
                "published; with a durable log, committed",
                {JSON: {"anyOf": [ref("Published"), ref("PublishedTogether")]}},
                {},
            )
        ],
        errors=(400, 401, 403, 413, 429, 503),
        parameters=[
            Parameter(
                "Idempotency-Key",
                "header",
                text(maxLength=KEY_MAX, pattern="^[!#-~]*$"),
                "the key of a single event",
            )
        ],
        body={"anyOf": [ref("Post"), ref("Posts")]},
    ),
    Call(
        "get",
        "/v1/streams/{channel}",
        "readStream",
        "reading",
        "Read a channel as a Durable Streams 1.0 JSON stream",
        [
            Answer(
                200,
                "events; with `live=sse`, or `Accept: text/event-stream`, an event stream",
                {JSON: array_of(ref("Event")), SSE: text()},
                _STREAM_HEADERS,
            ),
            Answer(204, "a long poll in which nothing was published", {}, _STREAM_HEADERS),
            Answer(304, "the page has not changed", {}, _STREAM_HEADERS),
            _json(
                "the log does not have what follows the offset",
                "Error",
                410,
                **{"Stream-Next-Offset": "the oldest offset"},
            ),
        ],
        errors=(*_READ_ERRORS, 404),
        parameters=[
            _CHANNEL,
            Parameter("offset", "query", text(examples=["-1", "now"]), "-1, now, or `Stream-Next-Offset`"),
            Parameter("live", "query", text(enum=["long-poll", "sse"])),
            Parameter("cursor", "query", text(), "`Stream-Cursor` of the response before"),
            Parameter("If-None-Match", "header", text(), "`ETag` of the response before"),
            Parameter("Last-Event-ID", "header", text(), "of an event stream: the id of the last event"),
        ],
    ),
    Call(
        "head",
        "/v1/streams/{channel}",
        "describeStream",
        "reading",
        "Get the end of a channel's stream",
        [Answer(200, "`Stream-Next-Offset` is the end of the stream", {}, _STREAM_HEADERS)],
        errors=(*_READ_ERRORS, 404),
        parameters=[_CHANNEL],
    ),
    Call(
        "get",
        "/v1/channels/{channel}/presence",
        "getPresence",
        "operators",
        "List the connections that are subscribed to a channel",
        [_json("the connections", "Presence")],
        errors=(*_READ_ERRORS, 404),
        parameters=[_CHANNEL],
    ),
    Call(
        "get",
        "/v1/agents",
        "listAgents",
        "operators",
        "List the agents by name, and what each is owed",
        [_json("a page of agents", "Agents")],
        errors=_READ_ERRORS,
        parameters=[_LIMIT, Parameter("after", "query", text(pattern=NO_NUL), "`next` of the page before")],
    ),
    Call(
        "get",
        "/v1/agents/{agent}",
        "getAgent",
        "operators",
        "Get what is known of an agent: its connections, channels, and unacknowledged events",
        [_json("the agent", "AgentDetail")],
        errors=(*_READ_ERRORS, 404),
        parameters=[_AGENT],
    ),
    Call(
        "delete",
        "/v1/agents/{agent}/connections",
        "disconnectAgent",
        "operators",
        "Disconnect an agent, and refuse its tokens if that is asked for",
        [_json("it is disconnected", "Disconnected")],
        errors=(*_READ_ERRORS, 404),
        parameters=[
            _AGENT,
            Parameter(
                "revoke",
                "query",
                _or_empty(text(enum=["true", "false", "1", "0"])),
                "refuse the tokens that the agent has now until they expire",
            ),
        ],
    ),
    Call(
        "get",
        "/v1/events/{id}",
        "getEvent",
        "operators",
        "Get what became of a logged event at each agent",
        [_json("the event, and a page of the agents that it was sent to", "EventRecord")],
        errors=(*_READ_ERRORS, 404),
        parameters=[
            Parameter("id", "path", text(minLength=1, maxLength=64), "the event's id"),
            Parameter("agent", "query", text(maxLength=128), "this agent only"),
            _LIMIT,
            Parameter("after", "query", text(pattern=NO_NUL), "`next` of the page before"),
        ],
    ),
    Call(
        "get",
        "/v1/dead",
        "listDeadLetters",
        "operators",
        "List dead letters in the order of dying",
        [_json("a page of dead letters", "DeadLetters")],
        errors=_READ_ERRORS,
        parameters=[
            Parameter("agent", "query", text(maxLength=128), "of this agent only"),
            Parameter("id", "query", array_of(text(pattern=NO_NUL)), "ids of events"),
            Parameter("reason", "query", array_of(_or_empty(REASON))),
            Parameter(
                "since",
                "query",
                _or_empty({"type": "integer", "minimum": 0, "maximum": _TIME_MAX}),
                "ms since the epoch",
            ),
            Parameter(
                "until",
                "query",
                _or_empty({"type": "integer", "minimum": 0, "maximum": _TIME_MAX}),
                "ms since the epoch",
            ),
            _LIMIT,
            Parameter("after", "query", text(pattern=NO_NUL), "`next` of the page before"),
        ],
    ),
    Call(
        "post",
        "/v1/dead/redrive",
        "redriveDeadLetters",
        "operators",
        "Have dead letters sent to their agents again",
        [_json("they are sent again, in a cluster within a second or two", "Redriven")],
        errors=(400, 401, 403, 413, 429, 503),
        body=ref("Redrive"),
        body_required=False,
    ),
    Call(
        "get",
        "/health",
        "getHealth",
        "state",
        "Get the state of the service",
        [_json("the state", "Health"), _json("the service stops", "Health", 503)],
        takes_token=False,
    ),
    Call(
        "get",
        "/stats",
        "getStats",
        "state",
        "Get the counts of the service",
        [_json("the counts", "Stats")],
        takes_token=False,
    ),
    Call(
        "get",
        "/livez",
        "isAlive",
        "state",
        "Find out whether the process runs",
        [_json("it runs", "Ready")],
        takes_token=False,
    ),
    Call(
        "get",
        "/readyz",
        "isReady",
        "state",
        "Find out whether clients should be sent to the service",
        [_json("they should", "Ready")],
        errors=(503,),
        takes_token=False,
    ),
)
