"""
Makes what listens to clients: WebSockets, and the ports in front of them and of the pages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil
from typing import NamedTuple

from twisted.web.resource import IResource

from dcm_ws.app.base import Base
from dcm_ws.app.modes import (
    connections_per_address,
    http_per_address,
    origin_patterns,
    writing_origin_patterns,
)
from dcm_ws.app.settings import Settings
from dcm_ws.app.summary import Summary
from dcm_ws.core.assembly import Core
from dcm_ws.core.counts import LimitCounts
from dcm_ws.http.addresses import TrustedProxies
from dcm_ws.http.admission import Admission, RefusedError
from dcm_ws.http.bodies import Bodies
from dcm_ws.http.origins import AllowedOrigins
from dcm_ws.http.pacing import Pacing
from dcm_ws.http.port import Port
from dcm_ws.http.reception import AwaitsKey
from dcm_ws.http.request_headers import read_headers
from dcm_ws.http.shares import Share
from dcm_ws.http.site import make_site
from dcm_ws.version import SERVER
from dcm_ws.websocket.connection import ConnectionLimits
from dcm_ws.websocket.factory import WebSocketConnections


class Shares(NamedTuple):
    """
    Room for the connections of one port.
    """

    waiting: Share
    http: Share


def make_admission(base: Base, core: Core, proxies: TrustedProxies, summary: Summary) -> Admission:
    """
    Make what admits WebSockets and callers over HTTP.
    """
    settings = base.settings
    return Admission(
        core.identity.verify,
        origins=AllowedOrigins(origin_patterns(settings), settings.server_names),
        writing=AllowedOrigins(writing_origin_patterns(settings), settings.server_names),
        proxies=proxies,
        refused=summary.page_refused,
        limits=core.counts.limits,
    )


def make_websockets(base: Base, core: Core, admission: Admission, pacing: Pacing) -> WebSocketConnections:
    """
    Make the WebSocket connections.
    """
    settings = base.settings
    return WebSocketConnections(
        core.hub,
        core.interpreter,
        core.charges,
        base.reactor,
        world=base.world,
        counts=core.counts,
        production=settings.production,
        server=SERVER,
        limits=_connection_limits(settings),
        # the hub limits their number, once they are open
        share=base.share(
            "websocket",
            per_address=connections_per_address(settings),
            crowded=core.counts.limits.max_connections_per_ip,
        ),
        admission=admission,
        pacing=pacing,
    )


def make_shares(base: Base, kind: str, websockets: WebSocketConnections, limits: LimitCounts) -> Shares:
    """
    Make the room for the connections of a port.

    @param kind: of the port, behind the names of the shares.
    """
    settings = base.settings
    return Shares(
        # from one address as many without a request head as WebSockets
        waiting=base.share(
            f"waiting{kind}", per_address=websockets.share.per_address, crowded=limits.max_connections_per_ip
        ),
        http=base.share(
            f"http{kind}",
            settings.max_http_connections,
            http_per_address(settings),
            full=limits.max_http_connections,
            crowded=limits.max_http_per_ip,
        ),
    )


def make_port(
    base: Base,
    limits: LimitCounts,
    websockets: WebSocketConnections,
    proxies: TrustedProxies,
    paths: tuple[str, ...],
    resources: Mapping[bytes, IResource],
    shares: Shares,
    bodies: Bodies,
    awaits_key: AwaitsKey | None = None,
) -> Port:
    """
    Make a port.

    @param paths: of WebSockets; empty for a port without any.
    @param bodies: which pages take bodies.
    @param awaits_key: as in L{Port}.
    """
    settings, reactor, world, siblings = base
    return Port(
        websockets,
        make_site(world.wall_ms, resources, reactor, settings.http_timeout, paths, limits, bodies),
        paths=paths,
        now=world.now,
        wall_ms=world.wall_ms,
        head_timeout=settings.handshake_timeout,
        max_head=settings.max_head_size,
        max_waiting=settings.max_connections if siblings is None else ceil(settings.max_connections / siblings.workers),
        clock=reactor,
        waiting=shares.waiting,
        http=shares.http,
        limits=limits,
        trusts=proxies.trusts,
        client=lambda peer, head: _client_address(proxies, peer, head),
        awaits_key=awaits_key,
    )


def make_await_key(base: Base, core: Core, admission: Admission) -> AwaitsKey | None:
    """
    Make what lets handshakes wait whose token has a key that is not known; None if there are no such keys.
    """
    if base.settings.jwks is None:
        return None

    def awaits_key(head: bytes, peer: str, ready: Callable[[], object]) -> bool:
        target = head.split(b" ", 2)[1].decode("iso-8859-1")
        try:
            visitor = admission.visitor(target, read_headers(head), peer)
        except RefusedError:
            return False
        return visitor.token is not None and core.identity.awaits_key(visitor.token, ready, visitor.limit_key)

    return awaits_key


def _connection_limits(settings: Settings) -> ConnectionLimits:
    message, send_buffer = settings.max_message_size, settings.max_send_buffer
    if settings.testee:
        # the testsuite sends up to 16 MiB, and all messages of a case before it reads
        message, send_buffer = 32 << 20, 256 << 20
    return ConnectionLimits(
        message=message,
        send_buffer=send_buffer,
        compression=settings.compression,
        stranger_message=settings.max_stranger_message,
        partial=settings.max_partial_bytes,
    )


def _client_address(proxies: TrustedProxies, peer: str, head: bytes) -> str:
    """
    The address that an HTTP connection is counted by.
    """
    if not proxies.trusts(peer):
        return peer
    return proxies.client(peer, read_headers(head).get("x-forwarded-for", ""))
