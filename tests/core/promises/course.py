"""
A course of events: the real core, client applications with their connections, and publishers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from msgspec.json import encode
from twisted.internet.task import Clock

from dcm_ws.core.hub import Hub
from dcm_ws.core.log import MemoryLog
from dcm_ws.core.session import Origin, Session
from dcm_ws.protocol.channels import Channels, is_private
from dcm_ws.protocol.events import Ephemeral, is_tracked
from dcm_ws.protocol.tokens import sign
from tests.core.living import finish
from tests.core.promises.application import Application, Request
from tests.core.promises.audit import Audit
from tests.core.promises.far_end import Connection
from tests.core.promises.ledger import Agent, Event, promise
from tests.fakes import SECRET, make_core

KEEP_DELIVERIES = 60
HEARTBEAT_TIMEOUT = 20
_DAY = 86_400
_ALL = 1 << 30
_PUBLISHERS = ("pia", "paul", None)
_UNLOGGED = ("system.", "metric.")


class Course:
    """
    Executes operations on the core, and keeps account of what it has promised by them.

    @param settings: what L{make_core} takes, and C{eager}: frames of a replay that connections take at once.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        settings = dict(settings)
        eager = settings.pop("eager")
        self._is_ephemeral = Ephemeral(settings["ephemeral"]).includes
        self._max_pending, self._max_events = settings["max_pending"], settings["max_events"]
        self.clock = Clock()
        self.clock.advance(1000)
        self.agents = {name: Agent(name) for name in ("ann", "bob")}
        self.audit = audit = Audit(settings["max_attempts"], self.agents)
        course = self

        class WatchedLog(MemoryLog):
            def _drop(self, share: Any) -> int:
                audit.logged[share.positions[share.start] - 1].is_gone = True
                return super()._drop(share)

        class WatchedHub(Hub):
            def disconnect(self, session: Session) -> None:
                if isinstance(session.peer, Connection) and not session.peer.ended:
                    course.ended(session.peer)
                super().disconnect(session)

        self.core = audit.core = make_core(
            self.clock,
            hub=WatchedHub,
            log=WatchedLog,
            keep_deliveries=KEEP_DELIVERIES,
            heartbeat_interval=HEARTBEAT_TIMEOUT / 2,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            auth_timeout=1e9,
            **settings,
        )
        self._connect: Callable[[], Connection] = lambda: Connection(self._next(), audit.sent, eager)
        self._numbers = 0
        self.apps: list[Application] = []
        self.open: dict[Connection, None] = {}
        self._publishers = {name: self._publisher(name) for name in _PUBLISHERS}
        self.draining = False

    # applications

    def start(
        self,
        agent: str | None,
        observer: bool,
        resumes: bool,
        acks: bool,
        fast: bool,
        wants: list[str],
        place: tuple[str, int] | None,
    ) -> None:
        """
        Start an application.

        @param place: where a state that it has loaded ends: C{old}, C{ahead} or C{epoch}, and how far from the head;
            None if it has no state.
        """
        if self.core.rules.production and agent is None and not self.core.rules.anonymous_listeners:
            agent, observer = "ann", True
        app = Application(
            f"app {len(self.apps)}", agent, observer=observer, resumes=resumes, acks=acks, fast=fast, wants=wants
        )
        if not self._may_resume(app):
            app.resumes = False
        elif resumes and wants and place is not None:
            kind, far = place
            head = len(self.audit.logged)
            app.pos = max(0, head - far) if kind == "old" else head + far * (kind == "ahead")
            app.epoch = "other" if kind == "epoch" else self.core.log.epoch
            for channel in wants:
                app.hold(channel, app.pos, self.audit.logged)
        self.apps.append(app)
        self.connect(app)
        self.begin(app)

    def connect(self, app: Application) -> None:
        """
        Open a connection.
        """
        connection = self._connect()
        given = () if self.core.rules.production and not self.core.rules.anonymous_listeners else ("global",)
        app.connected(connection, Request("connect", given, len(self.audit.logged)))
        self._open(connection, Origin(observer=app.observer))

    def begin(self, app: Application) -> None:
        """
        Authenticate, resume and subscribe on a connection that has just been opened.
        """
        connection, first = app.connection, not app.channels
        assert connection is not None
        if connection.settled or connection.ended or connection.is_cut:
            return
        position: dict[str, Any] = {"epoch": app.epoch, "pos": app.pos, "channels": sorted(app.channels)}
        resumes = app.resumes and app.pos is not None and bool(app.channels)
        connection.settled = True
        connection.last.clear()
        if resumes:
            connection.gap = self.audit.gap(app.epoch, app.pos or 0, list(app.channels))
            if connection.gap is None:
                self._resume(connection, app)
        if app.agent is not None:
            self._authenticate(connection, app, position if resumes else None)
        elif resumes:
            self._ask(app, "resume", **position)
        if first or (app.agent is None and not resumes):
            for channel in app.wants:
                self.subscribe(app, channel)

    def _resume(self, connection: Connection, app: Application) -> None:
        connection.resumed = dict.fromkeys(app.channels, app.pos or 0)
        for event in self.audit.logged[app.pos or 0 :]:
            for channel in app.channels:
                if channel in event.lanes and (event, channel) not in connection.shown:
                    connection.due[event.pos, channel] = event
                    if app.agent is not None and not app.observer:
                        event.agents.add((app.agent, channel))

    def _authenticate(self, connection: Connection, app: Application, position: dict[str, Any] | None) -> None:
        assert app.agent is not None
        agent, now = self.agents[app.agent], self.clock.seconds()
        restored: frozenset[str] = frozenset()
        if not app.observer:
            connection.sends.clear()
            if agent.left_at is not None:
                if now >= agent.left_at + KEEP_DELIVERIES:
                    agent.owed.clear()
                restored = agent.channels if now < agent.left_at + _DAY else restored
            connection.floor, connection.inherited = agent.floor, agent.waiting.union(agent.owed)
            agent.left_at = None
            agent.connections.add(connection)
            connection.alone = len(agent.connections) == 1
            if not connection.alone:
                for other in agent.connections:
                    other.alone = False
            self._take_over(connection, agent)
        token = sign(SECRET, app.agent, None, self.core.world.wall_ms())
        self._ask(app, "auth", token=token, resume=position)
        assert connection.session is not None
        channels = self.core.registry.channels(connection.session)
        promise(channels >= restored | {f"agents/{app.agent}"}, f"{app.agent} gets {channels}, and had {restored}")

    def _take_over(self, connection: Connection, agent: Agent) -> None:
        """
        What other connections have not been sent may come here, also if the agent has acknowledged it on yet another.
        """
        for other in agent.connections:
            connection.inherited |= other.inherited.union(event for event in other.due.values() if event.tracked)

    def subscribe(self, app: Application, channel: str) -> None:
        """
        Subscribe to a channel, where that is allowed.
        """
        if self._is_up(app):
            if app.connection is not None and app.connection.agent is not None:
                self._take_over(app.connection, self.agents[app.connection.agent])
            self._ask(app, "subscribe", (channel,), channel=channel)

    def unsubscribe(self, app: Application, channel: str) -> None:
        """
        Unsubscribe from a channel: what has not been sent of it is not promised any more.
        """
        connection = app.connection
        if connection is None or not self._is_up(app):
            return
        self._ask(app, "unsubscribe", channel=channel)
        app.give_up(channel, self._numbers)
        connection.due = {key: event for key, event in connection.due.items() if key[1] != channel}
        connection.resumed.pop(channel, None)
        agent = self.agents.get(connection.agent or "")
        if agent is not None:
            agent.owed = {event: None for event in agent.owed if event in agent.sent or channel not in event.lanes}

    def intrude(self, channel: str) -> None:
        """
        A client without a token asks for what is private to an agent.
        """
        connection = self._connect()
        session = self._open(connection, Origin())
        for message in (
            {"type": "subscribe", "channel": channel},
            {"type": "resume", "epoch": self.core.log.epoch, "pos": 0, "channels": [channel]},
        ):
            self.core.interpreter.receive(session, encode(message | {"id": 1}))
            answer = connection.wire.pop().message
            promise(answer.get("code") == "NOT_AUTHORIZED", f"anyone may have {channel}")
        promise(channel not in self.core.registry.channels(session), f"anyone may have {channel}")
        self.core.hub.disconnect(session)

    # acknowledgements

    def acknowledge(self, app: Application, how: str, which: int) -> None:
        """
        Acknowledge something that the application has read: one event, C{all} up to a position, the same C{twice}, or
        something C{unknown}.
        """
        connection = app.connection
        if connection is None or not self._is_up(app):
            return
        if how == "unknown":
            self._say(connection, type="ack", message_id="msg_unknown")
            return
        events = [event for event in app.unacked if event.pos]
        if not events:
            return
        event = events[which % len(events)]
        if how == "all":
            self._settle(connection, [one for one in self.audit.logged[: event.pos] if one.tracked])
            self._say(connection, type="ack", pos=event.pos)
            for one in events:
                if one.pos <= event.pos:
                    del app.unacked[one]
            return
        self._settle(connection, [event])
        for _ in range(2 if how == "twice" else 1):
            self._say(connection, type="ack", message_id=event.id)
        del app.unacked[event]

    def _settle(self, connection: Connection, events: list[Event]) -> None:
        """
        Events are acknowledged.  Those that were not sent yet need not be sent any more, and may be.
        """
        assert connection.session is not None
        if connection.session.observer:
            return
        agent = self.agents.get(connection.agent or "")
        for event in events:
            if agent is not None:
                agent.owed.pop(event, None)
                if event in agent.sent:
                    event.acked.add(agent.name)
            elif any((event, channel) in connection.shown for channel in event.lanes):
                event.acked.add(connection.owner)

    # publishers

    def publish(self, source: str, channel: str, name: str) -> None:
        """
        Publish an event by a client, by NOTIFY or by the service itself.
        """
        forbidden = self.core.rules.production and (source == "anonymous" or name.startswith("system."))
        if source not in ("database", "service") and (forbidden or self.draining):
            self._refused(source, channel, name)
            return
        event = self._event(source, channel, name)
        if source == "database":
            payload = json.dumps({"channel": channel, "event": name, "data": event.number})
            event_id = self.core.router.notified(payload)
        elif source == "service":
            event_id = self.core.router.announce(Channels().parse(channel), name, event.number)
        else:
            answer = self._by_client(source, channel, name, event.number)
            promise(answer["success"], f"{event} is refused")
            promise(answer.get("pos", 0) == event.pos, f"{event}: the publisher is told another position")
            event_id = answer["message_id"]
        promise(event.id in ("", event_id), f"{event}: the publisher is told another id")
        event.id = event_id
        promise(self.core.log.head == len(self.audit.logged), f"{event}: positions are not dense")
        if not event.pos:
            for connection in self.open:
                for each in event.lanes:
                    if (connection.number, each) in event.audience:
                        promise((event, each) in connection.shown, f"{event} is not sent to {connection.owner!r}")

    def _refused(self, source: str, channel: str, name: str) -> None:
        head = self.core.log.head
        answer = self._by_client(source, channel, name, 0)
        promise(not answer["success"] and self.core.log.head == head, "published although that is not allowed")

    def _event(self, source: str, channel: str, name: str) -> Event:
        """
        Note what the core has to do with an event that is about to be published.
        """
        core = self.core
        by_client = source not in ("database", "service")
        mirrored = channel not in ("global", "metrics") and (core.rules.mirror_clients or not by_client)
        tracked = is_tracked(name)
        logged = tracked or not (name.startswith(_UNLOGGED) or self._is_ephemeral(name))
        lanes = (channel, "global") if mirrored else (channel,)
        pos = len(self.audit.logged) + 1 if logged else 0
        event = Event(len(self.audit.events), channel, name, lanes, tracked, pos)
        self.audit.events.append(event)
        if logged:
            self.audit.logged.append(event)
        for connection in self.open:
            self._expect(connection, event)
        for agent in self.agents.values():
            kept = agent.left_at is not None and self.clock.seconds() < agent.left_at + KEEP_DELIVERIES
            if kept and tracked:
                self._owe(agent, event, agent.channels)
        for app in self.apps:
            for each in lanes if logged and app.resumes else ():
                if pos > app.channels.get(each, pos):
                    app.due[pos, each] = event
        return event

    def _expect(self, connection: Connection, event: Event) -> None:
        session = connection.session
        assert session is not None
        if session in self.core.clients.strangers and is_private(event.channel):
            return
        channels = self.core.registry.channels(session)
        for channel in event.lanes:
            if channel in channels:
                event.audience.add((connection.number, channel))
                if event.pos:
                    connection.due[event.pos, channel] = event
        if event.tracked and connection.agent is not None:
            self._owe(self.agents[connection.agent], event, channels)

    def _owe(self, agent: Agent, event: Event, channels: Any) -> None:
        for channel in event.lanes:
            if channel in channels:
                event.agents.add((agent.name, channel))
                agent.owed[event] = None

    def _publisher(self, name: str | None) -> tuple[Session, Connection]:
        connection = self._connect()
        session = self.core.hub.connect(connection, Origin(observer=True))
        assert session is not None
        if name is not None:
            token = sign(SECRET, name, None, self.core.world.wall_ms())
            self.core.interpreter.receive(session, encode({"type": "auth", "token": token}))
        for channel in list(self.core.registry.channels(session)):
            self.core.interpreter.receive(session, encode({"type": "unsubscribe", "channel": channel}))
        connection.wire.clear()
        return session, connection

    def _by_client(self, source: str, channel: str, name: str, data: int) -> dict[str, Any]:
        known = self._publishers[source if source in self._publishers else None]
        session, connection = known
        message = {"type": "publish", "channel": channel, "event": name, "data": data, "id": 1}
        self.core.interpreter.receive(session, encode(message))
        return connection.wire.pop().message

    # connections

    def drop(self, app: Application, arrives: int) -> None:
        """
        The connection ends, and both sides notice.

        @param arrives: messages on their way that still arrive.
        """
        connection = app.connection
        if connection is None:
            return
        if not connection.is_cut:
            for _ in range(min(arrives, len(connection.wire))):
                app.read(connection.wire.popleft(), self.audit.events, self.audit.logged)
        if not connection.ended:
            self.core.hub.disconnect(connection.session)  # type: ignore[arg-type]
        app.connection = None

    def cut(self, app: Application, taken: int) -> None:
        """
        The network loses all that is sent from now on, and neither side is told.  The application gives up waiting.

        @param taken: frames of a replay that the server's system still takes.
        """
        connection = app.connection
        if connection is not None:
            connection.is_cut = True
            connection.pump(taken)
            app.connection = None

    def read(self, app: Application, most: int) -> bool:
        """
        The application reads messages, C{most} at most.  Returns if there was any.
        """
        connection = app.connection
        if connection is None or connection.is_cut:
            return False
        if len(connection.wire) < most:
            connection.pump(most - len(connection.wire))
        number = min(most, len(connection.wire))
        for _ in range(number):
            app.read(connection.wire.popleft(), self.audit.events, self.audit.logged)
        if connection.ended and not connection.wire:
            app.connection = None
        if app.acks:
            self._acknowledge_all(app)
        return number > 0

    def _acknowledge_all(self, app: Application) -> None:
        while app.unacked and app.connection is not None:
            event = next(iter(app.unacked))
            if event.pos and self._is_up(app):
                self.acknowledge(app, "one", 0)
            else:
                del app.unacked[event]

    def ended(self, connection: Connection) -> None:
        """
        The server is about to disconnect a connection.
        """
        session, head = connection.session, len(self.audit.logged)
        connection.ended = True
        self.open.pop(connection, None)
        if connection.agent is not None and session is not None:
            agent = self.agents[connection.agent]
            agent.connections.discard(connection)
            agent.waiting |= {event for event in connection.due.values() if event.tracked}
            sent = min((pos - 1 for pos, _ in connection.due), default=head)
            agent.floor = min(sent, connection.floor) if session.behind is not None else sent
            if agent.connections and session.behind is not None:
                # another connection takes over what was sent to this one, and not what waits for it in the log
                agent.owed = {event: None for event in agent.owed if event in agent.sent}
            for other in agent.connections:
                # the newest one is sent that, also if yet another one has it by then, and has acknowledged it
                other.inherited |= agent.waiting
            if not agent.connections:
                agent.left_at = self.clock.seconds()
                agent.channels = frozenset(self.core.registry.channels(session))
        connection.due.clear()

    def _open(self, connection: Connection, origin: Origin) -> Session:
        session = self.core.hub.connect(connection, origin)
        assert session is not None
        connection.session = session
        self.open[connection] = None
        return session

    # time

    def advance(self, seconds: int) -> None:
        """
        Let time pass; the clients whose connections work answer pings.
        """
        for _ in range(seconds):
            self.clock.advance(1)
            for connection in self.open:
                if not connection.is_cut:
                    connection.session.heard_at = self.clock.seconds()  # type: ignore[union-attr]
            for session, _ in self._publishers.values():
                session.heard_at = self.clock.seconds()
            finish(self.core.hub.sweep())
            finish(self.core.retrying.sweep())
            self.look()

    def drain(self) -> None:
        """
        The service is about to stop.
        """
        self.core.hub.drain()
        self.draining = True

    def look(self) -> None:
        """
        Let fast applications read, and check what must always hold.
        """
        for app in self.apps:
            if app.fast:
                while self.read(app, _ALL):
                    pass
        core = self.core
        for connection in self.open:
            session = connection.session
            assert session is not None
            promise(len(session.owed) <= self._max_pending, "more in flight than there may be")
            if session.is_silent and connection.agent is not None:
                # one that never acknowledges anything is promised less (section 4)
                self.agents[connection.agent].owed.clear()
        promise(len(core.log) <= self._max_events, "more events in the log than there may be")
        kept = sum(not event.is_gone for event in self.audit.logged)
        promise(len(core.log) == kept, "the log counts events that it does not have")

    # the end

    def finish(self) -> None:
        """
        Everybody returns, reads and acknowledges everything, and leaves: what was promised must have come by then.
        """
        for app in self.apps:
            app.fast = True
            app.acks = app.owes
        self._return_all()
        self.advance(HEARTBEAT_TIMEOUT + 2)
        self._return_all()
        for connection in self.open:
            unsent = [event for event in connection.due.values() if not _is_told(event, connection.told_upto)]
            promise(not unsent, f"{connection.owner!r} is not sent {unsent}")
        for app in self.apps:
            told_upto = app.connection.told_upto if app.connection is not None else 0
            missing = [event for event in app.due.values() if not _is_told(event, told_upto)]
            promise(not missing, f"{app.name} does not get {missing}")
        for agent in self.agents.values():
            if agent.left_at is None:
                owed = agent.owed.keys() - agent.exhausted
                missing = [event for event in owed if not _is_told(event, agent.told_upto)]
                promise(not missing, f"{agent.name} does not get {missing}")
        self._leave_all()

    def _return_all(self) -> None:
        for app in self.apps:
            if app.connection is None or app.connection.ended:
                app.connection = None
                self.connect(app)
            self.begin(app)
        self.look()

    def _leave_all(self) -> None:
        core = self.core
        for connection in list(self.open):
            core.hub.disconnect(connection.session)  # type: ignore[arg-type]
        for session, _ in self._publishers.values():
            core.hub.disconnect(session)
        self.clock.advance(_DAY)
        finish(core.hub.sweep())
        finish(core.retrying.sweep())
        report = core.stats.report(names=True)
        left = {name: report[name] for name in ("connectedClients", "activeChannels", "pendingDeliveries")}
        left |= {"kept": core.memory.kept, "remembered": len(core.memory), "absent": core.memory.absent}
        left |= {"held": core.deliveries.held, "behind": len(core.clients.behind), "logged": len(core.log)}
        left |= {"log": core.log.bytes, "agents": len(core.registry)}
        promise(not any(left.values()), f"something is left: {left}")

    # small things

    def _next(self) -> int:
        self._numbers += 1
        return self._numbers

    def _is_up(self, app: Application) -> bool:
        """
        What the application sends arrives.
        """
        connection = app.connection
        return connection is not None and connection.settled and not (connection.is_cut or connection.ended)

    def _may_resume(self, app: Application) -> bool:
        return app.agent is not None or not self.core.rules.production

    def _ask(self, app: Application, type: str, joins: tuple[str, ...] = (), **fields: Any) -> None:
        assert app.connection is not None
        request = self._next()
        app.requests[request] = Request(type, joins, len(self.audit.logged))
        self._say(app.connection, type=type, id=request, **fields)

    def _say(self, connection: Connection, **message: Any) -> None:
        self.core.interpreter.receive(connection.session, encode(message))  # type: ignore[arg-type]


def _is_told(event: Event, upto: int) -> bool:
    return event.is_gone and event.pos <= upto
