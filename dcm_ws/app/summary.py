"""
Log lines once a minute, in place of one for each event that may happen very often.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from dcm_ws.app.logs import Seldom, shown
from dcm_ws.core.counters import LOSERS_MAX, SharedCount
from dcm_ws.core.counts import Counts
from dcm_ws.http.origins import Target

_LOSSES = {
    "max_pending_bytes": ("clients had to acknowledge something before they got more", "--max-pending-bytes"),
    "max_kept": ("deliveries kept for absent agents were given up", "--max-kept"),
    "max_agents": ("remembered agents were forgotten", "--max-agents"),
    "max_agent_bytes": ("remembered agents were forgotten", "--max-agent-bytes"),
    "max_recent_events": ("events left the log before their time", "--max-recent-events and --log-max-bytes"),
    "max_dead_letters": (
        "dead letters were dropped before their time",
        "--max-dead-letters and --max-dead-letter-bytes",
    ),
    "max_log_waiting": ("events found no room among those that wait for the log", "--max-log-waiting"),
    "max_bus_waiting": ("messages to other nodes were dropped", "--max-bus-waiting"),
    "max_keys": ("keys of publishes were forgotten before their time", "--max-keys"),
}
"""
What is lost if a budget is full that many share, and the options that set it, by the names of L{LimitCounts}.
"""

_AGENTS_NAMED = 5

_log = Logger(namespace="dcm_ws.service.DCMService")


class Summary:
    """
    Logs how many deliveries were given up, which agents have new dead letters, how many notifications were bad, and
    whose shares of which budgets were cut; and web pages that may not connect.

    @param counts: of the service.
    @param now: monotonic seconds.

    @ivar interval: seconds between two calls of L{write}.
    """

    interval = 60.0

    def __init__(self, counts: Counts, now: Callable[[], float]) -> None:
        self._counts = counts
        self._given_up = 0
        self._died = 0
        self._refused = 0
        self._bad = 0
        self._why_bad = ""
        self._lost = dict.fromkeys(_LOSSES, 0)
        self._pages = Seldom(now, self.interval)

    def bad_notification(self, reason: str) -> None:
        """
        The database has sent a notification that is not an event.
        """
        self._why_bad = reason
        _log.debug("bad notification: {reason!a}", reason=reason)

    def page_refused(self, origin: str, target: Target) -> None:
        """
        A web page of C{origin} may not connect to C{target}.
        """
        held = self._pages.held_back()
        if held is not None:
            _log.warn(
                "a web page may not connect: its Origin {origin} is not allowed, and is not the Host {host};"
                " see --allowed-origin, --server-name and --trusted-proxy ({held} more in the last minute)",
                origin=shown(origin),
                host=shown(target.host),
                held=held,
            )

    def write(self) -> None:
        """
        Log the numbers since the last call, if there are any.
        """
        given_up_before, self._given_up = self._given_up, self._counts.deliveries.given_up
        bad_before, self._bad = self._bad, self._counts.events.bad_notifications
        given_up, bad = self._given_up - given_up_before, self._bad - bad_before
        if given_up:
            _log.warn("{n} deliveries given up in the last minute", n=given_up)
        self._write_dead_letters()
        if bad:
            _log.warn("{n} bad notifications in the last minute; the last one: {reason!a}", n=bad, reason=self._why_bad)
        for name, (what, options) in _LOSSES.items():
            self._write_losses(name, what, options)
        self._write_refused()

    def _write_refused(self) -> None:
        refused = self._counts.engine.refused
        before, self._refused = self._refused, refused.value
        publishers = refused.take_losers()
        if publishers:
            most = max(publishers, key=publishers.__getitem__)
            _log.warn(
                "{n} events could not be written to the log in the last minute: {most} of {who}",
                n=refused.value - before,
                most=publishers[most],
                who=most.strip() if most.startswith(" ") else f"agent {shown(most)}",
            )

    def _write_dead_letters(self) -> None:
        died = self._counts.dead_letters.died
        before, self._died = self._died, died.value
        agents = died.take_losers()
        if agents:
            most = sorted(agents, key=agents.__getitem__, reverse=True)[:_AGENTS_NAMED]
            rest = len(agents) - len(most)
            _log.warn(
                "{n} events became dead letters in the last minute: {agents}{others}",
                n=died.value - before,
                agents=", ".join(f"{agents[agent]} of agent {shown(agent)}" for agent in most),
                others=f", others of {'at least ' if len(agents) == LOSERS_MAX else ''}{rest} more" if rest else "",
            )

    def _write_losses(self, name: str, what: str, options: str) -> None:
        count: SharedCount = getattr(self._counts.limits, name)
        before, self._lost[name] = self._lost[name], count.value
        losers = count.take_losers()
        if losers:
            most = max(losers, key=losers.__getitem__)
            others = f"{'at least ' if len(losers) == LOSERS_MAX else ''}{len(losers) - 1}"
            _log.warn(
                "{n} {what} in the last minute, because of {options}: {most} of {who}{rest}",
                n=count.value - before,
                what=what,
                options=options,
                most=losers[most],
                who=most.strip() if most.startswith(" ") else f"agent {shown(most)}",
                rest=f"; {others} more lost some" if len(losers) > 1 else "",
            )
