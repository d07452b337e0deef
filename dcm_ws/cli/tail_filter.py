"""
Which events C{dcm-ws tail} shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from dcm_ws.cli.terminal import compact
from dcm_ws.client import Event

_AGENT_KEYS = ("agent_id", "from_agent_id", "to_agent_id")


@dataclass(frozen=True, slots=True)
class Filter:
    """
    Decides which events are shown, and which channels they come from.

    @ivar channels: the channels to observe; none for all public events.
    @ivar events: patterns of event names; none for all.
    @ivar excluded: patterns of event names that are not shown, even if C{events} has them.
    @ivar agent: only events of, from or for this agent, or on its channel; None for all.
    @ivar text: only events with this text in their data, whatever its case; None for all.
    """

    channels: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    agent: str | None = None
    text: str | None = None

    @property
    def subscriptions(self) -> tuple[str, ...]:
        """
        The channels to subscribe to.  An agent's own channel is one of them, because the service may be configured not
        to send the events of other channels to C{global}.
        """
        own = () if self.agent is None else (f"agents/{self.agent}",)
        return self.channels or ("global", *own)

    @property
    def needs_agent(self) -> bool:
        """
        Whether one of the channels is only for clients that have authenticated.
        """
        return any(channel.startswith("agents/") for channel in self.subscriptions)

    def matches(self, event: Event) -> bool:
        """
        Whether the event is shown.
        """
        return (
            (not self.channels or event.channel in self.channels)
            # it also comes on the channel of its origin, and before this copy
            and event.origin not in self.subscriptions
            and (not self.events or _matches(event, self.events))
            and not _matches(event, self.excluded)
            and self._concerns_agent(event)
            and (self.text is None or self.text.lower() in compact(event.data).lower())
        )

    def _concerns_agent(self, event: Event) -> bool:
        if self.agent is None:
            return True
        data = event.data if isinstance(event.data, dict) else {}
        return (
            event.sender == self.agent
            or f"agents/{self.agent}" in (event.channel, event.origin)
            or any(data.get(key) == self.agent for key in _AGENT_KEYS)
        )


def _matches(event: Event, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(event.event, pattern) for pattern in patterns)
