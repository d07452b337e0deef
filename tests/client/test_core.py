"""
A client's side of the protocol, by itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcm_ws.client import core, errors, events
from dcm_ws.client.core import ClientCore
from dcm_ws.client.errors import DCMError, NotConnectedError, RefusedError
from dcm_ws.client.events import Event, Listener
from dcm_ws.client.gaps import Gap
from dcm_ws.client.queues import Inbox, Queue
from dcm_ws.client.subscriptions import AT_ONCE
from dcm_ws.client.urls import as_observer
from dcm_ws.protocol.errors import ErrorCode

NOW = 1_700_000_000_123


class Side:
    """
    A core with a connection, and what it said and was told.
    """

    def __init__(self, *, connected: bool = True, chance: float = 1.0, **options: Any) -> None:
        settings: dict[str, Any] = {
            "agent_id": None,
            "session_id": None,
            "channels": ["global"],
            "fresh_tokens": False,
            "queue_max": 5,
        }
        self.room = 0
        self.gaps: list[Gap] = []
        self.core = ClientCore(
            **settings | options, random=lambda: chance, room=self._room, wall_ms=lambda: NOW, gap=self.gaps.append
        )
        self.said: list[Any] = []
        self.replies: list[Any] = []
        self.taken: list[tuple[Event, Callable[[bool], None]]] = []
        if connected:
            self.connect()

    def _room(self) -> None:
        self.room += 1

    def connect(self) -> None:
        """
        Open a connection.
        """
        self.core.opened(lambda text: self.said.append(json.loads(text)))

    def hear(self, **frame: Any) -> object:
        """
        A message comes.
        """
        return self.core.received(json.dumps(frame))

    def listen(self, pattern: str = "*", channel: str | None = None) -> Listener:
        """
        Want events.
        """
        listener = Listener(pattern, channel, lambda event, done: self.taken.append((event, done)))
        self.core.events.listeners[listener] = None
        return listener

    def event(self, id: str = "msg_1", channel: str = "topics/t", event: str = "task.created") -> None:
        """
        An event comes.
        """
        self.hear(id=id, channel=channel, event=event, data=None, timestamp=1)

    @property
    def acks(self) -> list[str]:
        """
        What was acknowledged.
        """
        return [message["message_id"] for message in self.said if message["type"] == "ack"]


# requests


def test_answers_find_their_requests() -> None:
    """
    Each answer goes to who asked, in whatever order they come.
    """
    side = Side()
    one = side.core.request({"type": "subscribe", "channel": "a"}, lambda answer: side.replies.append(("one", answer)))
    two = side.core.request({"type": "subscribe", "channel": "b"}, lambda answer: side.replies.append(("two", answer)))
    assert [message["id"] for message in side.said] == [one, two]
    assert side.core.asking
    side.hear(type="ack", id=two, success=True)
    side.hear(type="ack", id=one, success=False, code="INVALID_CHANNEL", error="no such", retry_after_ms=1500)
    side.hear(type="ack", id="other", success=True)
    (name, answer), (other, refused) = side.replies
    assert (name, answer["success"], other) == ("two", True, "one")
    assert isinstance(refused, errors.InvalidChannelError)
    assert (refused.code, str(refused), refused.retry_after) == ("INVALID_CHANNEL", "no such", 1.5)
    assert not side.core.asking


@pytest.mark.parametrize(
    ("code", "reason", "error", "text"),
    [
        (1009, "Message too large", None, "connection closed: 1009 Message too large"),
        (1012, "", None, "connection closed: 1012"),
        (1006, "", None, "connection lost (1006)"),
        (1006, "reset by peer", None, "connection lost (1006: reset by peer)"),
        (None, "HTTP 502", None, "HTTP 502"),
        (None, "", None, "there was no connection"),
        (1006, "", DCMError("nothing was heard for too long"), "nothing was heard for too long"),
    ],
)
def test_errors_say_how_the_connection_ended(code: int | None, reason: str, error: Any, text: str) -> None:
    """
    Every request that waits for an answer when the connection ends, and every later one, gets the code and the reason.
    """
    side = Side()
    side.core.request({"type": "subscribe", "channel": "a"}, side.replies.append)
    side.core.ping(side.replies.append)
    side.core.lost(code, reason, error)
    side.core.request({"type": "subscribe", "channel": "a"}, side.replies.append)
    side.core.ping(side.replies.append)
    assert [str(reply) for reply in side.replies] == [
        *[f"{text}; there was no answer yet"] * 2,
        *[f"there is no connection: {text}"] * 2,
    ]
    assert [reply.close_code for reply in side.replies] == [code, code, None, None]
    side.connect()
    side.core.lost(1012, "restart")
    side.core.ping(side.replies.append)
    assert str(side.replies[-1]) == "there is no connection: connection closed: 1012 restart"


def test_no_connection_before_the_first() -> None:
    """
    A client that has never had a connection has no reason to give.
    """
    side = Side(connected=False)
    side.core.request({"type": "subscribe", "channel": "a"}, side.replies.append)
    assert str(side.replies[0]) == "there is no connection"


@pytest.mark.parametrize("timestamp", ["yesterday", None, True, [], {}, -5, 0, 1e300, 10**400, "9" * 400])
def test_an_event_is_never_dropped_for_its_timestamp(timestamp: object) -> None:
    """
    An event without a usable timestamp gets the time of its arrival.
    """
    side = Side()
    side.listen()
    assert side.hear(id="m", channel="c", event="task.created", data=None, timestamp=timestamp) is None
    assert [event.timestamp for event, _ in side.taken] == [NOW]


def test_timestamps() -> None:
    """
    Milliseconds are taken as they are; seconds and ISO 8601 text are converted.
    """
    side = Side()
    side.listen()
    for number, timestamp in enumerate((1706000000000, 1706000000, "2024-01-23T08:53:20Z")):
        side.hear(id=f"m{number}", channel="c", event="task.created", data=number, timestamp=timestamp)
    side.hear(id="m", channel="c", event="task.created", data=3)
    assert [(event.data, event.timestamp) for event, _ in side.taken] == [
        *[(number, 1706000000000) for number in range(3)],
        (3, NOW),
    ]


@pytest.mark.parametrize("code", list(ErrorCode))
def test_each_code_has_its_class(code: ErrorCode) -> None:
    """
    A refusal is of the class for its code; an unknown code is no accident.
    """
    error = errors.refusal({"code": code.value, "error": "why"})
    assert type(error) is not RefusedError
    assert (error.code, type(error).code) == (code, code)
    assert type(errors.refusal({"code": "NEW_CODE"})) is RefusedError


def test_without_a_connection() -> None:
    """
    What is asked without a connection fails at once, and what was asked before one ended fails with it.
    """
    side = Side(connected=False)
    side.core.request({"type": "publish"}, side.replies.append)
    side.core.ping(side.replies.append)
    side.connect()
    side.core.request({"type": "publish"}, side.replies.append)
    side.core.ping(side.replies.append)
    side.core.give_up(side.core.request({"type": "publish"}, side.replies.append))
    side.core.lost(1006, "")
    assert [type(reply) for reply in side.replies] == [NotConnectedError] * 4
    side.core.received('{"type":"ping"}')


@pytest.mark.parametrize(
    ("url", "observing"),
    [
        ("ws://h", "ws://h?observer=1"),
        ("ws://h:1/ws", "ws://h:1/ws?observer=1"),
        ("wss://h/ws?agent_id=a%20b", "wss://h/ws?agent_id=a%20b&observer=1"),
    ],
)
def test_url_of_an_observer(url: str, observing: str) -> None:
    """
    Who observes says so in the query, and leaves the rest of the URL as it was.
    """
    assert as_observer(url) == observing


def test_pings() -> None:
    """
    Pongs answer pings in order; a ping of the server is answered at once.
    """
    side = Side()
    side.core.ping(lambda answer: side.replies.append(1))
    side.core.ping(lambda answer: side.replies.append(2))
    for _ in range(3):
        side.hear(type="pong")
    assert side.replies == [1, 2]
    side.hear(type="ping")
    assert side.said[-1] == {"type": "pong"}


def test_pings_that_get_no_pong() -> None:
    """
    One that is refused is answered by that, and one that nobody waits for any more takes its pong with it.
    """
    side = Side()
    late, refused, good = (side.core.ping(side.replies.append) for _ in range(3))
    assert side.said[0] == {"type": "ping", "id": late}
    side.core.give_up(late)
    side.hear(type="ack", id=refused, success=False, code="RATE_LIMITED", error="slowly")
    assert [type(reply) for reply in side.replies] == [errors.RateLimitedError]
    side.hear(type="pong")
    assert (len(side.replies), side.core.asking) == (1, True)
    side.hear(type="pong", good=good)
    assert (len(side.replies), side.core.asking) == (2, False)


@pytest.mark.parametrize("text", ["{", "[]", "1", b"\xff", "[" * 100_000])
def test_what_is_no_message(text: str | bytes) -> None:
    """
    Whatever the server says, the client goes on.
    """
    assert isinstance(Side().core.received(text), DCMError)


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "ack", "success": True, "subscriptions": 5},
        {"type": "ack", "success": True, "subscriptions": [5]},
        {"type": "ack", "id": [1], "success": True},
    ],
)
def test_invalid_messages(frame: dict[str, Any]) -> None:
    """
    A message whose fields are of the wrong kind is an error.
    """
    error = Side().hear(**frame)
    assert isinstance(error, DCMError)
    assert "the server sent an invalid message" in str(error)


@pytest.mark.parametrize(
    ("wait", "seconds"), [(0, 0), (50, 0.05), (1.5, 0.0015), (2**31, None), (-1, None), ("soon", None), (None, None)]
)
def test_time_to_wait(wait: object, seconds: float | None) -> None:
    """
    A refusal has the seconds after which the request may be sent again, if the server says a usable number.
    """
    side = Side()
    name = side.core.request({"type": "subscribe", "channel": "a"}, side.replies.append)
    side.hear(type="ack", id=name, success=False, code="RATE_LIMITED", error="slowly", retry_after_ms=wait)
    assert [reply.retry_after for reply in side.replies] == [seconds]


_FIELDS = ["type", "id", "event", "channel", "data", "error", "code", "timestamp", "subscriptions", "client_id"]
_values: st.SearchStrategy[Any] = (
    st.none() | st.integers() | st.floats() | st.text() | st.lists(st.integers()) | st.just({}) | st.just("ack")
)


@given(st.dictionaries(st.sampled_from(_FIELDS), _values))
def test_odd_messages(frame: dict[str, object]) -> None:
    """
    Neither does a field that is odd end it.
    """
    side = Side()
    side.listen()
    assert isinstance(side.hear(**frame), DCMError | None)


def test_greeting_and_errors() -> None:
    """
    The greeting, and errors that answer no request, are recognised.
    """
    side = Side()
    assert side.hear(type="connected", client_id="ws_1") is None
    assert (side.core.greeted, side.core.client_id) == (True, "ws_1")
    assert isinstance(side.hear(error="what?", code="PARSE_ERROR"), errors.ParseFailedError)
    assert side.hear(type="news") is None


# authentication and subscriptions


def test_authentication() -> None:
    """
    A token is said where there is one, a name where there is none, and nothing where there is neither.
    """
    assert Side().core.auth(None) is None
    assert Side(agent_id="ann").core.auth("t") == {"type": "auth", "token": "t"}
    named = Side(agent_id="ann", session_id="s").core.auth(None)
    assert named == {"type": "auth", "agent_id": "ann", "session_id": "s"}


def test_who_one_is() -> None:
    """
    The answer to a token says which agent it is for.
    """
    side = Side()
    side.hear(type="ack", id=None, success=True, subscriptions=["agents/eve", "global"])
    assert side.core.agent_id == "eve"
    side.hear(type="ack", id=None, success=True, subscriptions=["agents/other", "global"])
    assert side.core.agent_id == "eve"


def test_subscriptions_are_settled() -> None:
    """
    What is wanted and not there is asked for; what was left, and came back, is left again; the rest stays.
    """
    side = Side(channels=["topics/a", "topics/b"])
    side.core.subscriptions.wants("topics/c", True)
    side.core.subscriptions.wants("topics/b", False)
    side.core.subscriptions.wants("topics/d", False)
    side.core.subscriptions.wants("topics/d", True)
    side.core.subscriptions.wants("topics/e", False)
    side.hear(type="ack", success=True, subscriptions=["agents/x", "global", "topics/b", "topics/d", "topics/restored"])
    side.core.subscriptions.begin()
    assert list(iter(side.core.subscriptions.next_message, None)) == [
        {"type": "subscribe", "channel": "topics/a"},
        {"type": "subscribe", "channel": "topics/c"},
        {"type": "unsubscribe", "channel": "global"},
        {"type": "unsubscribe", "channel": "topics/b"},
    ]
    side.core.subscriptions.end()
    assert side.core.subscriptions.next_message() is None


def test_what_is_wanted_meanwhile_is_settled_too() -> None:
    """
    Whoever changes their mind while subscriptions are settled gets what they want last.
    """
    side = Side(channels=["global", "topics/a"])
    side.core.subscriptions.begin()
    assert side.core.subscriptions.next_message() == {"type": "subscribe", "channel": "topics/a"}
    side.core.subscriptions.wants("topics/b", True)
    side.core.subscriptions.wants("topics/a", False)
    assert side.core.subscriptions.unsettled
    assert list(iter(side.core.subscriptions.next_message, None)) == [
        {"type": "subscribe", "channel": "topics/b"},
        {"type": "unsubscribe", "channel": "topics/a"},
    ]
    side.core.subscriptions.end()
    # from now on the user's own asking is enough
    side.core.subscriptions.wants("topics/c", True)
    assert side.core.subscriptions.next_message() is None


def test_what_is_refused_while_settling() -> None:
    """
    What is over the rate limit is asked for again, one at a time from then on; what is refused is not.
    """
    side = Side(channels=["topics/a", "topics/b"])
    side.core.subscriptions.begin()
    limited = errors.refusal({"code": "RATE_LIMITED", "retry_after_ms": 50})
    unwanted = errors.refusal({"code": "NOT_AUTHORIZED"})
    one, two, three = iter(side.core.subscriptions.next_message, None)
    assert (side.core.subscriptions.settlers, side.core.subscriptions.pause) == (AT_ONCE, 0)
    assert side.core.subscriptions.refused(one, limited)
    assert not side.core.subscriptions.refused(two, unwanted)
    assert isinstance(unwanted, RefusedError) and unwanted.channel == "topics/b"
    assert side.core.subscriptions.refused(three, errors.refusal({"code": "RATE_LIMITED"}))
    assert (side.core.subscriptions.settlers, side.core.subscriptions.pause) == (1, 0.05)
    assert list(iter(side.core.subscriptions.next_message, None)) == [one, three]
    assert not side.core.subscriptions.refused(three, unwanted)
    side.core.lost(1006, "")
    assert not side.core.subscriptions.refused(one, limited)
    side.core.subscriptions.begin()
    assert side.core.subscriptions.settlers == AT_ONCE


def test_what_was_left_is_remembered_until_the_server_knows() -> None:
    """
    A client that leaves ever new channels does not grow.
    """
    side = Side(channels=["topics/a"])
    side.core.subscriptions.wants("topics/a", False)
    side.core.subscriptions.wants("global", False)
    for channel in ("topics/a", "global"):
        side.core.request({"type": "unsubscribe", "channel": channel}, side.replies.append)
    side.hear(type="ack", id="r1", success=True)
    side.hear(type="ack", id="r2", success=True)
    side.hear(type="ack", success=True, subscriptions=["global", "topics/a"])
    side.core.subscriptions.begin()
    assert list(iter(side.core.subscriptions.next_message, None)) == [{"type": "unsubscribe", "channel": "global"}]
    side.core.subscriptions.wants("topics/b", False)
    side.core.request({"type": "unsubscribe", "channel": "topics/b"}, side.replies.append)
    side.hear(type="ack", id="r3", success=False, code="RATE_LIMITED")
    assert "topics/b" in side.core.subscriptions.unwanted
    assert len(side.replies) == 3


@pytest.mark.parametrize("data", [float("nan"), float("inf"), object(), {1, 2}, b"bytes"])
def test_what_is_no_json_is_not_asked(data: object) -> None:
    """
    It is an error at once, and nothing is left behind.
    """
    side = Side()
    with pytest.raises((TypeError, ValueError)):
        side.core.request({"type": "publish", "data": data}, side.replies.append)
    assert not side.core.asking and side.said == [] and side.replies == []


def test_messages_are_short() -> None:
    """
    Text is said as it is, but for half a surrogate pair.
    """
    assert core.encode({"a": ["\u4e16", 1]}) == '{"a":["\u4e16",1]}'
    assert json.loads(core.encode({"a": "\ud800"})) == {"a": "\ud800"}


# coming back


def test_back_off() -> None:
    """
    The delay doubles up to its maximum, and starts again after a stable connection.
    """
    side = Side(chance=0.5)
    delays = [side.core.lost(1006, "").delay for _ in range(9)]
    assert delays == [0.25, 0.5, 1, 2, 4, 8, 15, 15, 15]
    side.core.backoff.reset()
    assert side.core.lost(1012, "").delay == 0.25


@pytest.mark.parametrize(("code", "delay"), [(1001, 30.0), (1013, 8.0), (4029, 8.0), (4000, 0.5), (None, 0.5)])
def test_close_codes(code: int | None, delay: float) -> None:
    """
    Some closes ask for patience.
    """
    assert Side().core.lost(code, "").delay == delay


@pytest.mark.parametrize("code", ["TOKEN_EXPIRED", "TOKEN_INVALID", "TOKEN_REQUIRED"])
def test_refused_token_ends_the_client(code: str) -> None:
    """
    A client whose only token was refused does not come back, and says why.
    """
    verdict = Side().core.lost(4001, "why")
    assert (verdict.delay, str(verdict.error)) == (None, "connection closed: 4001 why")
    assert verdict.error is not None
    assert verdict.error.close_code == 4001
    verdict = Side().core.lost(1006, "", errors.refusal({"code": code, "error": "no use"}))
    assert (verdict.delay, str(verdict.error)) == (None, "no use")


@pytest.mark.parametrize("code", ["TOKEN_EXPIRED", "TOKEN_INVALID", "TOKEN_REQUIRED"])
def test_refused_token_may_be_followed_by_another(code: str) -> None:
    """
    A client that can get another token comes back with that.
    """
    side = Side(fresh_tokens=True)
    assert side.core.lost(4001, "why").delay == 0.5
    verdict = side.core.lost(1006, "", errors.refusal({"code": code, "error": "no use"}))
    assert (verdict.delay, verdict.error) == (1.0, None)


def test_other_refusals() -> None:
    """
    A refusal that would come again ends the client; one that passes, or a lost connection, does not.
    """
    assert (
        Side().core.lost(1006, "", errors.refusal({"code": "INVALID_MESSAGE", "error": "no such name"})).delay is None
    )
    for passing in ("RATE_LIMITED", "NOT_AVAILABLE"):
        assert Side().core.lost(1006, "", errors.refusal({"code": passing})).delay == 0.5
    assert Side().core.lost(1006, "", DCMError("silence")).delay == 0.5


def test_requests_are_answered_once() -> None:
    """
    What the end of a connection answered is not answered again by the end of the next one.
    """
    side = Side()
    side.core.request({"type": "subscribe", "channel": "a"}, side.replies.append)
    side.core.ping(side.replies.append)
    side.core.expect_greeting(side.replies.append)
    side.core.lost(1006, "")
    assert [type(reply) for reply in side.replies] == [NotConnectedError] * 3
    side.connect()
    side.core.lost(1006, "")
    assert len(side.replies) == 3
    side.connect()
    side.hear(type="ack", id="r1", success=True)
    side.hear(type="pong")
    assert len(side.replies) == 3
    assert not side.core.asking


def test_lost_connection_is_not_written_to() -> None:
    """
    After the end of a connection nothing is sent on it: no acknowledgement, no sign of life, no request.
    """
    side = Side()
    side.listen()
    side.event()
    side.core.lost(1006, "")
    side.taken[0][1](True)
    side.core.alive()
    side.core.request({"type": "subscribe", "channel": "a"}, side.replies.append)
    side.core.ping(side.replies.append)
    assert side.said == []
    assert side.core.client_id is None


def test_client_id_is_that_of_the_connection() -> None:
    """
    It is known from the greeting to the end of the connection.
    """
    side = Side()
    assert side.hear(type="connected", client_id="ws_1") is None
    assert side.core.client_id == "ws_1"
    side.core.lost(1006, "")
    assert side.core.client_id is None


# events


def test_listeners_choose() -> None:
    """
    By name and by channel; what is not wanted is acknowledged at once.
    """
    side = Side()
    side.listen("task.*")
    side.listen("*", "topics/*")
    side.event()
    side.event("msg_2", "global", "message.new")
    side.event("msg_3", "global", "system.info")
    assert [event.id for event, _ in side.taken] == ["msg_1", "msg_1"]
    assert side.acks == ["msg_2"]


def test_acknowledged_when_all_are_done() -> None:
    """
    The last one who is done acknowledges; being done twice is being done once.
    """
    side = Side()
    side.listen()
    side.listen()
    side.event()
    (_, first), (_, second) = side.taken
    first(True)
    first(True)
    assert side.acks == []
    second(True)
    assert side.acks == ["msg_1"]


def test_event_says_what_the_server_said() -> None:
    """
    An event has the id, channel, name, data and timestamp of its frame, and the frame.
    """
    side = Side()
    side.listen()
    frame = {
        "id": "msg_1",
        "channel": "topics/t",
        "event": "task.created",
        "data": {"n": [1]},
        "timestamp": 1706000000007,
    }
    side.hear(**frame)
    ((event, _),) = side.taken
    assert (event.id, event.channel, event.event) == ("msg_1", "topics/t", "task.created")
    assert (event.data, event.timestamp, event.frame) == ({"n": [1]}, 1706000000007, frame)


@pytest.mark.parametrize("timestamp", ["1e999", "-1e999", "NaN", "1e300", "1" * 400, "true", "{}", "null", '"1e999"'])
def test_unusable_timestamps(timestamp: str) -> None:
    """
    An event whose timestamp is not one gets the time of its arrival.
    """
    side = Side()
    side.listen()
    text = f'{{"id":"m","channel":"c","event":"task.created","data":null,"timestamp":{timestamp}}}'
    assert side.core.received(text) is None
    ((event, _),) = side.taken
    assert event.timestamp == NOW


@pytest.mark.parametrize("wait", ["1e999", "-1e999", "1e300", "1" * 400, '"soon"', "[]", "NaN"])
def test_unusable_waiting_times(wait: str) -> None:
    """
    A refusal that names no usable time to wait is still a refusal, and harms nothing.
    """
    side = Side()
    side.core.request({"type": "subscribe", "channel": "a"}, side.replies.append)
    side.core.received(f'{{"type":"ack","id":"r1","success":false,"code":"RATE_LIMITED","retry_after_ms":{wait}}}')
    side.core.received(f'{{"error":"no","code":"RATE_LIMITED","retry_after_ms":{wait}}}')
    side.core.request({"type": "subscribe", "channel": "b"}, side.replies.append)
    assert side.hear(type="ack", id="r2", success=True) is None
    assert side.replies[-1]["success"] is True


def test_second_channel_is_not_acknowledged_again() -> None:
    """
    One acknowledgement settles an event on all its channels; a repetition on one of them is acknowledged again.
    """
    side = Side()
    side.listen()
    side.event(channel="topics/t")
    side.taken[0][1](True)
    assert side.acks == ["msg_1"]
    side.event(channel="global")
    assert side.acks == ["msg_1"]
    side.event(channel="global")
    assert side.acks == ["msg_1"] * 2


@pytest.mark.parametrize("channels", [["topics/t"], ["topics/t", "global"]])
def test_listener_for_global(channels: list[str]) -> None:
    """
    An event that is still to come on C{global}, where a listener wants it, is acknowledged after that; a client that is
    not on C{global} does not wait.
    """
    side = Side(channels=channels)
    side.listen("*", "topics/t")
    side.listen("*", "global")
    side.event(channel="topics/t")
    side.taken[0][1](True)
    if "global" in channels:
        assert side.acks == []
        side.event(channel="global")
        side.taken[1][1](True)
    assert side.acks == ["msg_1"]


@pytest.mark.parametrize("name", ["topics/a[1]", "topics/what?", "topics/[!x]", "agents/general purpose", "topics/*"])
def test_listener_for_a_name_that_looks_like_a_pattern(name: str) -> None:
    """
    A channel whose name has characters of patterns is heard by its name.
    """
    side = Side(channels=[name])
    side.listen("*", name)
    side.event(channel=name)
    assert len(side.taken) == 1


@pytest.mark.parametrize("observer", [False, True])
def test_acknowledged_before_it_is_handled(observer: bool) -> None:
    """
    A client may acknowledge an event that its user is still handling: once, and again only if it comes again, because
    the acknowledgement got lost.  An observer has nothing to acknowledge.
    """
    side = Side(observer=observer)
    side.listen()
    side.event()
    side.core.events.acknowledge("msg_unknown")
    side.core.events.acknowledge("msg_1")
    assert side.acks == ([] if observer else ["msg_1"])
    side.event()
    assert len(side.taken) == 1
    side.taken[0][1](True)
    assert side.acks == ([] if observer else ["msg_1", "msg_1"])


@pytest.mark.parametrize("observer", [False, True])
def test_observers_acknowledge_nothing(observer: bool) -> None:
    """
    The server does not wait for an observer.
    """
    side = Side(observer=observer)
    side.listen()
    side.event()
    side.taken[0][1](True)
    assert side.acks == ([] if observer else ["msg_1"])


def test_untracked_events_are_not_acknowledged() -> None:
    """
    The server does not ask for it.
    """
    side = Side()
    side.listen()
    side.event(event="system.info")
    side.taken[0][1](True)
    assert side.acks == []


def test_repetitions() -> None:
    """
    While it is dealt with a repetition is nothing; afterwards it is acknowledged again; after a failure it is given
    again.
    """
    side = Side()
    side.listen()
    side.event()
    side.event()
    assert len(side.taken) == 1
    side.taken[0][1](False)
    assert side.acks == []
    side.event()
    assert len(side.taken) == 2
    side.taken[1][1](True)
    side.event()
    assert len(side.taken) == 2
    assert side.acks == ["msg_1", "msg_1"]


def test_failure_is_given_again_with_the_next_sending() -> None:
    """
    The same sending on global is no second attempt; the next sending is one, on both.
    """
    side = Side()
    side.listen()
    side.listen("*", "global")
    side.event()
    side.taken[0][1](False)
    side.event(channel="global")
    assert [event.channel for event, _ in side.taken] == ["topics/t", "global"]
    side.taken[1][1](True)
    side.event()
    side.event(channel="global")
    assert [event.channel for event, _ in side.taken[2:]] == ["topics/t", "global"]
    assert side.acks == []
    for _, done in side.taken[2:]:
        done(True)
    assert side.acks == ["msg_1"]


def test_how_much_may_wait() -> None:
    """
    Ten times as much while an answer is awaited; a client that does not read says that it is there.
    """
    side = Side()
    side.hear(type="connected", client_id="ws_1")
    queue = Queue(side.core.events, "*", None, lambda: None)
    for number in range(4):
        side.event(f"msg_{number}")
    assert not side.core.full
    side.event("msg_4")
    assert side.core.full
    side.core.ping(side.replies.append)
    assert not side.core.full
    for number in range(5, 50):
        side.event(f"msg_{number}")
    assert side.core.full
    side.core.alive()
    assert side.said[-1] == {"type": "pong"}
    taken = queue.take()
    assert taken is not None and side.core.events.waiting == 50
    taken[1](True)
    assert (side.core.events.waiting, side.room, side.acks) == (49, 1, ["msg_0"])
    queue.end()
    assert (side.core.events.waiting, side.core.events.listeners, side.acks) == (0, {}, ["msg_0"])


def test_a_greeting_is_read_however_many_events_wait() -> None:
    """
    Events that wait from the connection before do not keep the client from reading the greeting of the next one.
    """
    side = Side()
    side.hear(type="connected", client_id="ws_1")
    Queue(side.core.events, "*", None, lambda: None)
    for number in range(60):
        side.event(f"msg_{number}")
    assert side.core.full
    side.core.lost(1006, "")
    side.connect()
    assert not side.core.full
    side.hear(type="connected", client_id="ws_2")
    assert side.core.full


def test_queue_ends_once() -> None:
    """
    Whoever waits for the next event is woken when there will be none.
    """
    side = Side()
    woken: list[int] = []
    queue = Queue(side.core.events, "*", None, lambda: woken.append(len(queue)))
    side.event()
    queue.end()
    queue.end()
    assert (woken, queue.ended, queue.take()) == ([1, 0], True, None)


def test_inbox() -> None:
    """
    To ask for the next event is to have dealt with the last; the one at which it ends is not acknowledged.
    """
    side = Side()
    inbox = Inbox(side.core.events, "task.*", None, lambda: None)
    for number in range(3):
        side.event(f"msg_{number}")
    first, second = inbox.next(), inbox.next()
    assert first is not None and second is not None
    assert (first.id, second.id, side.acks, side.core.events.waiting) == ("msg_0", "msg_1", ["msg_0"], 2)
    inbox.end()
    assert (inbox.next(), side.acks, side.core.events.waiting) == (None, ["msg_0"], 0)


def test_one_failure_is_enough() -> None:
    """
    If one of two handlers fails, nothing is acknowledged, whichever ends last.
    """
    side = Side()
    side.listen()
    side.listen()
    side.event()
    side.taken[0][1](False)
    side.taken[1][1](True)
    assert side.acks == []


def test_two_channels() -> None:
    """
    The same event on global is given to those alone who asked for a channel, and one ack is enough.
    """
    side = Side()
    side.listen()
    side.listen("*", "global")
    side.event()
    side.taken[0][1](True)
    side.event(channel="global")
    assert [event.channel for event, _ in side.taken] == ["topics/t", "global"]
    side.taken[1][1](True)
    assert side.acks == ["msg_1"]


def test_not_acknowledged_before_it_came_on_global() -> None:
    """
    One ack settles all channels: where a listener is to get the event on global, that is waited for.
    """
    side = Side(channels=["topics/t", "global"])
    side.listen("task.*", "global")
    side.event()
    assert side.acks == []
    side.event(channel="global")
    side.taken[0][1](False)
    assert side.acks == []
    side.event()
    side.event(channel="global")
    side.taken[1][1](True)
    assert side.acks == ["msg_1"]


def test_what_does_not_come_on_global_is_not_waited_for_twice() -> None:
    """
    If an event is sent again before it came on global, it is acknowledged when its last listener is done.
    """
    side = Side(channels=["topics/t", "global"])
    side.listen("*", "global")
    side.event()
    side.event()
    assert side.acks == ["msg_1"]
    side.listen("*", "topics/t")
    side.event("msg_2")
    side.event("msg_2")
    assert side.acks == ["msg_1"]
    side.taken[0][1](True)
    assert side.acks == ["msg_1", "msg_2"]


def test_memory_of_repetitions_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The oldest is forgotten first, except for events that are still being handled.
    """
    monkeypatch.setattr(events, "SEEN_MAX", 3)
    side = Side(queue_max=0)
    side.listen()
    for number in range(5):
        side.event(f"msg_{number}")
        if number:
            side.taken[-1][1](True)
    for number in (4, 0, 1):
        side.event(f"msg_{number}")
    assert [event.id for event, _ in side.taken] == ["msg_0", "msg_1", "msg_2", "msg_3", "msg_4", "msg_1"]


def test_who_published_an_event() -> None:
    """
    An event says who published it, and on C{global} where; both may be absent.
    """
    side = Side()
    side.listen("*")
    side.hear(id="1", channel="global", event="x", data=None, timestamp=1, origin="topics/t", **{"from": "ann"})
    side.hear(id="2", channel="topics/t", event="x", data=None, timestamp=1)
    assert [(event.sender, event.origin) for event, _ in side.taken] == [("ann", "topics/t"), (None, None)]
