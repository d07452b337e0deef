"""
Whether clients still answer, authenticate in time, and have tokens that have not expired (protocol, section 6).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from dcm_ws.core.catchup import CatchUp
from dcm_ws.core.clients import Clients
from dcm_ws.core.counts import Counts
from dcm_ws.core.ports import World
from dcm_ws.core.rules import Rules
from dcm_ws.core.schedule import Schedule
from dcm_ws.core.session import PONGS, Session, State
from dcm_ws.protocol.errors import CloseCode
from dcm_ws.protocol.replies import heartbeat_frames


class Liveness:
    """
    Pings clients, and finds those that have to be closed.

    @ivar interval: seconds between two sweeps, at most.
    @ivar resumed_at: since when silence counts: the end of the last pause of the service (monotonic seconds).
    @ivar admits_since: since when the time to authenticate counts (monotonic seconds).
    """

    def __init__(self, world: World, rules: Rules, counts: Counts, clients: Clients) -> None:
        self._now = world.now
        self._wall_ms = world.wall_ms
        self._rules = rules
        self._sent = counts.sent
        self._clients = clients
        shortest = min(rules.heartbeat_interval, rules.heartbeat_timeout)
        self.interval = min(rules.sweep_interval, shortest / 4, rules.auth_timeout / 4)
        self.resumed_at = self.admits_since = self._swept_at = world.now()
        self._checks: Schedule[Session] = Schedule(self.interval)

    def watch(self, session: Session) -> None:
        """
        C{session} has connected.
        """
        session.ping_at = session.joined_at + self._rules.ping_interval
        self._checks.put(session, self._next_check(session))

    def clear(self) -> None:
        """
        All clients are closed.
        """
        self._checks.clear()

    def forget(self, session: Session) -> None:
        """
        C{session} is closed.
        """
        self._checks.drop(session)

    def expect_expiry(self, session: Session, expires_ms: int) -> None:
        """
        The token of C{session} expires then, if expiry is enforced.

        @param expires_ms: ms since the epoch; 0 for never.
        """
        session.expires_at, session.expires_ms = None, 0
        if self._rules.enforce_expiry and expires_ms:
            session.expires_ms = expires_ms
            session.expires_at = self._now() + (expires_ms - self._wall_ms()) / 1000
        self._checks.put(session, self._next_check(session))

    def sweep(self, catch_up: CatchUp, close: Callable[[Session, CloseCode], object]) -> Iterator[None]:
        """
        Check the clients whose time has come, the earliest first, one a step.

        @param catch_up: knows how far each client is.
        @param close: ends a client's connection.
        """
        now = self._now()
        self.paused(now - self._swept_at)
        self._swept_at = now
        due = self._checks.take(now)
        if not due:
            return
        now_ms, head = self._wall_ms(), -1
        heartbeat = b""
        due.reverse()
        try:
            while due:
                session = due.pop()
                if session.state is State.CLOSED:
                    continue
                if session.behind is not None:
                    head, heartbeat = -1, heartbeat_frames(now_ms, catch_up.place(session))
                elif head != catch_up.head:
                    # events may have been published between two steps
                    head, heartbeat = catch_up.head, heartbeat_frames(now_ms, catch_up.place(session))
                code = self.check(session, now, heartbeat)
                if code is not None:
                    close(session, code)
                yield
        finally:
            # a failing check must not drop the remaining sessions
            for session in due:
                self._checks.put(session, now)

    def check(self, session: Session, now: float, heartbeat: bytes) -> CloseCode | None:
        """
        Ping C{session} if it is time for that, and note when to check it next.

        @param now: when the sweep began (monotonic seconds).
        @param heartbeat: the frames of a ping.
        @return: why the client must be closed; None if it need not be.
        """
        silent_since = self._silent_since(session)
        if now >= silent_since + self._rules.heartbeat_timeout:
            if session.pinged_at >= silent_since and not session.peer.has_unread():
                return CloseCode.PING_TIMEOUT
            # it was not asked, or has answered and the answer has not been read yet
            session.excused_at = session.ping_at = now
        if now >= self._deadline(session):
            return CloseCode.AUTHENTICATION_REQUIRED
        if now >= session.ping_at:
            self._sent.ping += 1
            session.peer.send(heartbeat)
            session.pinged_at = now
            session.ping_at = now + self._rules.ping_interval
            session.pongs = min(PONGS, session.pongs + 1)
        self._checks.put(session, self._next_check(session))
        return None

    def paused(self, seconds: float) -> None:
        """
        The last sweep was C{seconds} ago.  If that is long, the process has not been running: what clients have sent
        meanwhile may not have been read, and they did not receive what the service should have sent.  Short delays,
        which a busy service may have all the time, count as time that passes.
        """
        if seconds <= 2 * self.interval:
            return
        # the authentication timeout is shorter than the heartbeat timeout, and no client is pinged before it ends
        self.admits_since = self._now()
        if seconds > self._rules.heartbeat_timeout / 10:
            self.resumed_at = self._now()
        # tokens expire by the wall clock, which has not waited
        if self._rules.enforce_expiry:
            for session in self._clients.sessions:
                if session.expires_ms:
                    self.expect_expiry(session, session.expires_ms)

    def _next_check(self, session: Session) -> float:
        silent_at = self._silent_since(session) + self._rules.heartbeat_timeout
        return min(session.ping_at, silent_at, self._deadline(session))

    def _silent_since(self, session: Session) -> float:
        """
        Since when its silence counts: no client could be heard while the service was not running.
        """
        return max(session.heard_at, self.resumed_at, session.excused_at)

    def _deadline(self, session: Session) -> float:
        rules = self._rules
        if session.is_stranger and not rules.anonymous_listeners:
            return max(session.joined_at, self.admits_since) + rules.auth_timeout
        return float("inf") if session.expires_at is None else session.expires_at
