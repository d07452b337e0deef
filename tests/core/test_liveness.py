"""
Silence: whose it is, and when it counts (protocol, section 6).
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from dcm_ws.core.assembly import Core
from dcm_ws.core.clock import RunningClock
from dcm_ws.core.session import Origin
from dcm_ws.protocol.errors import CloseCode
from dcm_ws.protocol.frames import PING_FRAME
from dcm_ws.protocol.tokens import sign
from tests.core.living import finish, live
from tests.fakes import SECRET, WALL_MS, Client, make_core


def pause(core: Core, clock: Clock, seconds: float) -> None:
    """
    The process stands still for some seconds, and the first thing that happens afterwards is a sweep.
    """
    clock.advance(seconds)
    finish(core.hub.sweep())


def pings(client: Client) -> int:
    return sum(message.get("type") == "ping" for message in client.peer.take())


# the clock


def test_clock_shows_what_passes_between_ticks(clock: Clock) -> None:
    """
    While the process runs, the clock is the real one.
    """
    running = RunningClock(clock.seconds)
    for _ in range(10):
        running.tick()
        before = running()
        clock.advance(2.5)
        assert running() == before + 2.5 == clock.seconds()


@pytest.mark.parametrize("seconds", [3.5, 60.0, 1e6])
def test_pause_counts_up_to_the_limit(clock: Clock, seconds: float) -> None:
    """
    What passes without a tick counts up to the limit, before the next tick and after it; then time goes on from there.
    """
    running = RunningClock(clock.seconds, 3.0)
    running.tick()
    before = running()
    clock.advance(seconds)
    assert running() == running() == before + 3
    assert running.tick() == seconds
    assert running() == before + 3
    clock.advance(2)
    assert running() == before + 5
    running.tick()
    clock.advance(seconds)
    running.tick()
    assert running() == before + 8


def test_everything_counts_before_the_first_tick(clock: Clock) -> None:
    """
    A service that takes long to start has not been paused.
    """
    running = RunningClock(clock.seconds, 3.0)
    clock.advance(100)
    assert running() == clock.seconds() == running.real()


# silence


def test_ping_frame_comes_before_the_ping_message(core: Core, clock: Clock) -> None:
    """
    Some clients return a text message and leave a Ping behind it unread.
    """
    client = Client(core)
    client.peer.take()
    live(core, clock, 30)
    assert b"".join(client.peer.frames).startswith(PING_FRAME)
    assert pings(client) == 1


@pytest.mark.parametrize("seconds", [7, 59, 60, 61, 3600, 1e6])
@pytest.mark.parametrize("before", [0, 29, 31, 59])
def test_pause_of_the_service_closes_nobody(core: Core, clock: Clock, before: int, seconds: float) -> None:
    """
    After a pause the full time-out must pass before a client is closed, however silent it was before, and it is pinged.
    """
    client = Client(core)
    live(core, clock, before)
    client.peer.take()
    pause(core, clock, seconds)
    live(core, clock, 59)
    assert client.peer.closed is None
    assert pings(client) >= 1
    live(core, clock, 1)
    assert client.peer.closed is CloseCode.PING_TIMEOUT


def test_delays_of_a_busy_service_are_no_pause(core: Core, clock: Clock) -> None:
    """
    A service that is late with each sweep still finds out who is silent.
    """
    client = Client(core)
    for _ in range(9):
        pause(core, clock, 6)
        finish(core.hub.sweep())
    assert (client.peer.closed, pings(client)) == (None, 1)
    pause(core, clock, 6)
    assert client.peer.closed is CloseCode.PING_TIMEOUT


def test_client_that_answers_after_a_pause_stays(core: Core, clock: Clock) -> None:
    """
    Pause after pause.
    """
    client = Client(core)
    for _ in range(5):
        pause(core, clock, 200)
        live(core, clock, 31)
        assert pings(client) >= 1
        client.session.heard_at = clock.seconds()
    assert client.peer.closed is None


def test_client_that_was_not_pinged_is_not_closed(clock: Clock) -> None:
    """
    A client is closed only after a ping that it has not answered; if it was not pinged in time, its time begins again.
    """
    core = make_core(clock)
    client = Client(core)
    client.peer.take()
    heartbeat = b"".join(client.peer.frames)
    # its check is late, and the service is not
    clock.advance(61)
    core.liveness.resumed_at = 0.0
    assert core.liveness.check(client.session, clock.seconds(), PING_FRAME + heartbeat) is None
    assert client.session.ping_at == clock.seconds() + 30
    assert client.peer.frames
    assert core.liveness.check(client.session, clock.seconds() + 60, PING_FRAME) is CloseCode.PING_TIMEOUT


def test_answer_that_waits_to_be_read_counts(core: Core, clock: Clock) -> None:
    """
    A client whose bytes wait in the service's own buffer is not silent.
    """
    client = Client(core)
    client.peer.unread = True
    live(core, clock, 119)
    assert client.peer.closed is None
    client.peer.unread = False
    live(core, clock, 1)
    assert client.peer.closed is CloseCode.PING_TIMEOUT


@pytest.mark.parametrize(("interval", "timeout"), [(30, 10), (10, 10), (3600, 60), (9, 10), (30, 60)])
def test_ping_comes_before_the_time_out(clock: Clock, interval: int, timeout: int) -> None:
    """
    Whatever the interval, a client is pinged before it is closed: one that answers stays, one that does not is closed
    at the time-out.
    """
    core = make_core(clock, heartbeat_interval=float(interval), heartbeat_timeout=float(timeout))
    answering, mute = Client(core), Client(core)
    mute.peer.take()
    for _ in range(timeout - 1):
        live(core, clock, 1)
        if pings(answering):
            answering.session.heard_at = clock.seconds()
    assert (pings(mute) >= 1, mute.peer.closed) == (True, None)
    live(core, clock, 1)
    assert mute.peer.closed is CloseCode.PING_TIMEOUT
    for _ in range(3 * timeout):
        live(core, clock, 1)
        if pings(answering):
            answering.session.heard_at = clock.seconds()
    assert answering.peer.closed is None


# other time limits


@pytest.mark.parametrize("seconds", [3, 5, 3600])
@pytest.mark.parametrize("before", [0, 9])
def test_pause_does_not_end_the_time_to_authenticate(clock: Clock, before: int, seconds: float) -> None:
    """
    A client whose authentication may wait to be read has its full time again.
    """
    core = make_core(clock, production=True)
    client = Client(core)
    live(core, clock, before)
    pause(core, clock, seconds)
    live(core, clock, 9)
    assert client.peer.closed is None
    live(core, clock, 1)
    assert client.peer.closed is CloseCode.AUTHENTICATION_REQUIRED


@pytest.mark.parametrize("clamped", [False, True])
def test_tokens_expire_during_a_pause(clock: Clock, clamped: bool) -> None:
    """
    A token expires by the wall clock, also while the service is not running; one that has not expired stays good.
    """
    running = RunningClock(clock.seconds)
    core = make_core(clock, production=True, enforce_expiry=True, now=running if clamped else None)
    short, long = (
        Client(
            core, Origin(claims=core.identity.verify(sign(SECRET, "ann", None, core.world.wall_ms(), seconds * 1000)))
        )
        for seconds in (100, 400)
    )
    stranger = Client(core)
    for seconds in (1, 1, 1, 200, 1):
        clock.advance(seconds)
        core.liveness.paused(running.tick())
        finish(core.hub.sweep())
    assert (short.peer.closed, long.peer.closed) == (CloseCode.AUTHENTICATION_REQUIRED, None)
    assert stranger.peer.closed is None


def test_tokens_expire_during_short_pauses(clock: Clock) -> None:
    """
    The time that a running clock leaves out is made up for, however short each pause is.
    """
    running = RunningClock(clock.seconds)
    core = make_core(clock, production=True, enforce_expiry=True, now=running)
    client = Client(core, Origin(claims=core.identity.verify(sign(SECRET, "ann", None, core.world.wall_ms(), 16_000))))
    for closed in (None, None, None, CloseCode.AUTHENTICATION_REQUIRED):
        clock.advance(5)
        core.liveness.paused(running.tick())
        finish(core.hub.sweep())
        assert client.peer.closed is closed


@pytest.mark.parametrize(
    ("rules", "seconds"),
    [
        ({}, 1.0),
        ({"heartbeat_interval": 0.4, "heartbeat_timeout": 1.0}, 0.1),
        ({"heartbeat_interval": 30.0, "heartbeat_timeout": 2.0}, 0.5),
        ({"auth_timeout": 0.5}, 0.125),
    ],
)
def test_short_times_are_looked_after_often(clock: Clock, rules: dict[str, Any], seconds: float) -> None:
    """
    A sweep comes every second, or four times in the shortest of the time-outs, so that none is enforced late.
    """
    assert make_core(clock, **rules).liveness.interval == seconds


def test_silence_is_noticed_within_one_sweep(clock: Clock) -> None:
    """
    A client that says nothing is closed by the first sweep after its time is up.
    """
    core = make_core(clock, heartbeat_interval=0.4, heartbeat_timeout=1.0)
    client = Client(core)
    live(core, clock, 0.9, step=core.liveness.interval)
    assert client.peer.closed is None
    live(core, clock, 0.2, step=core.liveness.interval)

    assert client.peer.closed is CloseCode.PING_TIMEOUT


# liveness


def test_ping_every_thirty_seconds(clock: Clock, core: Core, client: Client) -> None:
    """
    Every 30 s the server asks whether the client lives, with a message and a Ping frame.
    """
    heard = []
    for second in range(1, 101):
        client.session.heard_at = clock.seconds()
        live(core, clock, 1)
        ping_frames = b"".join(client.peer.frames).count(b"\x89\x00")
        if pings(client):
            heard.append((second, ping_frames))

    assert heard == [(30, 1), (60, 1), (90, 1)]


def test_silent_client_is_closed(clock: Clock, core: Core, client: Client) -> None:
    """
    60 s of silence end the connection.
    """
    live(core, clock, 59)
    assert client.peer.closed is None
    live(core, clock, 1)

    assert client.peer.closed is CloseCode.PING_TIMEOUT
    assert client.session not in core.clients.sessions
    assert core.stats.report(names=False)["closes"] == {"4000": 1}


def test_anything_heard_counts(clock: Clock, core: Core, client: Client) -> None:
    """
    A client that is heard, of whatever it may be, has another 60 s from then.
    """
    live(core, clock, 45)
    client.session.heard_at = clock.seconds()
    live(core, clock, 59)
    assert client.peer.closed is None
    live(core, clock, 1)

    assert client.peer.closed is CloseCode.PING_TIMEOUT


def test_pings_alone_do_not_keep_a_client(clock: Clock, core: Core, client: Client) -> None:
    """
    What the server sends is no sign of life.
    """
    live(core, clock, 60)

    assert pings(client) == 1
    assert client.peer.closed is CloseCode.PING_TIMEOUT


def test_other_intervals(clock: Clock) -> None:
    """
    An operator may have clients watched more closely; the sweep follows.
    """
    core = make_core(clock, heartbeat_interval=0.5, heartbeat_timeout=1.0)
    client = Client(core)
    client.peer.take()
    live(core, clock, 0.5, core.liveness.interval)
    assert pings(client) == 1
    live(core, clock, 0.5, core.liveness.interval)

    assert client.peer.closed is CloseCode.PING_TIMEOUT


def test_intervals_that_do_not_divide_each_other(clock: Clock) -> None:
    """
    A client that was heard between two pings is neither pinged nor closed when its first silence would have ended.
    """
    core = make_core(clock, heartbeat_interval=40.0, heartbeat_timeout=60.0)
    client = Client(core)
    live(core, clock, 50)
    assert pings(client) == 1
    client.session.heard_at = clock.seconds()
    live(core, clock, 29)
    assert pings(client) == 0
    live(core, clock, 1)
    assert pings(client) == 1
    live(core, clock, 30)

    assert client.peer.closed is CloseCode.PING_TIMEOUT


# authentication in time


def test_production_waits_ten_seconds_for_authentication(clock: Clock) -> None:
    """
    In production a client that has not authenticated after 10 s is closed, however lively it is.
    """
    core = make_core(clock, production=True)
    client = Client(core)
    live(core, clock, 9)
    client.say(type="ping")
    client.session.heard_at = clock.seconds()
    assert client.peer.closed is None
    live(core, clock, 1)

    assert client.peer.closed is CloseCode.AUTHENTICATION_REQUIRED


def test_authenticated_in_time(clock: Clock) -> None:
    """
    Who authenticates in time stays, and is pinged as everybody is.
    """
    core = make_core(clock, production=True)
    client = Client(core)
    live(core, clock, 9)
    client.say(type="auth", token=sign(SECRET, "ann", None, core.world.wall_ms()))
    client.session.heard_at = clock.seconds()
    live(core, clock, 21)

    assert client.peer.closed is None
    assert pings(client) == 1


def test_failed_authentication_does_not_stop_the_clock(clock: Clock) -> None:
    """
    A bad token buys no time.
    """
    core = make_core(clock, production=True)
    client = Client(core)
    live(core, clock, 9)
    assert client.say(type="auth", token="x")[-1]["code"] == "TOKEN_INVALID"
    live(core, clock, 1)

    assert client.peer.closed is CloseCode.AUTHENTICATION_REQUIRED


def test_development_does_not_wait(clock: Clock, core: Core, client: Client) -> None:
    """
    In development an anonymous client may stay.
    """
    live(core, clock, 59)

    assert client.peer.closed is None


def stay(core: Core, clock: Clock, client: Client, seconds: int) -> None:
    """
    Let time pass, with a lively client.
    """
    for _ in range(seconds // 10):
        client.session.heard_at = clock.seconds()
        clock.advance(10)
        finish(core.hub.sweep())


@pytest.mark.parametrize("production", [False, True])
def test_expired_token_does_not_end_the_connection(clock: Clock, production: bool) -> None:
    """
    When a token expires, the connection stays.
    """
    core = make_core(clock, production=production)
    client = Client(core)
    client.say(type="auth", token=sign(SECRET, "ann", None, WALL_MS))
    stay(core, clock, client, 7200)

    assert client.peer.closed is None
    assert client.say(type="publish", channel="global", event="agent.heartbeat", id=1)[-1]["success"] is True


@pytest.mark.parametrize("production", [False, True])
def test_expired_token_ends_the_connection_where_enforced(clock: Clock, production: bool) -> None:
    """
    With C{--enforce-expiry} it does, with the code that says to get a token.
    """
    core = make_core(clock, production=production, enforce_expiry=True)
    client = Client(core)
    client.say(type="auth", token=sign(SECRET, "ann", None, WALL_MS))
    stay(core, clock, client, 3590)
    assert client.peer.closed is None
    stay(core, clock, client, 10)

    assert client.peer.closed is CloseCode.AUTHENTICATION_REQUIRED


@pytest.mark.parametrize("seconds", [1, 7.3, 29.9, 31, 44.5, 58])
@pytest.mark.parametrize("in_the_query", [False, True])
def test_expiry_is_enforced_within_one_sweep(clock: Clock, seconds: float, in_the_query: bool) -> None:
    """
    The connection is closed by the first sweep after the token has expired, and not by the next ping.
    """
    core = make_core(clock, production=True, enforce_expiry=True)
    token = sign(SECRET, "ann", None, WALL_MS, ttl_ms=round(seconds * 1000))
    if in_the_query:
        client = Client(core, Origin(claims=core.identity.verify(token)))
    else:
        client = Client(core)
        client.say(type="auth", token=token)
    clock.advance(seconds - 0.01)
    finish(core.hub.sweep())
    assert client.peer.closed is None
    clock.advance(core.liveness.interval + 0.01)
    finish(core.hub.sweep())

    assert client.peer.closed is CloseCode.AUTHENTICATION_REQUIRED


def test_last_token_decides(clock: Clock) -> None:
    """
    A new token may also expire earlier than the one before it.
    """
    core = make_core(clock, enforce_expiry=True)
    client = Client(core)
    client.say(type="auth", token=sign(SECRET, "ann", None, WALL_MS))
    client.say(type="auth", token=sign(SECRET, "ann", None, WALL_MS, ttl_ms=5_000))
    live(core, clock, 6)

    assert client.peer.closed is CloseCode.AUTHENTICATION_REQUIRED


def test_authenticating_without_a_token_ends_the_expiry(clock: Clock) -> None:
    """
    In development, C{auth} with a name only replaces a token that would have expired.
    """
    core = make_core(clock, enforce_expiry=True)
    client = Client(core)
    client.say(type="auth", token=sign(SECRET, "ann", None, WALL_MS, ttl_ms=5_000))
    client.auth("ann")
    stay(core, clock, client, 60)

    assert client.peer.closed is None


def test_another_token_refreshes_the_first(clock: Clock) -> None:
    """
    A new C{auth} in time gives another hour, and a bad one takes nothing away.
    """
    core = make_core(clock, production=True, enforce_expiry=True)
    client = Client(core)
    client.say(type="auth", token=sign(SECRET, "ann", None, WALL_MS))
    stay(core, clock, client, 1800)
    client.say(type="auth", token=sign(SECRET, "ann", None, core.world.wall_ms()))
    assert client.say(type="auth", token="x")[-1]["code"] == "TOKEN_INVALID"
    stay(core, clock, client, 3590)
    assert client.peer.closed is None
    stay(core, clock, client, 10)

    assert client.peer.closed is CloseCode.AUTHENTICATION_REQUIRED


def test_a_name_alone_does_not_expire(clock: Clock) -> None:
    """
    In development an agent that only named itself has no token to expire.
    """
    core = make_core(clock, enforce_expiry=True)
    client = Client(core)
    client.auth("ann")
    stay(core, clock, client, 7200)

    assert client.peer.closed is None


def test_token_in_the_query_expires_too(clock: Clock) -> None:
    """
    How a token came makes no difference to how long it lasts.
    """
    core = make_core(clock, enforce_expiry=True)
    client = Client(core, Origin(claims=core.identity.verify(sign(SECRET, "ann", None, WALL_MS))))
    stay(core, clock, client, 3600)

    assert client.peer.closed is CloseCode.AUTHENTICATION_REQUIRED
