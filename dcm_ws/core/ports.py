"""
What the core needs of the world outside it: clocks, randomness, the far ends of connections, the log, and the bus
between nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypedDict

from dcm_ws.core.entries import Draft, Entry, Page, Published
from dcm_ws.protocol.errors import CloseCode


@dataclass(frozen=True, slots=True)
class World:
    """
    The clocks, and the source of randomness.

    @ivar now: returns monotonic seconds; all time limits are measured with it.
    @ivar wall_ms: returns ms since the epoch, for messages and tokens.
    @ivar random: returns that many random base-36 characters, from a cryptographic source.
    """

    now: Callable[[], float]
    wall_ms: Callable[[], int]
    random: Callable[[int], str]


class Peer(Protocol):
    """
    The far end of a socket.  None of its methods calls back into the core before it returns.
    """

    def send(self, frame: bytes) -> None:
        """
        Queue one or more whole WebSocket frames.  A peer that has been closed ignores it.
        """

    def offer(self, name: str, frame: bytes) -> None:
        """
        Send an event of which only the latest matters: if the far end is far behind, it receives only the last one of
        that C{name}, once it has caught up.
        """

    def replay(self, frames: Iterator[bytes | None]) -> None:
        """
        Send C{frames} after all that was sent before, taking them one by one as fast as the far end reads.  An empty
        one means that there is nothing for now, and has to be followed by another look a little later; None that it has
        taken a while, and others have their turn first.
        """

    def go_on(self) -> None:
        """
        Take the next frames of a replay soon: after an empty one, there may be some now.
        """

    def has_unsent(self) -> bool:
        """
        True if the far end has to read more than a little before it gets what is sent now.
        """

    def has_unread(self) -> bool:
        """
        True if the far end has sent something that has not been read yet.
        """

    def close(self, code: CloseCode) -> None:
        """
        Send what is queued and a close frame, and end the connection.
        """

    def trust(self) -> None:
        """
        The client has authenticated: it may send messages of full length.
        """

    def stop_reading(self) -> None:
        """
        Keep what the client sends, in its order, and read no more of it than what has been read already.
        """

    def read_on(self) -> None:
        """
        End what L{stop_reading} has begun, in a turn of its own: what was kept comes first.
        """


Deliver = Callable[[Draft, int, bytes], object]
"""
Receives an event that has got a position, its position, and its frame for the subscribers of its channel.  It neither
appends to the log nor raises.
"""


Later = Callable[[Callable[[], object]], object]
"""
Calls something in a later turn of the reactor.
"""


Reset = Callable[[], object]
"""
Called when the positions that clients and the service remember are not good any more.  It closes all clients, and
nothing of before is delivered to anyone after it.
"""


class LogReport(TypedDict):
    """
    The state of a log.

    C{engine} is C{memory} or C{postgres}; C{state} is C{connecting}, C{up}, C{following} (a node of a cluster, of which
    another one numbers the events), C{standby} (another process has the log) or C{down}; C{reason} says why it is not
    up, or why it is in memory.  C{first}, C{events} and C{bytes} are what is kept, of at most C{maxBytes}, for C{keep}
    seconds; C{oldest} is when the oldest of it was logged, in ms since the epoch.  C{waiting} publishes of
    C{waitingBytes} have no answer yet, nor have C{readsWaiting} reads in the database.  C{inboxBytes} and C{partitions}
    are those of the database; C{heldSince} is since when locks of others have kept its tables from being cleaned up, in
    ms since the epoch.
    """

    engine: str
    state: str
    reason: str
    epoch: str
    head: int
    first: int
    events: int
    bytes: int
    maxBytes: int
    waiting: int
    waitingBytes: int
    readsWaiting: int
    inboxBytes: int
    partitions: int
    heldSince: int | None
    oldest: int | None
    keep: float


class JournalReport(TypedDict):
    """
    The state of the journal in which a log in the database keeps what agents are owed.

    C{lastFlush} is when it was last written, in ms since the epoch, also if there was nothing to write; C{pending} is
    the number of agents with changes that are not written yet; C{rows} those of the journal that no checkpoint covers.
    """

    lastFlush: int | None
    pending: int
    rows: int


class Log(Protocol):
    """
    Every logged event once, in one order, under its position (protocol, section 10).

    An engine may do its work in the same call, or later: it answers in a turn of its own then.  It calls nothing of the
    core in between, and none of its methods raises: what fails is an answer, too.
    """

    @property
    def epoch(self) -> str:
        """
        The name of this log: positions mean nothing in another one.
        """

    @property
    def is_known(self) -> bool:
        """
        False until it is found which log this is: its epoch is not that of the log then, and a client that resumes has
        to come again later.  L{attach}'s C{reset} is called before it becomes true.
        """

    @property
    def head(self) -> int:
        """
        The position of the last event that was delivered here; 0 before the first.  It changes only right before an
        event is delivered, so there is no time at which an event is up to the head and has not been delivered.
        """

    @property
    def first(self) -> int:
        """
        The oldest position that is kept; the one after the head if none is.
        """

    @property
    def bytes(self) -> int:
        """
        Bytes kept.
        """

    def __len__(self) -> int:
        """
        How many events are kept.
        """

    def attach(self, deliver: Deliver, reset: Reset) -> None:
        """
        Have C{deliver} called once with each event of the log, in the order of positions and without a hole, also with
        those that another process or the database published.  Called once, before anything else.

        @param reset: called when the log has become another one, after C{epoch} and C{head} have changed and before
            anything is delivered.
        """

    def append(self, draft: Draft, published: Published) -> None:
        """
        Log an event.

        The engine answers once, within a second, and if the event is in the log only after it was delivered.  Either it
        sets C{published.pos} before it returns; or it sets C{published.waiting} before it returns, and calls
        C{published.answer} later.  Events whose answers wait need not get positions in the order of the calls.

        If the log has an event with the same C{draft.key} already, it logs nothing: it sets C{published.id} and
        C{published.duplicate}, and answers with the position of that event.

        The answer is None if the event could not be logged.  Then it is never delivered, as far as the engine can know:
        if a commit was sent and its outcome is unknown, the event may still come, and the publisher who repeats it
        needs a key.  An engine limits how many answers wait, and refuses what is beyond at once.
        """

    def append_all(self, publishes: Sequence[tuple[Draft, Published]], later: Later) -> None:
        """
        Log events of one publisher together: all of them, or none, apart from those whose key the log has already.

        @param publishes: at least one; the answer to each is as that of L{append}.
        @param later: for an engine that delivers them in the same call, which may take more than one turn.
        """

    def reach(self, pos: int, ready: Callable[[bool], object]) -> None:
        """
        Wait until the head is at a position at which it has been at another node.

        @param ready: called once, within about a second, and maybe before this returns: with true when the head is
            there, or if the log does not have the position; with false if the log could not be read so far.
        """

    def page(self, after: int, channels: Mapping[str, int], most: int, ready: Callable[[Page | None], object]) -> None:
        """
        Read the next events of some channels, up to the head at the time of the call.

        What is near the head should be ready at once: a client gets events directly again only in a turn in which it
        has read up to the head, which on a busy log is seldom true a turn later.

        @param after: the last position that the reader has.
        @param channels: by name, the position after which each is read.
        @param most: events, at most.
        @param ready: called once, maybe before this returns, with what is next, or None if it could not be read.  The
            page has an entry, or goes further than C{after}, unless C{after} is the head.
        """

    def find(self, positions: Sequence[int], ready: Callable[[Mapping[int, Entry] | None], object]) -> None:
        """
        Read single events.

        @param positions: in their order.
        @param ready: called once, maybe before this returns, with those of them that are in the log, or None if it
            could not be read.
        """

    def look_up(self, event_id: str) -> Entry | None:
        """
        An event by its id; None if it is not in memory.  For operators: it looks at all that is in memory.
        """

    def complete(self, after: int, channels: Mapping[str, int]) -> bool:
        """
        Are all events of these channels kept that a reader of L{page} would get?  As far as is known here without
        asking: the page has the last word.
        """

    def lost_after(self, after: int, channels: Mapping[str, int]) -> int:
        """
        The last position of the events that a reader of L{page} would get and that are gone; 0 if none is.  As far as
        is known here without asking, as with L{complete}.
        """

    def expire(self, most: int) -> bool:
        """
        Drop events that have been kept for long enough, C{most} at a time.  Returns if there may be more.
        """

    def report(self) -> LogReport:
        """
        Return the state of the log.
        """


AnswerLater = Callable[[Callable[[bytes], object]], object]
"""
Receives the function that sends the answer, and calls it once, now or later.
"""


Heard = Callable[[str, bytes], bytes | AnswerLater | None]
"""
Receives the name of the node that sent a message, and the message.  What it returns is the answer, if it was asked:
bytes, a function that answers later, or None for no answer.  It does not raise.
"""


class BusReport(TypedDict):
    """
    The state of a bus.

    C{engine} is C{memory}, C{postgres} or C{nats}; C{state} is C{connecting}, C{up} or C{down}, and C{reason} says why
    it is not up.  C{node} is the name of this node there, empty before it has one.  C{sent} and C{heard} are messages;
    C{sentBytes} and C{heardBytes} are theirs.  C{waiting} messages of C{waitingBytes} could not be sent yet.
    C{dropped} messages were not sent, because there was no room or they waited too long; C{broken} ones arrived
    incomplete.  C{unanswered} questions had no answer in time.  C{rtt} is how long the last probe took, in ms.
    """

    engine: str
    state: str
    reason: str
    node: str
    reconnects: int
    sent: int
    heard: int
    sentBytes: int
    heardBytes: int
    waiting: int
    waitingBytes: int
    dropped: int
    broken: int
    unanswered: int
    rtt: float | None


class Bus(Protocol):
    """
    What the nodes of a cluster say to each other.

    A bus is only a hint: what it carries may be lost, late, or doubled, and the log repairs that.  As long as nothing
    is lost, the messages of one node arrive in the order in which they were sent.  It never raises, blocks or grows: it
    drops what it has no room for.  It calls nothing of its user before one of its methods returns.
    """

    @property
    def node(self) -> str:
        """
        The name of this node, which no other node has ever had; empty before L{join}.
        """

    def join(self, node: str, cluster: str) -> None:
        """
        Take a name, or another one.  Before the first one, nothing is sent and nothing heard.

        @param node: at most 32 letters, digits, C{-} and C{_}.
        @param cluster: the same for all nodes of a cluster, and for no other cluster on the same engine.  An engine
            that carries only one cluster does not use it.
        """

    def cast(self, topic: str, message: bytes) -> None:
        """
        Send a message to all other nodes.

        @param topic: at most 32 letters, digits, C{-} and C{_}, here as in the other methods.
        @param message: as large as a client's message may be, and 4 KiB more.
        """

    def tell(self, node: str, topic: str, message: bytes) -> None:
        """
        Send a message to one node.
        """

    def ask(
        self, node: str, topic: str, message: bytes, timeout: float, ready: Callable[[bytes | None], object]
    ) -> None:
        """
        Send a message to one node, and wait for its answer.

        @param timeout: in seconds.
        @param ready: called once, with the answer; with None if there was none in time, or as soon as it is known that
            there will be none.
        """

    def attach(self, topic: str, heard: Heard) -> None:
        """
        Have C{heard} called with each message on a topic.  A topic has one listener at most.
        """

    def report(self) -> BusReport:
        """
        Return the state of the bus.
        """


class OwnersReport(TypedDict):
    """
    How many agents this node has now, and how many it is about to have.
    """

    owned: int
    awaited: int


class Owners(Protocol):
    """
    Which node of a cluster has which agent.

    An agent that is connected, or has been, is one node's: that node keeps what the agent is owed.  None of the methods
    raises.
    """

    def take(self, agent: str, ready: Callable[[bool], object], waits: Callable[[], bool]) -> None:
        """
        Make this node the owner of an agent, also if another one is.
        L{Ownership<dcm_ws.core.ownership.Ownership>} receives what is known of it.

        @param ready: called once after that, within about a second, and maybe before this returns; with false if the
            agent could not be taken.  It is not called any more when the log has become another one since.
        @param waits: returns if the agent is still wanted: the client may have gone to another node meanwhile.
        """

    def adopt(self, agents: Sequence[str]) -> None:
        """
        Have those of some agents at this node that another one has, which has no connection of them, or is gone.  They
        have connections here.
        """

    def offer(self, agent: str) -> None:
        """
        The last connection of an agent at this node has ended, and there are others at other nodes: one of these should
        have the agent, if this one has it.
        """

    def give_back(self, agent: str) -> None:
        """
        This node is about to stop, and the last connection of an agent here has ended: nobody need have it, if this
        node has it.
        """

    def acknowledged(self, agent: str, event_id: str, pos: int) -> None:
        """
        A connection at this node has acknowledged something, of an agent that another node has.

        @param event_id: empty if it has acknowledged everything up to a position.
        @param pos: that position, or 0.
        """

    def merge(self, agent: str, places: Mapping[str, int], *, stays: bool = False) -> None:
        """
        A connection at this node has ended, of an agent that another node has taken since the connection began.  The
        agent has to get there what was logged in some channels.

        @param places: the position in each of these channels after which it has not been sent everything.
        @param stays: the connection has not ended, but was subscribed to these channels: only its next connection has
            to be, too.
        """
