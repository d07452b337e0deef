"""
The clients of HTTP calls: who they are, what they may, and what they spend.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from dcm_ws.core.rights import demand_operator
from dcm_ws.core.session import Session, State
from dcm_ws.protocol.channels import Channels
from dcm_ws.protocol.errors import CloseCode, ErrorCode, ProtocolError
from dcm_ws.protocol.tokens import sign
from tests.fakes import SECRET, WALL_MS, Client, RecordingPeer, make_core

HERE = "192.0.2.1"


def token(agent: str = "one", *scope: str) -> str:
    """
    A valid token.
    """
    return sign(SECRET, agent, "work", WALL_MS, scope=scope or None)


def refused(core: Any, *who: Any) -> ProtocolError:
    """
    Why a caller is not admitted.
    """
    with pytest.raises(ProtocolError) as error:
        core.callers.admit(*who)
    return error.value


def publish(core: Any, session: Session, event: str = "task.created", key: str | None = None) -> Any:
    """
    Publish an event to C{topics/a}.
    """
    return core.publishing.publish(session, "topics/a", event, b"{}", key)


def test_anonymous_caller(clock: Clock) -> None:
    """
    In development a caller needs no token, and may publish.
    """
    core = make_core(clock)
    session = core.callers.admit(None, "one", HERE)
    assert (session.state, session.agent, session.origin.agent_id) == (State.ANONYMOUS, None, "one")
    assert publish(core, session).pos == 1
    core.callers.release(session)
    assert session.state is State.CLOSED


def test_caller_with_a_token(clock: Clock) -> None:
    """
    A caller with a token is the token's agent, and an observer: the agent is not present by it.
    """
    core = make_core(clock, production=True)
    dashboard = Client(core)
    dashboard.say(type="auth", token=token("dashboard"))
    session = core.callers.admit(token("one", "operator"), "other", HERE)
    assert (session.agent, session.dcm_session, session.rights.operator) == ("one", "work", True)
    assert session.present is None
    assert session.sender == b',"from":"one"'
    assert session.expires_ms == 0
    core.callers.release(session)
    assert dashboard.peer.take() == []


def test_expiry_that_is_enforced(clock: Clock) -> None:
    """
    A session knows when its token expires, if that is enforced.
    """
    core = make_core(clock, enforce_expiry=True)
    assert core.callers.admit(token(), None, HERE).expires_ms == WALL_MS + 3_600_000


def test_production_takes_a_token(clock: Clock) -> None:
    """
    In production there are no callers without a valid token.
    """
    core = make_core(clock, production=True)
    assert refused(core, None, "one", HERE).code is ErrorCode.TOKEN_REQUIRED
    assert refused(core, "x", None, HERE).code is ErrorCode.TOKEN_INVALID
    late = sign(SECRET, "one", None, WALL_MS - 10, ttl_ms=5)
    assert refused(core, late, None, HERE).code is ErrorCode.TOKEN_EXPIRED
    assert core.callers.knows(token())
    assert not core.callers.knows(late)
    core.callers.refused(refused(core, "x", None, HERE))
    assert core.counts.refusals[ErrorCode.TOKEN_INVALID] == 1


def test_listeners_of_production(clock: Clock) -> None:
    """
    If clients without a token may listen in production, callers may, too; they may not publish.
    """
    core = make_core(clock, production=True, anonymous_listeners=True)
    session = core.callers.admit(None, None, HERE)
    assert session.is_stranger
    with pytest.raises(ProtocolError) as error:
        publish(core, session)
    assert error.value.code is ErrorCode.NOT_AUTHORIZED


def test_one_budget_for_an_agent(clock: Clock) -> None:
    """
    An agent spends over HTTP from the same budget as over WebSockets.
    """
    core = make_core(clock, rate_limit=1.0, rate_burst=3.0)
    client = Client(core)
    client.auth("one")
    for _ in range(2):
        session = core.callers.admit(token(), None, HERE)
        core.callers.charge(session, 10)
        core.callers.release(session)
    assert client.say(type="ping", id=1)[0]["type"] == "pong"
    session = core.callers.admit(token(), None, HERE)
    with pytest.raises(ProtocolError) as error:
        core.callers.charge(session, 10)
    assert (error.value.code, error.value.retry_after_ms) == (ErrorCode.RATE_LIMITED, 1000)
    assert core.counts.limits.rate_limit.value == 1
    assert client.say(type="ping", id=2)[0]["code"] == "RATE_LIMITED"


def test_batch_that_is_charged(clock: Clock) -> None:
    """
    Each event of a batch is charged, also if there was less left; the next request has to wait for that.
    """
    core = make_core(clock, rate_limit=1.0, rate_burst=3.0)
    session = core.callers.admit(token(), None, HERE)
    core.callers.charge(session, 10)
    core.callers.charge_more(session, 9)
    clock.advance(7)
    with pytest.raises(ProtocolError):
        core.callers.charge(session, 10)
    clock.advance(1)
    core.callers.charge(session, 10)


@pytest.mark.parametrize("address", [HERE, ""])
def test_budget_of_an_address(clock: Clock, address: str) -> None:
    """
    Callers without a token spend from the budget of their address, which outlasts the request.  A Unix socket has no
    address.
    """
    core = make_core(clock, rate_limit=1.0, rate_burst=1.0)
    spent = 0
    for _ in range(11):
        session = core.callers.admit(None, None, address)
        try:
            core.callers.charge(session, 0)
        except ProtocolError:
            break
        finally:
            core.callers.release(session)
        spent += 1
    assert spent == (10 if address else 11)


def test_caller_that_goes_on(clock: Clock) -> None:
    """
    A caller that keeps breaking the limit gets the same refusal again: it has no connection to be closed.
    """
    core = make_core(clock, rate_limit=1.0, rate_burst=1.0)
    session = core.callers.admit(token(), None, HERE)
    core.callers.charge(session, 0)
    for _ in range(50):
        with pytest.raises(ProtocolError):
            core.callers.charge(session, 0)
    assert session.state is State.AUTHENTICATED


def test_keys_of_an_address(clock: Clock) -> None:
    """
    A caller without a token may repeat a publish with its key, also over another connection; callers of other
    addresses, and clients, have other keys.
    """
    core = make_core(clock)
    first = publish(core, core.callers.admit(None, None, HERE), key="k")
    again = publish(core, core.callers.admit(None, None, HERE), key="k")
    assert (again.id, again.duplicate) == (first.id, True)
    assert not publish(core, core.callers.admit(None, None, "192.0.2.2"), key="k").duplicate


@pytest.mark.parametrize("production", [False, True])
def test_operators(clock: Clock, production: bool) -> None:
    """
    In production only an operator's token makes an operator; in development everybody may do everything.
    """
    core = make_core(clock, production=production)
    demand_operator(core.callers.admit(token("one", "operator"), None, HERE))
    session = core.callers.admit(token(), None, HERE)
    if not production:
        demand_operator(session)
        return
    with pytest.raises(ProtocolError) as error:
        demand_operator(session)
    assert error.value.code is ErrorCode.NOT_AUTHORIZED


def test_caller_that_listens(clock: Clock) -> None:
    """
    A caller with a peer of its own receives there what it subscribes to; without one it has a peer that does nothing.
    """
    core = make_core(clock)
    peer = RecordingPeer()
    assert core.callers.admit(None, None, HERE, peer).peer is peer
    nobody = core.callers.admit(None, None, HERE).peer
    nobody.send(b"x")
    nobody.offer("x", b"x")
    nobody.replay(iter(()))
    nobody.go_on()
    nobody.trust()
    nobody.stop_reading()
    nobody.read_on()
    nobody.close(CloseCode.RESTART)
    assert not nobody.has_unsent()
    assert not nobody.has_unread()


@pytest.mark.parametrize(
    ("channel", "event", "data", "code"),
    [
        ("nowhere", "task.created", b"{}", ErrorCode.INVALID_CHANNEL),
        ("global", "other", b"{}", ErrorCode.INVALID_EVENT),
        ("global", "system.info", b"{}", ErrorCode.NOT_AUTHORIZED),
        ("global", "task.created", b"[" * 200 + b"]" * 200, ErrorCode.INVALID_MESSAGE),
    ],
)
def test_check_publishes_nothing(clock: Clock, channel: str, event: str, data: bytes, code: ErrorCode) -> None:
    """
    An event is checked as a client's, and can be checked without being published.
    """
    core = make_core(clock, production=True)
    session = core.callers.admit(token(), None, HERE)
    with pytest.raises(ProtocolError) as error:
        core.publishing.check(session, channel, event, data)
    assert error.value.code is code
    checked = core.publishing.check(session, "topics/a", "task.created", b"1")
    assert checked.channel == Channels().parse("topics/a")
    assert core.log.head == 0
    (published,) = core.publishing.publish_all(session, [checked], list)  # type: ignore[arg-type]
    assert published.pos == 1
