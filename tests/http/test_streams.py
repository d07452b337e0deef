"""
Pages and long polls of the stream of a channel (Durable Streams 1.0, sections 5.5 to 5.7, 8 and 10).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from dcm_ws.core.log import MemoryLog
from dcm_ws.http import page_reader
from dcm_ws.http.streams import PAGES_A_TURN
from dcm_ws.protocol.errors import CloseCode
from dcm_ws.protocol.offsets import Offset
from dcm_ws.protocol.tokens import sign
from tests.core.latelog import LateLog
from tests.fakes import SECRET, WALL_MS
from tests.http.streaming import LONG_POLL, Ground, data_of

TOKEN = sign(SECRET, "one", None, WALL_MS)


def at(pos: int, epoch: str = "epoch") -> str:
    return str(Offset(epoch, pos))


@pytest.fixture
def ground() -> Ground:
    return Ground()


def test_page(ground: Ground) -> None:
    """
    Without an offset, or with C{-1}, a page begins with the oldest event; each message is the event as subscribers get
    it.
    """
    ground.publish(1, 2)
    for query in ("", "?offset=-1", "?unknown=x"):
        status, headers, body = ground.connect().get(f"topics/a{query}")
        assert status == 200
        assert headers["content-type"] == "application/json"
        assert headers["stream-next-offset"] == at(2)
        assert headers["stream-up-to-date"] == "true"
        assert headers["cache-control"] == "public, no-cache"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        first, second = json.loads(body)
        assert (first["channel"], first["event"], first["data"], first["pos"]) == ("topics/a", "session.created", 1, 1)
        assert second["data"] == 2
    assert ground.core.clients.sessions == set()


def test_names_of_channels(ground: Ground) -> None:
    """
    The name may have slashes, escaped or not, and other characters in UTF-8.
    """
    ground.publish(1, channel="topics/é/a b")
    for name in ("topics/%C3%A9/a%20b", "topics%2F%C3%A9%2Fa%20b"):
        assert data_of(ground.connect().get(name)[2]) == [1]
    assert data_of(ground.connect().get("global")[2]) == [1]
    assert data_of(ground.connect().get("metrics")[2]) == []
    for name in ("", "nothing", "topics", "topics/", "topics/%FF", "topics/a%00", "../stats"):
        status, _, body = ground.connect().get(name)
        assert (status, json.loads(body)["code"]) == (404, "INVALID_CHANNEL")


def test_pages_follow_each_other(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A long stream comes in pages, of which only the last one says that there is no more; all others may be cached.
    """
    monkeypatch.setattr(page_reader, "PAGE_MESSAGES", 3)
    ground.publish(*range(7))
    far, offset, pages, seen = ground.connect(), "-1", [], []
    while True:
        _, headers, body = far.get(f"topics/a?offset={offset}")
        offset = headers["stream-next-offset"]
        pages.append(data_of(body))
        seen.append((headers.get("stream-up-to-date"), headers["cache-control"]))
        if "stream-up-to-date" in headers:
            break
    assert pages == [[0, 1, 2], [3, 4, 5], [6]]
    assert seen == [(None, "public, max-age=60, stale-while-revalidate=300")] * 2 + [("true", "public, no-cache")]
    assert far.get(f"topics/a?offset={offset}")[2] == b"[]"


def test_pages_have_a_size(ground: Ground) -> None:
    """
    A page ends after so many bytes.
    """
    ground.publish(*("x" * 100_000 for _ in range(5)))
    _, headers, body = ground.connect().get("topics/a")
    assert len(json.loads(body)) == 3
    assert headers["stream-next-offset"] == at(3)


def test_now(ground: Ground) -> None:
    """
    C{now} is the end of the stream, and nothing that may be cached.
    """
    ground.publish(1)
    status, headers, body = ground.connect().get("topics/a?offset=now")
    assert (status, body) == (200, b"[]")
    assert (headers["stream-next-offset"], headers["stream-up-to-date"]) == (at(1), "true")
    assert headers["cache-control"] == "no-store"
    assert "etag" not in headers


def test_head(ground: Ground) -> None:
    """
    HEAD says where the stream ends.
    """
    ground.publish(1, 2)
    status, headers, body = ground.connect().get("topics/a", method="HEAD")
    assert (status, body) == (200, b"")
    assert headers["stream-next-offset"] == at(2)
    assert headers["content-type"] == "application/json"
    assert headers["cache-control"] == "no-store"
    assert "content-length" not in headers


def test_etag(ground: Ground) -> None:
    """
    A client that has a page already gets 304, until there is more.
    """
    ground.publish(1)
    far = ground.connect()
    etag = far.get("topics/a")[1]["etag"]
    status, headers, body = far.get("topics/a", If_None_Match=etag)
    assert (status, body, headers["etag"]) == (304, b"", etag)
    assert far.get("topics/a", If_None_Match='"other"')[0] == 200
    assert far.get(f"topics/a?offset={at(0)}", If_None_Match=etag)[0] == 200
    ground.publish(2)
    status, headers, _ = far.get("topics/a", If_None_Match=etag)
    assert status == 200
    assert headers["etag"] != etag


@pytest.mark.parametrize(
    "query",
    [
        *("offset=", "offset=a,b", "offset=x%20y", "offset=-1&offset=-1", "live=sse", "live=long-poll"),
        *("live=x&offset=-1", "offset=%FF", "live=sse&offset=", "offset=-1&live=sse&live=sse"),
    ],
)
def test_malformed_queries(ground: Ground, query: str) -> None:
    """
    What cannot be read is an error, and nothing else.
    """
    status, headers, body = ground.connect().get(f"topics/a?{query}")
    assert (status, json.loads(body)["code"]) == (400, "INVALID_MESSAGE")
    assert headers["x-content-type-options"] == "nosniff"
    assert ground.core.clients.sessions == set()


def test_gone() -> None:
    """
    An offset that the log does not reach is gone, with the offset from which it has everything.
    """
    ground = Ground(max_events=64)
    ground.publish(*range(100))
    oldest = at(ground.core.log.first - 1)
    for offset, reason, next_ in (
        (at(1), "expired", oldest),
        (at(1, "other"), "epoch", oldest),
        (at(1000), "ahead", at(100)),
    ):
        for live in ("", "&live=long-poll", "&live=sse"):
            status, headers, body = ground.connect().get(f"topics/a?offset={offset}{live}")
            error = json.loads(body)
            assert (status, error["code"]) == (410, "GONE")
            assert error["gap"] == {"reason": reason, "oldest": next_}
            assert headers["stream-next-offset"] == next_
            assert headers["cache-control"] == "no-store"
    _, headers, body = ground.connect().get(f"topics/a?offset={oldest}")
    assert len(data_of(body)) == len(ground.core.log)


def test_rights() -> None:
    """
    In production a token is required, and what it may read is private to its holder.
    """
    ground = Ground(production=True)
    ground.publish(1, channel="agents/one")
    status, headers, _ = ground.connect().get("agents/one")
    assert (status, headers["www-authenticate"]) == (401, "Bearer")
    status, headers, body = ground.connect().get("agents/one", Authorization=f"Bearer {TOKEN}")
    assert (status, data_of(body)) == (200, [1])
    assert headers["cache-control"] == "private, no-cache"
    assert "Authorization" in headers["vary"]
    assert data_of(ground.connect().get(f"agents/one?token={TOKEN}")[2]) == [1]


def test_private_channels_of_development(ground: Ground) -> None:
    """
    In development an agent's channel is for those who say that they are it.
    """
    assert ground.connect().get("agents/one")[0] == 403
    status, headers, _ = ground.connect().get("agents/one?agent_id=one")
    assert (status, headers["cache-control"]) == (200, "private, no-cache")


def test_pages_of_other_origins(ground: Ground) -> None:
    """
    Web pages that may call can read where a stream goes on.
    """
    _, headers, _ = ground.connect().get("topics/a", Origin="https://example.com")
    assert headers["access-control-allow-origin"] == "https://example.com"
    assert "Stream-Next-Offset" in headers["access-control-expose-headers"]
    assert "Origin" in headers["vary"]


def test_log_that_answers_later() -> None:
    """
    A page that has to be read from the database comes when it has been read.
    """
    ground = Ground(log=LateLog)
    log: Any = ground.core.log
    ground.publish(1)
    log.settle()
    far = ground.connect()
    far.ask("topics/a")
    assert far.take() == b""
    log.read()
    far.turns(10)
    assert data_of(far.response()[2]) == [1]
    assert ground.core.clients.sessions == set()


def test_log_that_does_not_answer() -> None:
    """
    If the log cannot be read in time, the client has to try again.
    """
    ground = Ground(log=LateLog)
    log: Any = ground.core.log
    ground.publish(1)
    log.settle()
    far = ground.connect()
    far.ask("topics/a")
    for _ in range(25):
        far.turns(100)
    status, headers, body = far.response()
    assert (status, headers["retry-after"], json.loads(body)["code"]) == (503, "1", "NOT_AVAILABLE")
    assert ground.core.clients.sessions == set()


class Follower(MemoryLog):
    """
    The log of a node that waits for what other nodes have.

    @ivar asked: what waits.
    """

    asked: Callable[[bool], object]

    def reach(self, pos: int, ready: Callable[[bool], object]) -> None:
        self.asked = ready


@pytest.mark.parametrize("live", ["", "&live=long-poll", "&live=sse"])
def test_client_that_comes_from_another_node(live: str) -> None:
    """
    If another node had more of the log, a client that comes from there waits until this one has it.
    """
    ground = Ground(log=Follower)
    log: Any = ground.core.log
    ground.publish(1)
    far = ground.connect()
    far.ask(f"topics/a?offset={at(2)}{live}")
    assert far.take() == b""
    ground.publish(2, 3)
    log.asked(True)
    far.turns(3)
    answer = far.take()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b'"data":3' in answer
    assert b'"data":2' not in answer
    # this one is further than any node
    far = ground.connect()
    far.ask(f"topics/a?offset={at(9)}{live}")
    log.asked(True)
    far.turn()
    assert far.response()[0] == 410
    far = ground.connect()
    far.ask(f"topics/a?offset={at(9)}{live}")
    log.asked(False)
    far.turn()
    assert far.response()[0] == 503
    far = ground.connect()
    far.ask(f"topics/a?offset={at(9)}{live}")
    far.lose()
    log.asked(True)
    ground.reactor.advance(100)


def test_client_that_goes_while_the_log_is_read() -> None:
    """
    Nothing is left of a client that does not wait for its page.
    """
    ground = Ground(log=LateLog)
    log: Any = ground.core.log
    ground.publish(1)
    log.settle()
    far = ground.connect()
    far.ask("topics/a")
    assert len(ground.core.clients.sessions) == 1
    far.lose()
    assert ground.core.clients.sessions == set()
    log.read()
    ground.reactor.advance(100)


def test_long_poll_waits(ground: Ground) -> None:
    """
    A long poll at the end of the stream is answered with the next event.
    """
    ground.publish(1)
    for offset in (at(1), "now"):
        far = ground.connect()
        far.ask(f"topics/a?offset={offset}&live=long-poll")
        assert far.take() == b""
        ground.publish("other", channel="topics/b")
        ground.publish("not logged", event="agent.heartbeat")
        far.turn()
        assert far.take() == b""
        ground.publish(2)
        far.turn()
        status, headers, body = far.response()
        assert (status, data_of(body)) == (200, [2])
        assert headers["stream-next-offset"] == at(ground.core.log.head)
        assert headers["stream-up-to-date"] == "true"
        assert headers["stream-cursor"].isdigit()
        ground.core.log.expire(0)
        assert ground.core.clients.sessions == set()
        ground = Ground()
        ground.publish(1)


def test_long_poll_has_what_there_is(ground: Ground) -> None:
    """
    If there is something after the offset, it is there at once.
    """
    ground.publish(1, 2)
    status, headers, body = ground.connect().get("topics/a?offset=-1&live=long-poll")
    assert (status, data_of(body), headers["stream-up-to-date"]) == (200, [1, 2], "true")


def test_long_poll_has_all_of_a_turn(ground: Ground) -> None:
    """
    What is published in one turn of the reactor comes together, and a page's worth at most.
    """
    far = ground.connect()
    far.ask("topics/a?offset=now&live=long-poll")
    ground.publish(1, 2)
    far.turn()
    assert data_of(far.response()[2]) == [1, 2]
    far.ask(f"topics/a?offset={at(2)}&live=long-poll")
    ground.publish(*("x" * 100_000 for _ in range(5)))
    far.turn()
    _, headers, body = far.response()
    assert len(data_of(body)) == 3
    assert headers["stream-next-offset"] == at(5)
    assert "stream-up-to-date" not in headers
    assert len(data_of(far.get(f"topics/a?offset={at(5)}&live=long-poll")[2])) == 2


def test_long_poll_ends(ground: Ground) -> None:
    """
    If nothing is published in time, the client comes back with the same offset and another cursor.
    """
    ground.publish(1)
    far = ground.connect()
    far.ask("topics/a?offset=now&live=long-poll")
    ground.reactor.advance(LONG_POLL - 1)
    far.turn()
    assert far.take() == b""
    ground.reactor.advance(2)
    far.turn()
    status, headers, body = far.response()
    assert (status, body) == (204, b"")
    assert (headers["stream-next-offset"], headers["stream-up-to-date"]) == (at(1), "true")
    assert headers["cache-control"] == "no-store"
    assert "content-length" not in headers
    cursor = int(headers["stream-cursor"])
    far.ask(f"topics/a?offset={at(1)}&live=long-poll&cursor={cursor + 5}")
    ground.publish(2)
    far.turn()
    assert int(far.response()[1]["stream-cursor"]) > cursor + 5
    assert ground.core.clients.sessions == set()


def test_long_poll_of_a_client_that_goes(ground: Ground) -> None:
    """
    Nothing is left of a client that does not wait to the end.
    """
    far = ground.connect()
    far.ask("topics/a?offset=now&live=long-poll")
    assert len(ground.core.clients.sessions) == len(ground.polls) == 1
    far.lose()
    assert len(ground.polls) == 0
    assert (ground.core.clients.sessions, len(ground.core.registry)) == (set(), 0)
    ground.publish(1)
    ground.reactor.advance(100)


def test_long_polls_are_connections() -> None:
    """
    A client that waits takes the room of a connection; beyond the limit, it has to come again.
    """
    ground = Ground(max_connections=1)
    waiting = ground.connect()
    waiting.ask("topics/a?offset=now&live=long-poll")
    for live in ("long-poll", "sse"):
        status, headers, body = ground.connect().get(f"topics/a?offset=now&live={live}")
        assert (status, json.loads(body)["code"]) == (503, "TOO_MANY_CONNECTIONS")
        assert headers["retry-after"] == "1"
    assert ground.connect().get("topics/a")[0] == 200
    assert ground.core.counts.limits.max_connections.value == 2


def test_nothing_is_left_of_a_client_that_is_refused() -> None:
    """
    A client for which there is no room leaves nothing behind, and its budget is not kept.
    """
    ground = Ground(max_connections=0, production=True, rate_limit=5.0)
    for live in ("long-poll", "sse"):
        status, _, _ = ground.connect().get(f"topics/a?offset=now&live={live}", Authorization=f"Bearer {TOKEN}")
        assert status == 503
    assert (ground.core.clients.authenticated, ground.core.clients.sessions) == (0, set())
    ground.reactor.advance(3600)
    ground.core.grants.forget()
    assert len(ground.core.grants.agents) == 0


def test_long_poll_outlives_the_heartbeats() -> None:
    """
    A client that waits longer than a heartbeat is not taken for dead.
    """
    ground = Ground(heartbeat_interval=2.0, heartbeat_timeout=5.0)
    far = ground.connect()
    far.ask("topics/a?offset=now&live=long-poll")
    for _ in range(15):
        ground.reactor.advance(1)
        list(ground.core.hub.sweep())
    far.turn()
    assert far.take() == b""
    ground.publish(1)
    far.turn()
    assert far.response()[0] == 200


def test_many_long_polls_are_answered_in_turns(ground: Ground) -> None:
    """
    Very many clients that wait for the same event are answered in several turns of the reactor, all of them.
    """
    ends = [ground.connect() for _ in range(100)]
    for far in ends:
        far.ask("topics/a?offset=now&live=long-poll")
    ground.publish(1)
    waiting: list[int] = []
    # in the turn in which they would all be answered
    ground.reactor.callLater(0, lambda: waiting.append(len(ground.core.clients.sessions)))
    ends[0].turn()
    assert waiting == [100 - PAGES_A_TURN]
    for far in ends:
        far.write()
    for far in ends:
        assert data_of(far.response()[2]) == [1]


def test_end_of_the_service(ground: Ground) -> None:
    """
    When the service stops, a long poll ends at once, as if its time were up.
    """
    far = ground.connect()
    far.ask("topics/a?offset=now&live=long-poll")
    (session,) = ground.core.clients.sessions
    ground.core.hub.close(session, CloseCode.RESTART)
    far.turn()
    assert far.response()[0] == 204


def test_rate_limit() -> None:
    """
    Requests are charged to their address like messages.
    """
    ground = Ground(rate_limit=1.0, rate_burst=3.0)
    far = ground.connect()
    statuses = [far.get("topics/a")[0] for _ in range(40)]
    assert statuses[0] == 200
    assert statuses[-1] == 429


def test_other_methods(ground: Ground) -> None:
    """
    A stream is written with C{/v1/publish}, and not here.
    """
    for method in ("POST", "PUT", "DELETE"):
        status, headers, _ = ground.connect().get("topics/a", method=method)
        assert (status, headers["allow"]) == (405, "GET, HEAD, OPTIONS")
