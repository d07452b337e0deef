"""
The settings of the core, which apply to every client.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """
    The rules that the operator's settings make.  All times are in seconds.

    @ivar production: clients have to authenticate, with a token.
    @ivar mirror_clients: C{global} carries the events of clients, and not only those of the database.
    @ivar anonymous_listeners: in production a client that has not authenticated may listen to public channels.
    @ivar strict_private: the channels of agents and DCM sessions are only for them, and for those with a scope for it.
    @ivar enforce_expiry: a client is closed when its token expires.
    @ivar auth_timeout: time to authenticate, in production.
    @ivar heartbeat_interval: time between two pings.
    @ivar heartbeat_timeout: time of silence after which a client is closed.
    @ivar sweep_interval: maximum time between two checks for clients that are due.
    @ivar max_subscriptions: channels that one client may be subscribed to.
    @ivar max_depth: maximum nesting depth of event data.
    @ivar rate_limit: messages a second; 0 for no limit.
    @ivar rate_burst: messages at once.
    @ivar rate_bytes: bytes of messages a second; 0 for no limit.
    @ivar stranger_rate: messages a second, and five times as many at once, of a client that
        has to authenticate and has not; 0 for no limit.
    @ivar stranger_bytes: bytes a second of such a client; 0 for no limit.
    """

    production: bool
    mirror_clients: bool
    anonymous_listeners: bool
    strict_private: bool
    enforce_expiry: bool
    auth_timeout: float
    heartbeat_interval: float
    heartbeat_timeout: float
    sweep_interval: float
    max_subscriptions: int
    max_depth: int
    rate_limit: float
    rate_burst: float
    rate_bytes: float
    stranger_rate: float
    stranger_bytes: float

    @property
    def ping_interval(self) -> float:
        """
        Seconds between two pings.  A client must have been pinged before it is closed for its silence.
        """
        if self.heartbeat_interval < self.heartbeat_timeout:
            return self.heartbeat_interval
        return self.heartbeat_timeout / 2
