"""
Events on a client's side: which listeners get an event, and when it is acknowledged.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Generic

from dcm_ws.client.gaps import Gap, number_of
from dcm_ws.client.moments import moment_of

if TYPE_CHECKING:
    # type checkers know it without the package; Python has the default of a variable from 3.13 on
    from typing_extensions import TypeVar

    Data_co = TypeVar("Data_co", covariant=True, default=Any)
else:
    from typing import TypeVar

    Data_co = TypeVar("Data_co", covariant=True)

Done = Callable[[bool], None]
"""
Called once when an event has been handled, with whether that succeeded.
"""

SEEN_MAX = 10_000
"""
Number of event ids that are remembered, to drop duplicates.  If more events than that may wait, more are remembered.
"""

_TRACKED = ("task.", "subtask.", "message.")


@dataclass(frozen=True, slots=True)
class Event(Generic[Data_co]):
    """
    An event, as it came on one channel.  Its data is whatever the publisher sent; L{dcm_ws.client.catalogue} has types
    for that of the catalogue.

    @ivar id: the same on every channel and each time that the event is sent.
    @ivar timestamp: milliseconds since the epoch; the time of arrival if the server sent none that is usable
        (L{moment_of}).
    @ivar frame: the server's whole frame.
    """

    id: str
    channel: str
    event: str
    data: Data_co
    timestamp: int
    frame: dict[str, Any] = field(repr=False, compare=False, hash=False)

    @property
    def sender(self) -> str | None:
        """
        The agent that published it; None for events of the service, of the database and of anonymous clients.
        """
        return self.frame.get("from")

    @property
    def origin(self) -> str | None:
        """
        On C{global}, the channel that it was published to; None if that was C{global}, and on other channels.
        """
        return self.frame.get("origin")

    @property
    def pos(self) -> int | None:
        """
        Its position in the server's log; None if it is not logged.
        """
        return number_of(self.frame.get("pos"))

    @property
    def tracked(self) -> bool:
        """
        Whether the server expects an acknowledgement.
        """
        return self.event.startswith(_TRACKED)


@dataclass(eq=False, slots=True)
class Listener:
    """
    Somebody who wants events.

    @ivar pattern: of event names, such as C{task.*}.
    @ivar channel: a pattern of channel names; None for events on any channel, each only once.
    @ivar take: called with each event, and with what to call when it has been handled.
    @ivar skip: called with each gap; None if this listener does not want them.
    """

    pattern: str
    channel: str | None
    take: Callable[[Event, Done], object]
    skip: Callable[[Gap], object] | None = None

    def wants(self, event: str, channel: str) -> bool:
        """
        Whether this listener wants such an event on such a channel.

        @param event: the event's name.
        @param channel: the channel's name.
        """
        # compared literally, too: a name may contain characters that are special in a pattern
        return fnmatchcase(event, self.pattern) and (
            self.channel in (None, channel) or fnmatchcase(channel, self.channel or "")
        )


class _Fate(Enum):
    PENDING = 1
    DONE = 2
    FAILED = 3


@dataclass(slots=True)
class _Seen:
    """
    What is known of an event that has come.

    @ivar channels: where it has come.
    @ivar open: number of listeners that are handling it.
    @ivar awaited: it will come on C{global}, too, where listeners want it.
    @ivar pos: its position in the log; None if it is not logged, or was in another log.
    @ivar acknowledged: it has been acknowledged before it was handled.
    """

    channels: set[str] = field(default_factory=set)
    open: int = 0
    awaited: bool = False
    fate: _Fate = _Fate.PENDING
    pos: int | None = None
    acknowledged: bool = False


class Dispatcher:
    """
    Gives each event once to each listener that wants it, and acknowledges events that all their listeners have handled.

    @param acknowledge: called with the id of such an event, if the server expects an acknowledgement.
    @param mirrored: returns whether the client receives the events of its other channels on C{global}, too.
    @param room: called when fewer events wait.
    @param wall_ms: returns the time of arrival, for events without a usable timestamp.
    @param queue_max: about how many events may wait for their listeners.

    @ivar waiting: number of events that wait for listeners, or that listeners are handling.
    """

    def __init__(
        self,
        *,
        acknowledge: Callable[[str], object],
        mirrored: Callable[[], bool],
        room: Callable[[], object],
        wall_ms: Callable[[], int],
        queue_max: int,
    ) -> None:
        self._acknowledge = acknowledge
        self._mirrored = mirrored
        self._room = room
        self._wall_ms = wall_ms
        self._seen: OrderedDict[str, _Seen] = OrderedDict()
        # while an answer is awaited, ten times as many may wait
        self._seen_max = max(SEEN_MAX, 20 * queue_max)
        # the first position that listeners gave up or failed at, until they have handled a later one
        self._failed_at: int | None = None
        self.listeners: dict[Listener, None] = {}
        self.waiting = 0

    def take(self, frame: dict[str, Any]) -> Event | None:
        """
        An event has come.

        @param frame: as the server sent it.
        @return: the event; None if it has come on this channel before.
        """
        moment = moment_of(frame.get("timestamp"))
        event = Event(
            str(frame.get("id")),
            str(frame.get("channel")),
            str(frame["event"]),
            frame.get("data"),
            self._wall_ms() if moment is None else moment,
            frame,
        )
        seen = self._seen.get(event.id)
        first = seen is None
        if seen is None:
            seen = self._seen[event.id] = _Seen(pos=event.pos)
            if len(self._seen) > self._seen_max:
                self._forget_one()
        again = event.channel in seen.channels
        if again and (seen.fate is _Fate.DONE or seen.acknowledged):
            # the ack got lost
            self._settle(event)
        if again and seen.fate is not _Fate.FAILED:
            # sent again before it came on global: do not wait for that any longer
            seen.awaited = False
            self._settle_fate(event, seen)
            return None
        fresh = first or again
        if again:
            # it failed, so the server delivers it again on all its channels
            seen.channels.clear()
        seen.channels.add(event.channel)
        if fresh:
            seen.fate = _Fate.PENDING
        seen.awaited = self._comes_on_global(event, seen)
        wanting = [
            one
            for one in self.listeners
            if (fresh or one.channel is not None) and one.wants(event.event, event.channel)
        ]
        seen.open += len(wanting)
        for listener in wanting:
            listener.take(event, self._closer(event, seen))
        self._settle_fate(event, seen)
        return None if again else event

    def _forget_one(self) -> None:
        """
        Forget the oldest event, unless listeners are still handling it.
        """
        name, seen = self._seen.popitem(last=False)
        if seen.open:
            self._seen[name] = seen

    def _comes_on_global(self, event: Event, seen: _Seen) -> bool:
        """
        Whether a listener still has to get the event on C{global}: one acknowledgement counts for all its channels.
        """
        return event.tracked and "global" not in seen.channels and self.is_wanted_on_global(event)

    def is_wanted_on_global(self, event: Event) -> bool:
        """
        Whether a listener gets the event on C{global}, in addition to its own channel.
        """
        return self._mirrored() and any(
            one.channel is not None and one.wants(event.event, "global") for one in self.listeners
        )

    def skip(self, gap: Gap) -> bool:
        """
        There is a gap after the events that have come.

        @return: whether a listener wants to know.
        """
        wanting = [one.skip for one in self.listeners if one.skip is not None]
        for skip in wanting:
            skip(gap)
        return bool(wanting)

    # positions

    @property
    def unhandled(self) -> int | None:
        """
        The first position that listeners have not handled yet; None if there is none.
        """
        open_ = [seen.pos for seen in self._seen.values() if seen.open and seen.pos is not None]
        if self._failed_at is not None:
            open_.append(self._failed_at)
        return min(open_, default=None)

    def forget_positions(self) -> None:
        """
        The positions of the events that have come are those of another log.
        """
        self._failed_at = None
        for seen in self._seen.values():
            seen.pos = None

    def refuse(self, message_id: str) -> bool:
        """
        Do not acknowledge an event.  When it comes again, listeners get it again.

        @return: False if it is not known.
        """
        seen = self._seen.get(message_id)
        if seen is not None:
            seen.fate = _Fate.FAILED
        return seen is not None

    def acknowledge(self, message_id: str) -> None:
        """
        Acknowledge an event that listeners are still handling, now and whenever it comes again.
        """
        seen = self._seen.get(message_id)
        if seen is not None:
            seen.acknowledged = True
            self._acknowledge(message_id)

    def _settle_fate(self, event: Event, seen: _Seen) -> None:
        if seen.open == 0 and not seen.awaited and seen.fate is _Fate.PENDING:
            seen.fate = _Fate.DONE
            if not seen.acknowledged:
                self._settle(event)

    def _closer(self, event: Event, seen: _Seen) -> Done:
        called = False

        def handled(success: bool) -> None:
            nonlocal called
            if called:
                return
            called = True
            seen.open -= 1
            if not success:
                # without an acknowledgement the server sends it again
                seen.fate = _Fate.FAILED
            if seen.pos is not None:
                self._pass(seen.pos, success)
            self._settle_fate(event, seen)

        return handled

    def _pass(self, pos: int, success: bool) -> None:
        if not success:
            self._failed_at = pos if self._failed_at is None else min(pos, self._failed_at)
        elif self._failed_at is not None and pos >= self._failed_at:
            # the user goes on
            self._failed_at = None

    def _settle(self, event: Event) -> None:
        if event.tracked:
            self._acknowledge(event.id)

    def one_less(self) -> None:
        """
        An event no longer waits.
        """
        self.waiting -= 1
        self._room()
