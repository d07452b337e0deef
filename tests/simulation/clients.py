"""
Clients of a simulated cluster: agents that acknowledge what they get, readers that resume from the position that they
have, and watchers of who comes and goes.  Each knows what it was sent, and judges that.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dcm_ws.core.session import Origin, Session, State
from dcm_ws.protocol.errors import CloseCode
from tests.fakes import split_frames
from tests.simulation.nodes import Node

if TYPE_CHECKING:
    from tests.simulation.cluster import Cluster

EVENT = "task.created"
_ORIGIN = Origin()
_FRAMES_A_LOOK = 64
_LATENCY = (0.0005, 0.01)
_LOOK_AGAIN_SECONDS = 0.02
_PATIENCE = 5.0


class Connection:
    """
    A connection, as its client sees it; it is the L{Peer<dcm_ws.core.ports.Peer>} at the node, too.

    @ivar reads: the client reads; if it does not, nobody knows yet that the connection is dead.
    @ivar acknowledges: the client acknowledges what it gets here.
    @ivar is_open: for the client.
    @ivar since: when it was begun, and C{until}: when the client knew that it had ended.
    @ivar is_in: the client has authenticated, and subscribed to all that it wants.
    @ivar last_request: the number of the last request for that.
    """

    __slots__ = (
        "_awaits",
        "_chance",
        "_frames",
        "_replaying",
        "_session",
        "_stopped",
        "_unsent",
        "acknowledges",
        "client",
        "closed",
        "got",
        "is_in",
        "is_open",
        "last_request",
        "node",
        "reads",
        "since",
        "until",
    )

    def __init__(self, client: Client, node: Node) -> None:
        self.client = client
        self.node = node
        self.since = node.cluster.clock.seconds()
        self.reads = self.acknowledges = self.is_open = True
        self.is_in = False
        self.last_request = 0
        self.until = float("inf")
        self.closed: CloseCode | None = None
        self.got: set[int] = set()
        self._chance = node.cluster.random.getrandbits(31)
        self._session: Session | None = None
        self._awaits = self._stopped = False
        self._frames: list[bytes] = []
        # each with the position of the event that it acknowledges, or 0
        self._unsent: list[tuple[str, int]] = []
        self._replaying: Iterator[bytes | None] | None = None
        node.process.do(self._accept)

    def _accept(self) -> None:
        self._session = self.node.core.hub.connect(self, _ORIGIN)

    # what the node calls

    def send(self, frame: bytes) -> None:
        if self.closed is None:
            self._frames.append(frame)
            self.wake()

    def offer(self, name: str, frame: bytes) -> None:
        self.send(frame)

    def replay(self, frames: Iterator[bytes | None]) -> None:
        self._replaying = frames
        self.wake()

    def go_on(self) -> None:
        self.wake()

    def has_unsent(self) -> bool:
        return False

    def has_unread(self) -> bool:
        return bool(self._unsent)

    def close(self, code: CloseCode) -> None:
        self.closed = code
        self.wake()

    def trust(self) -> None:
        pass

    def stop_reading(self) -> None:
        self._stopped = True

    def read_on(self) -> None:
        self._stopped = False
        self.wake()

    # what the client does

    def wake(self) -> None:
        """
        There is something to do a little later.
        """
        if not self._awaits:
            self._awaits = True
            # of its own: nodes have connections in sets, in the order of their addresses in memory
            self._chance = (self._chance * 1103515245 + 12345) & 0x7FFFFFFF
            least, most = _LATENCY
            self.node.cluster.clock.callLater(least + (most - least) * self._chance / 0x7FFFFFFF, self._look)

    def say(self, **message: Any) -> None:
        self._say(message, 0)

    def ack(self, message_id: str, pos: int) -> None:
        """
        Acknowledge an event.  That counts when the node has read it.
        """
        self._say({"type": "ack", "message_id": message_id}, pos)

    def _say(self, message: dict[str, Any], pos: int) -> None:
        self._unsent.append((json.dumps(message), pos))
        self.node.process.do(self._receive)

    def _receive(self) -> None:
        """
        The node reads what the client has sent, as far as it does.
        """
        session = self._session
        while self._unsent and not self._stopped and session is not None and session.state is not State.CLOSED:
            message, pos = self._unsent.pop(0)
            session.heard_at = self.node.process.seconds()
            if pos:
                self.client.acknowledges(self, pos)
            self.node.core.interpreter.receive(session, message)

    def _replay(self) -> None:
        session = self._session
        if session is None or session.behind is None or self._replaying is None:
            return
        for _ in range(_FRAMES_A_LOOK):
            frame = next(self._replaying, b"")
            if frame is None:
                continue
            if not frame:
                break
            self._frames.append(frame)
        if session.behind is not None:
            self.node.process.callLater(_LOOK_AGAIN_SECONDS, self.wake)

    def _look(self) -> None:
        self._awaits = False
        process = self.node.process
        if not process.is_alive:
            return
        process.do(self._replay)
        frames, self._frames = self._frames, []
        if self.is_open and self.reads:
            for frame in frames:
                for opcode, payload in split_frames(frame):
                    if opcode == 1:
                        self._hear(json.loads(payload))
            if self.closed is not None:
                self.client.was_closed(self, self.closed)
        elif self.closed is not None:
            self.is_open = False
        if self._unsent and not self._stopped:
            process.do(self._receive)

    def _hear(self, message: dict[str, Any]) -> None:
        if message.get("type") == "ping":
            self.say(type="pong")
        else:
            self.client.heard(self, message)

    def end(self) -> None:
        """
        The client ends the connection, or loses it.
        """
        if self.is_open:
            self.is_open = False
            self.until = self.node.cluster.clock.seconds()
            self.node.process.do(self._disconnect)

    def _disconnect(self) -> None:
        if self._session is not None:
            self.node.core.hub.disconnect(self._session)


class Client:
    """
    What connects.
    """

    __slots__ = ("cluster", "name")

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name

    def heard(self, connection: Connection, message: dict[str, Any]) -> None:
        raise NotImplementedError

    def acknowledges(self, connection: Connection, pos: int) -> None:
        """
        A node reads an ack.
        """

    def was_closed(self, connection: Connection, code: CloseCode) -> None:
        """
        The node has closed a connection.
        """
        self.cluster.closed[int(code)] += 1
        connection.end()
        self.lost(connection)

    def lost(self, connection: Connection) -> None:
        """
        A connection is gone.
        """
        raise NotImplementedError

    def broken(self, promise: str) -> None:
        """
        A promise is broken.
        """
        self.cluster.broken.append(f"{self.cluster.clock.seconds():.3f} {self.name}: {promise}")

    def __repr__(self) -> str:
        return self.name


class Roamer(Client):
    """
    A client that has one connection, and connects again when that is gone.

    @ivar stays_away: until L{Roamer.connect} is called.
    """

    __slots__ = ("connection", "stays_away")

    def __init__(self, cluster: Cluster, name: str) -> None:
        super().__init__(cluster, name)
        self.connection: Connection | None = None
        self.stays_away = True

    def connect(self, node: Node | None = None) -> None:
        """
        Connect, maybe to another node than before.
        """
        self.stays_away = False
        self.part()
        self.connection = connection = Connection(self, node or self.cluster.any_node())
        self.introduce(connection)
        self.cluster.clock.callLater(_PATIENCE, self._wait, connection)

    def introduce(self, connection: Connection) -> None:
        raise NotImplementedError

    def part(self) -> None:
        """
        End the connection that there is.
        """
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.end()

    def leave(self) -> None:
        """
        End the connection, and stay away.
        """
        self.stays_away = True
        self.part()

    def come_back(self) -> None:
        if self.connection is None and not self.stays_away:
            self.connect()

    def lost(self, connection: Connection) -> None:
        if connection is self.connection:
            self.connection = None
            self.cluster.clock.callLater(self.cluster.random.uniform(0.02, 1.0), self.come_back)

    def _wait(self, connection: Connection) -> None:
        if connection is self.connection and not connection.is_in:
            # it takes too long here
            connection.end()
            self.lost(connection)


class SimAgent(Roamer):
    """
    An agent that acknowledges what it gets, nearly always.

    @ivar channels: what it is subscribed to.
    @ivar old: its former connections, of which nobody knows yet that they are dead.
    @ivar others: more connections that it has, and reads.
    @ivar safe_from: the number of the first event that it must get; None if it must get nothing yet.
    @ivar was_double: it has had several connections at a time, or some may have seemed to be there.
    @ivar got: the positions of all events that it was sent.
    @ivar acked: the positions of those that it has acknowledged, with the time, and the nodes that know of it.
    @ivar last: the last position that was new to it, by channel.
    @ivar gaps: the positions before which something may be missing.
    @ivar visits: the connections on which it has authenticated, with the times.
    """

    __slots__ = (
        "acked",
        "channels",
        "gaps",
        "got",
        "last",
        "lazy",
        "old",
        "others",
        "safe_from",
        "subscribed",
        "visits",
        "was_double",
    )

    def __init__(self, cluster: Cluster, name: str, channels: list[str]) -> None:
        super().__init__(cluster, name)
        self.channels = channels
        self.old: list[Connection] = []
        self.others: list[Connection] = []
        self.safe_from: int | None = None
        self.was_double = self.subscribed = False
        self.lazy = 0.0
        self.got: set[int] = set()
        self.acked: dict[int, tuple[float, frozenset[Node]]] = {}
        self.last: dict[str, int] = {}
        self.gaps: list[int] = []
        self.visits: list[tuple[float, Connection]] = []

    @property
    def is_in(self) -> bool:
        return self.connection is not None and self.connection.is_in

    def introduce(self, connection: Connection) -> None:
        connection.say(type="unsubscribe", channel="global")
        connection.say(type="auth", agent_id=self.name, durable=True, id=1)
        if self.subscribed and not self.was_double and self.cluster.random.random() < 0.5:
            # it relies on being subscribed to what it was
            connection.last_request = 1
            return
        connection.last_request = 1 + len(self.channels)
        for number, channel in enumerate(self.channels, 2):
            connection.say(type="subscribe", channel=channel, id=number)

    def hop(self, node: Node | None = None, *, hangs: bool = False) -> None:
        """
        Connect to another node.

        @param hangs: the former connection is not ended: nobody knows that it is dead.
        """
        connection = self.connection
        if hangs and connection is not None:
            connection.reads = False
            self.old.append(connection)
            self.was_double = True
            self.connection = None
        elif connection is not None and connection.node.process.is_frozen:
            # the node does not learn of it yet
            self.was_double = True
        self.connect(node)

    def add(self, node: Node | None = None) -> None:
        """
        Open one more connection.
        """
        self.was_double = True
        connection = Connection(self, node or self.cluster.any_node())
        self.others.append(connection)
        self.introduce(connection)

    def close_one(self) -> None:
        """
        End a connection of several, or learn that one is dead.
        """
        for connections in (self.old, self.others):
            if connections:
                connections.pop(0).end()
                return

    def lost(self, connection: Connection) -> None:
        if connection in self.others:
            self.others.remove(connection)
        super().lost(connection)

    def heard(self, connection: Connection, message: dict[str, Any]) -> None:
        if message.get("event") == EVENT:
            self._event(connection, message)
            return
        kind = message.get("type")
        if kind == "ack" and message.get("id") == connection.last_request:
            if message["success"]:
                connection.is_in = self.subscribed = True
                self.visits.append((self.cluster.clock.seconds(), connection))
                if connection.last_request == 1 and not set(self.channels) <= set(message["subscriptions"]):
                    self.broken(f"is only subscribed to {message['subscriptions']}")
        elif kind == "gap":
            self.gaps.append(message["first"])

    def _event(self, connection: Connection, message: dict[str, Any]) -> None:
        pos, channel = message["pos"], message["channel"]
        self.cluster.received += 1
        if self.cluster.log_at(pos) != message["data"]:
            self.broken(f"gets {message}, which is not in the log at {pos}")
        acked = self.acked.get(pos)
        if acked is not None and (pos in connection.got or connection.since > acked[0]):
            self.cluster.repeated(self, pos, *acked)
        if pos not in self.got:
            self.got.add(pos)
            if pos < self.last.get(channel, 0) and not self.was_double:
                self.broken(f"gets {pos} for the first time after {self.last[channel]} in {channel}")
            self.last[channel] = max(pos, self.last.get(channel, 0))
        if pos not in connection.got:
            connection.got.add(pos)
            if self.lazy and self.cluster.random.random() < self.lazy:
                # it is sent again
                return
        if connection.acknowledges:
            connection.ack(message["id"], pos)

    def acknowledges(self, connection: Connection, pos: int) -> None:
        if pos not in self.acked:
            self.acked[pos] = self.cluster.clock.seconds(), self.cluster.nodes_of(self, connection.node)


class SimReader(Roamer):
    """
    An observer that keeps its position, and resumes.

    @ivar pos: the position of the last event that it has; None before it knows any.
    @ivar since: where it began.
    @ivar got: what it has got.
    @ivar gaps: spans of positions that it was told that it misses something of: after the first one, up to the second.
    """

    __slots__ = ("channels", "gaps", "got", "pos", "reasons", "since")

    def __init__(self, cluster: Cluster, name: str, channels: list[str]) -> None:
        super().__init__(cluster, name)
        self.channels = channels
        self.pos: int | None = None
        self.since = 0
        self.got: list[int] = []
        self.gaps: list[tuple[int, int]] = []
        self.reasons: Counter[str] = Counter()

    def introduce(self, connection: Connection) -> None:
        connection.say(type="unsubscribe", channel="global")
        auth = {"type": "auth", "agent_id": self.name, "observer": True, "id": 1}
        if self.pos is None:
            connection.say(**auth)
            for number, channel in enumerate(self.channels, 2):
                connection.say(type="subscribe", channel=channel, id=number)
        else:
            connection.say(**auth, resume={"epoch": "epoch", "pos": self.pos, "channels": self.channels})

    def heard(self, connection: Connection, message: dict[str, Any]) -> None:
        kind, pos = message.get("type"), message.get("pos")
        if message.get("event") == EVENT:
            assert pos is not None
            self.cluster.received += 1
            if self.pos is not None:
                if pos <= self.pos:
                    self.broken(f"gets {pos} after {self.pos}")
                self.got.append(pos)
                self.pos = pos
        elif kind == "ack" and message.get("success"):
            if self.pos is None:
                if message["id"] == 1 + len(self.channels):
                    self.pos = self.since = message["pos"]
                    connection.is_in = True
            elif message["id"] == 1:
                connection.is_in = True
                if message.get("gap"):
                    self._gap(message["gap"]["reason"], message["pos"])
        elif kind == "gap":
            self._gap(message["reason"], message["first"] - 1 if message["reason"] == "expired" else message["pos"])

    def _gap(self, reason: str, upto: int) -> None:
        assert self.pos is not None
        self.reasons[reason] += 1
        self.gaps.append((min(self.pos, upto), upto))
        self.pos = upto

    def judge(self) -> None:
        """
        Has it got all that it was to get?
        """
        got = set(self.got)
        for channel in self.channels:
            for pos, _ in self.cluster.database.numbers_of(channel):
                if pos > self.since and pos not in got and not any(after < pos <= upto for after, upto in self.gaps):
                    self.broken(f"does not get {pos} of {channel}, and is told of no gap")


class Watcher(Roamer):
    """
    A client that stays at one node, and hears which agents come and go.

    @ivar balance: how many connections of each agent have come, less those that have gone.
    @ivar is_whole: it has been there from the beginning.
    """

    __slots__ = ("balance", "home", "is_whole")

    def __init__(self, cluster: Cluster, name: str, home: Node) -> None:
        super().__init__(cluster, name)
        self.home = home
        self.balance: Counter[str] = Counter()
        self.is_whole = True
        self.connect()

    def connect(self, node: Node | None = None) -> None:
        super().connect(self.home)

    def lost(self, connection: Connection) -> None:
        self.is_whole = False
        super().lost(connection)

    def introduce(self, connection: Connection) -> None:
        connection.is_in = True

    def heard(self, connection: Connection, message: dict[str, Any]) -> None:
        event = message.get("event")
        if event == "agent.connected":
            self.balance[message["data"]["agent_id"]] += 1
        elif event == "agent.disconnected":
            self.balance[message["data"]["agent_id"]] -= 1


class Publisher(Client):
    """
    Publishes at one node.
    """

    __slots__ = ("connection", "home")

    def __init__(self, cluster: Cluster, home: Node) -> None:
        super().__init__(cluster, f"publisher at {home.name}")
        self.home = home
        self.connection: Connection | None = None

    def publish(self, channel: str, number: int) -> None:
        if self.connection is None:
            self.connection = Connection(self, self.home)
            self.connection.say(type="unsubscribe", channel="global")
        self.connection.say(type="publish", channel=channel, event=EVENT, data=number, id=number)

    def heard(self, connection: Connection, message: dict[str, Any]) -> None:
        if message.get("type") == "ack" and message.get("id") is not None:
            number = message["id"]
            if message["success"]:
                self.cluster.answered[number] = message["pos"]
            else:
                self.cluster.refused[message["code"]] += 1

    def lost(self, connection: Connection) -> None:
        self.connection = None
