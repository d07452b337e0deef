"""
Stand-ins for the edges of the core: a peer that records what it is sent, and a world whose time the test sets.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from twisted.internet.task import Clock

from dcm_ws.core.assembly import Core, assemble
from dcm_ws.core.budgets import Allowance
from dcm_ws.core.changed import Changed
from dcm_ws.core.counters import Count
from dcm_ws.core.counts import Counts
from dcm_ws.core.dead_letters import DeadLetters
from dcm_ws.core.hub import Hub
from dcm_ws.core.ids import base36
from dcm_ws.core.interpreter import Interpreter
from dcm_ws.core.keys import PublishKeys
from dcm_ws.core.latest import LatestEvents
from dcm_ws.core.ledger import Ledger
from dcm_ws.core.log import MemoryLog
from dcm_ws.core.pooled import Pool
from dcm_ws.core.ports import Bus, Owners, World
from dcm_ws.core.rules import Rules
from dcm_ws.core.session import Origin, Session
from dcm_ws.http.addresses import TrustedProxies
from dcm_ws.http.admission import Admission
from dcm_ws.http.api import Gate
from dcm_ws.http.origins import AllowedOrigins
from dcm_ws.http.pacing import Pacing
from dcm_ws.http.partial import PartialMessages
from dcm_ws.http.report import Report
from dcm_ws.http.shares import Share
from dcm_ws.http.status import ReportPage
from dcm_ws.protocol.channels import Channels
from dcm_ws.protocol.errors import CloseCode
from dcm_ws.protocol.events import Ephemeral, Publishable
from dcm_ws.websocket.connection import ConnectionLimits, WebSocketConnection
from dcm_ws.websocket.factory import WebSocketConnections
from tests.core.living import LOG_LIMITS, QUEUE_LIMITS, RULES, make_memory, make_queue

SECRET = "dcm-dev-secret-change-me"
WALL_MS = 1_706_000_000_000
"""
What the wall clock shows when the other one shows 1000 s.
"""


def make_world(clock: Clock) -> World:
    """
    Both clocks driven by C{clock}; chance is a counter.
    """
    count = iter(range(1, 1 << 30))
    return World(
        now=clock.seconds,
        wall_ms=lambda: WALL_MS + round((clock.seconds() - 1000) * 1000),
        random=lambda length: base36(next(count)).rjust(length, "0"),
    )


def make_core(
    clock: Clock,
    *,
    max_connections: int = 1000,
    extra: tuple[str, ...] = (),
    hub: type[Hub] = Hub,
    interpreter: type[Interpreter] = Interpreter,
    log: type[MemoryLog] = MemoryLog,
    ephemeral: tuple[str, ...] = (),
    now: Callable[[], float] | None = None,
    random: Callable[[int], str] | None = None,
    counts: Counts | None = None,
    owners: Owners | None = None,
    bus: Bus | None = None,
    pool: Callable[[str, Allowance], Pool] | None = None,
    clients_elsewhere: Callable[[], int] | None = None,
    **choices: Any,
) -> Core:
    """
    The core as in production, on C{clock}.  Choices go to L{Rules}, L{DeliveryQueue} or L{AgentMemory}, by their names.

    @param now: monotonic seconds for all but the deliveries and the memory; those of C{clock} if it is None.
    @param random: as in L{World}; the same for each core if it is None.
    @param counts: of the core; its own if it is None.
    @param owners: and C{bus}: None for a service without other nodes.
    @param pool: and C{clients_elsewhere}: as in L{assemble}.
    """
    world = make_world(clock)
    if random is not None:
        world = replace(world, random=random)
    rules = {name: value for name, value in choices.items() if name in RULES}
    queue = {name: value for name, value in choices.items() if name in QUEUE_LIMITS}
    kept = {name: choices.pop(name) for name in ("keep", "max_events") if name in choices}
    letters = {
        "max_letters": choices.pop("max_letters", 10_000),
        "max_bytes": choices.pop("max_letter_bytes", 64 << 20),
    }
    max_ledger = choices.pop("max_ledger", 16 << 20)
    keys = {"max_keys": choices.pop("max_keys", 100_000)}
    memory = {name: value for name, value in choices.items() if name not in (*rules, *queue)}
    counts, changed = counts or Counts(), Changed()
    ledger = Ledger(world.now if now is None else now, world.wall_ms, counts.limits.max_ledger, max_bytes=max_ledger)
    return assemble(
        world if now is None else replace(world, now=now),
        Rules(**(RULES | rules)),
        counts,
        server="dcm-ws/test",
        secrets=(SECRET,),
        max_connections=max_connections,
        channels=Channels(),
        publishable=Publishable(extra),
        latest=LatestEvents(),
        deliveries=make_queue(clock, counts, changed, ledger, **queue),
        memory=make_memory(clock, counts, changed, **memory),
        letters=DeadLetters(clock.seconds, world.wall_ms, counts, **letters),
        keys=PublishKeys(clock.seconds, counts, **keys),
        log=log(
            "epoch",
            clock.seconds,
            crowded=counts.limits.max_recent_events.add_of,
            **(LOG_LIMITS | kept),
        ),
        ephemeral=Ephemeral(ephemeral),
        changed=changed,
        ledger=ledger,
        keep_durable=86_400.0,
        owners=owners,
        bus=bus,
        max_pending=(QUEUE_LIMITS | queue)["max_pending"],
        pool=pool,
        clients_elsewhere=clients_elsewhere,
        hub=hub,
        interpreter=interpreter,
    )


CONNECTION_LIMITS = ConnectionLimits(
    message=1 << 20,
    send_buffer=4 << 20,
    compression=False,
    stranger_message=64 << 10,
    partial=128 << 20,
)


def make_connections(
    core: Core,
    reactor: Any,
    limits: ConnectionLimits = CONNECTION_LIMITS,
    connection: type[WebSocketConnection] = WebSocketConnection,
) -> WebSocketConnections:
    """
    The WebSocket connections of a service that keeps nobody out.
    """
    return WebSocketConnections(
        core.hub,
        core.interpreter,
        core.charges,
        reactor,
        world=core.world,
        counts=core.counts,
        production=core.rules.production,
        server="dcm-ws/test",
        limits=limits,
        share=Share(),
        admission=admit_all(core),
        pacing=Pacing(reactor),
        connection=connection,
    )


def admit_all(core: Core) -> Admission:
    """
    An admission that keeps nobody out whose ids and token are in order.
    """
    return Admission(
        core.identity.verify, origins=AllowedOrigins(("*",)), proxies=TrustedProxies(), limits=core.counts.limits
    )


def make_gate(core: Core, writing: AllowedOrigins | None = None) -> Gate:
    """
    What lets callers over HTTP in; pages of every origin may read.

    @param writing: the pages that may write; None for all.
    """
    admission = Admission(
        core.identity.verify,
        origins=AllowedOrigins(("*",)),
        writing=writing,
        proxies=TrustedProxies(),
        limits=core.counts.limits,
    )
    return Gate(admission, core.callers, core.identity)


def make_report(core: Core, **choices: Any) -> Report:
    """
    The report of a service without a database, and with nothing in its way.  Choices go to L{Report}, by their names.
    """
    parts: dict[str, Any] = {
        "world": core.world,
        "rules": core.rules,
        "stats": core.stats,
        "version": "1.2.3",
        "name": "staging",
        "database": lambda: {"state": "none"},
        "log": core.log.report,
        "journal": lambda: None,
        "journal_counts": core.counts.journal,
        "bus": lambda: None,
        "owners": lambda: None,
        "owner_counts": core.counts.owners,
        "port": lambda: 3849,
        "ready_needs_database": False,
        "websockets": Share(),
        "event_streams": (),
        "long_polls": (),
        "waiting": [Share()],
        "http": [Share()],
        "partial": PartialMessages(1 << 20, Count()),
    }
    return Report(core.hub, **(parts | choices))


def make_page(core: Core, report: Callable[[bool], Mapping[str, object]]) -> ReportPage:
    """
    C{/health} or C{/stats} of a service.
    """
    return ReportPage(core.world.wall_ms, report, make_gate(core).has_token if core.rules.production else None)


class RecordingPeer:
    """
    Keeps what it is sent, as the far end would read it.

    @ivar frames: raw frames, not yet taken.
    @ivar closed: the code it was closed with.
    @ivar unsent: much of what was sent waits for the far end.
    @ivar unread: what came from the far end has not been read yet.
    @ivar trusted: its client has authenticated.
    @ivar stopped: what the far end sends is not read.
    @ivar looks: how often it was told that there may be more of a replay.
    """

    def __init__(self) -> None:
        self.looks = 0
        self.frames: list[bytes] = []
        self.closed: CloseCode | None = None
        self.unread = False
        self.unsent = False
        self.trusted = False
        self.stopped = False
        self.replaying: Iterator[bytes | None] | None = None

    def send(self, frame: bytes) -> None:
        if self.closed is None:
            self.frames.append(frame)

    def offer(self, name: str, frame: bytes) -> None:
        self.send(frame)

    def replay(self, frames: Iterator[bytes | None]) -> None:
        self.replaying = frames
        self.read()

    def read(self, most: int = 1 << 30) -> None:
        """
        Let the replay go on, by C{most} frames at the most.
        """
        assert self.replaying is not None
        for _ in range(most):
            frame = next(self.replaying, b"")
            if frame is None:
                # it goes on at once
                continue
            if not frame:
                # all, or all that there is room for
                break
            self.frames.append(frame)

    def go_on(self) -> None:
        self.looks += 1

    def has_unsent(self) -> bool:
        return self.unsent

    def has_unread(self) -> bool:
        return self.unread

    def close(self, code: CloseCode) -> None:
        self.closed = code

    def trust(self) -> None:
        self.trusted = True

    def stop_reading(self) -> None:
        self.stopped = True

    def read_on(self) -> None:
        self.stopped = False

    def take(self) -> list[dict[str, Any]]:
        """
        The messages that came since the last call, WebSocket Pings left out.
        """
        data = b"".join(self.frames)
        self.frames.clear()
        return [json.loads(payload) for opcode, payload in split_frames(data) if opcode == 1]


def split_frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    """
    The frames of a stream of whole, final, unmasked ones: opcode and payload of each.
    """
    at = 0
    while at < len(data):
        assert data[at] & 0x70 == 0 and data[at] & 0x80
        size, start = data[at + 1], at + 2
        if size == 126:
            size, start = int.from_bytes(data[start : start + 2], "big"), start + 2
        elif size == 127:
            size, start = int.from_bytes(data[start : start + 8], "big"), start + 8
        yield data[at] & 0x0F, data[start : start + size]
        at = start + size


class Client:
    """
    A client of the core, as seen from both ends.
    """

    def __init__(self, core: Core, origin: Origin = Origin()) -> None:  # noqa: B008 - immutable
        self.core = core
        self.peer = RecordingPeer()
        session = core.hub.connect(self.peer, origin)
        assert session is not None
        self.session: Session = session

    def receive(self, message: str | bytes, size: int | None = None) -> None:
        """
        Give the core a message that the client sends.
        """
        self.core.interpreter.receive(self.session, message, size)

    def say(self, **message: Any) -> list[dict[str, Any]]:
        """
        Send one message; return the replies, and whatever came before them.
        """
        self.receive(json.dumps(message))
        return self.peer.take()

    def auth(self, agent: str, **fields: Any) -> list[dict[str, Any]]:
        """
        Authenticate as in development.
        """
        return self.say(type="auth", agent_id=agent, **fields)

    def leave(self) -> None:
        """
        The connection ends.
        """
        self.core.hub.disconnect(self.session)
