"""
Events that agents did not acknowledge in the end, kept for a while, so that an operator can look at them and have them
sent again (protocol, section 10).

A dead letter that is redriven stays here until its agent has acknowledged the event, so that it is not lost if the
agent is away, or leaves again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Literal, NamedTuple

import msgspec

from dcm_ws.core.counts import Counts
from dcm_ws.core.fairness import shorten
from dcm_ws.core.tracked import Tracked
from dcm_ws.protocol.frames import header_size
from dcm_ws.protocol.replies import event_frame, from_field, to_json

Reason = Literal["attempts", "poison", "overflow", "rights"]
"""
Why an event became a dead letter: it was sent as often as the service does while its agent was connected; too often
over all its returns; or the agent owed acks for far too many bytes.
"""

POISON = 15
"""
Deliveries of an event to an agent over its returns, after which it becomes a dead letter.
"""

_OVERHEAD = 500


class DeadLetter:
    """
    An event that an agent did not acknowledge.

    @ivar event: with the frames that the agent got last.
    @ivar deliveries: how often it was sent to the agent; since it was redriven, if it was.
    @ivar died_at: ms since the epoch.
    @ivar redriven_at: the same; 0 if it was not.
    @ivar until: how long it is kept (monotonic seconds).
    @ivar stored: it may be in the database.
    """

    __slots__ = ("agent", "deliveries", "died_at", "event", "reason", "redriven_at", "stored", "until")

    def __init__(
        self,
        agent: str,
        event: Tracked,
        deliveries: int,
        reason: Reason,
        *,
        died_at: int,
        until: float,
        redriven_at: int = 0,
        stored: bool = False,
    ) -> None:
        self.agent = agent
        self.event = event
        self.deliveries = deliveries
        self.reason: Reason = reason
        self.died_at = died_at
        self.redriven_at = redriven_at
        self.stored = stored
        self.until = until

    @property
    def size(self) -> int:
        """
        Bytes that count as taken by it.
        """
        return _OVERHEAD + len(self.agent) + self.event.size


class Listed(NamedTuple):
    """
    A dead letter as it is shown, and stored.

    @ivar channel: what the event was published to.
    @ivar data: JSON, UTF-8, as it was published.
    @ivar at: the event's timestamp: ms since the epoch, like C{died_at} and C{redriven_at}.
    @ivar redriven_at: None if it was not.
    @ivar sender: as in L{Draft<dcm_ws.core.entries.Draft>}.
    """

    agent: str
    pos: int
    event_id: str
    channel: str
    event: str
    data: bytes
    at: int
    deliveries: int
    reason: Reason
    died_at: int
    redriven_at: int | None
    sender: bytes = b""


class LetterChanges(NamedTuple):
    """
    Dead letters that are new or different, and the agents and events of those that have gone.
    """

    kept: list[Listed]
    dropped: list[tuple[str, str]]


class _Event(msgspec.Struct):
    channel: str
    event: str
    data: msgspec.Raw
    timestamp: int
    origin: str = ""
    sender: str | None = msgspec.field(default=None, name="from")


_decode = msgspec.json.Decoder(_Event).decode


class DeadLetters:
    """
    Keeps dead letters.

    @param now: monotonic seconds.
    @param wall_ms: ms since the epoch.
    @param counts: receives its counts.
    @param max_letters: maximum dead letters kept; beyond it, the agents that have most lose their oldest.
    @param max_bytes: maximum bytes of them; beyond it as with C{max_letters}.
    @param keep: how long each is kept, in seconds.

    @ivar bytes: bytes kept now.
    @ivar redriven: how many of them have been redriven and not acknowledged yet.
    """

    def __init__(
        self,
        now: Callable[[], float],
        wall_ms: Callable[[], int],
        counts: Counts,
        *,
        max_letters: int,
        max_bytes: int,
        keep: float = 7 * 86_400.0,
    ) -> None:
        self._now = now
        self._wall_ms = wall_ms
        self._counts = counts.dead_letters
        self._crowded_out = counts.limits.max_dead_letters
        self._max_letters = max_letters
        self._max_bytes = max_bytes
        self._keep = keep
        # by agent and event, in the order of dying
        self._letters: dict[tuple[str, str], DeadLetter] = {}
        # by agent and position
        self._of: dict[str, dict[int, DeadLetter]] = {}
        # what the database has to learn, if there is one: None for what has gone
        self._changed: dict[tuple[str, str], DeadLetter | None] | None = None
        # the same, of those that another node has now
        self._released: list[Listed] = []
        self.bytes = 0
        self.redriven = 0

    def __len__(self) -> int:
        return len(self._letters)

    def clear(self) -> None:
        """
        Forget all dead letters.
        """
        self._letters.clear()
        self._of.clear()
        self._released = []
        self.bytes = self.redriven = 0
        self._changed = None

    def load(self, rows: Iterable[Listed]) -> None:
        """
        Have what the database has, and note what changes for it from now on.

        @param rows: in the order of dying.
        """
        self._changed = {}
        self.take_over(rows)

    def take_over(self, rows: Iterable[Listed]) -> None:
        """
        Have what the database, or another node, has.

        @param rows: in the order of dying.
        """
        now, now_ms = self._now(), self._wall_ms()
        for row in rows:
            if row.pos in self._of.get(row.agent, ()):
                # somebody has changed the table
                continue
            frame = event_frame(row.event_id, to_json(row.channel), row.event, row.data, row.at, row.sender, row.pos)
            letter = DeadLetter(
                row.agent,
                Tracked(row.pos, row.event_id, (frame,)),
                row.deliveries,
                row.reason,
                died_at=row.died_at,
                until=now + self._keep - (now_ms - row.died_at) / 1000,
                redriven_at=row.redriven_at or 0,
                stored=True,
            )
            self._add(letter)
        self._make_room()

    def release(self, agent: str) -> list[Listed]:
        """
        Another node has C{agent} now: forget its dead letters, and return those of which the database has to learn
        still.  It does so with the next L{changes}.
        """
        assert self._changed is not None
        released: list[Listed] = []
        for letter in list(self._of.get(agent, {}).values()):
            key = agent, letter.event.id
            if key in self._changed:
                released.append(listed(letter))
            self.drop(letter)
            # it is not gone
            self._changed.pop(key, None)
        self._released += released
        return released

    def changes(self) -> LetterChanges:
        """
        What the database has to learn since the last call.
        """
        changes = LetterChanges(self._released, [])
        self._released = []
        changed, self._changed = self._changed or {}, None if self._changed is None else {}
        for key, letter in changed.items():
            if letter is None:
                changes.dropped.append(key)
            else:
                letter.stored = True
                changes.kept.append(listed(letter))
        return changes

    def put_back(self, changes: LetterChanges) -> None:
        """
        The database has not learnt of C{changes}, and has to.
        """
        assert self._changed is not None
        for one in changes.kept:
            key = one.agent, one.event_id
            if key in self._letters:
                self._changed.setdefault(key, self._letters[key])
            elif key not in self._changed:
                self._released.append(one)
        for key in changes.dropped:
            self._changed.setdefault(key, None)

    def _change(self, letter: DeadLetter) -> None:
        if self._changed is not None:
            self._changed[letter.agent, letter.event.id] = letter

    def bury(self, agent: str, event: Tracked, deliveries: int, reason: Reason) -> None:
        """
        C{agent} has not acknowledged the event, which is not sent to it any more.  One that was redriven dies again.
        """
        letter = DeadLetter(agent, event, deliveries, reason, died_at=self._wall_ms(), until=self._now() + self._keep)
        self._add(letter)
        self._change(letter)
        self._counts.died.add_of(agent)
        if reason == "poison":
            self._counts.poison += 1
        self._make_room()

    def _add(self, letter: DeadLetter) -> None:
        agent, event = letter.agent, letter.event
        former = self.get(agent, event.id)
        if former is not None:
            letter.stored = letter.stored or former.stored
            self.drop(former)
        self._letters[agent, event.id] = letter
        self._of.setdefault(agent, {})[event.seq] = letter
        self.bytes += letter.size
        if letter.redriven_at:
            self.redriven += 1

    def _make_room(self) -> None:
        if len(self) > self._max_letters:
            numbers = {name: len(letters) for name, letters in self._of.items()}
            shorten(numbers, self._max_letters - self._max_letters // 64, lambda name: bool(self._crowd_out(name)))
        if self.bytes > self._max_bytes:
            sizes = {name: sum(one.size for one in letters.values()) for name, letters in self._of.items()}
            shorten(sizes, self._max_bytes - self._max_bytes // 64, self._crowd_out)

    def find(
        self, agent: str | None, since: int | None, until: int | None, *, waiting: bool = False
    ) -> Iterator[DeadLetter]:
        """
        Iterate over dead letters, in the order of dying.  None of them may go meanwhile.

        @param agent: whose; None for all agents.
        @param since: died at this time or later, in ms since the epoch; None for any time.
        @param until: died before this time; None for any time.
        @param waiting: leave out those that have been redriven.
        """
        letters = self._letters.values() if agent is None else self._of.get(agent, {}).values()
        for letter in letters:
            in_time = (since is None or letter.died_at >= since) and (until is None or letter.died_at < until)
            if in_time and not (waiting and letter.redriven_at):
                yield letter

    def get(self, agent: str, event_id: str) -> DeadLetter | None:
        """
        The dead letter of C{agent} that an event has become, if it has and is kept.
        """
        return self._letters.get((agent, event_id))

    def drop(self, letter: DeadLetter) -> None:
        """
        Forget a dead letter, which is kept.
        """
        agent, key = letter.agent, (letter.agent, letter.event.id)
        del self._letters[key]
        letters = self._of[agent]
        del letters[letter.event.seq]
        if not letters:
            del self._of[agent]
        self.bytes -= letter.size
        if letter.redriven_at:
            self.redriven -= 1
        if self._changed is not None:
            if letter.stored:
                self._changed[key] = None
            else:
                self._changed.pop(key, None)

    def sent(self, letter: DeadLetter, deliveries: int) -> None:
        """
        The event, which was redriven, was sent so often until its agent left.
        """
        letter.deliveries = deliveries
        self._change(letter)

    def redrive(self, letter: DeadLetter) -> None:
        """
        The event is owed by its agent again.
        """
        letter.redriven_at = self._wall_ms()
        letter.deliveries = 0
        self._change(letter)
        self.redriven += 1
        self._counts.redriven += 1

    def redriven_of(self, agent: str) -> dict[int, DeadLetter]:
        """
        What has been redriven to C{agent} and not been acknowledged yet, by position.
        """
        if not self.redriven:
            return {}
        return {pos: letter for pos, letter in self._of.get(agent, {}).items() if letter.redriven_at}

    def agents(self) -> Iterable[str]:
        """
        The agents that have dead letters.
        """
        return self._of

    def number(self, agent: str) -> int:
        """
        How many dead letters an agent has.
        """
        return len(self._of.get(agent, ()))

    def by_agent(self, most: int) -> Iterator[tuple[str, int]]:
        """
        How many dead letters each agent has, of C{most} agents at the most.
        """
        for agent, letters in islice(self._of.items(), most):
            yield agent, len(letters)

    def expire(self, most: int) -> bool:
        """
        Forget dead letters that have been kept for long enough, C{most} at a time.  Returns if there may be more.
        """
        now = self._now()
        expired = [letter for letter in islice(self._letters.values(), most) if letter.until <= now]
        for letter in expired:
            self.drop(letter)
        return len(expired) == most

    def _crowd_out(self, agent: str) -> int:
        letter = next(iter(self._of[agent].values()))
        self.drop(letter)
        self._crowded_out.add_of(agent)
        return letter.size


def listed(letter: DeadLetter) -> Listed:
    """
    Return what is shown of a dead letter.
    """
    frame = letter.event.frames[0]
    event = _decode(frame[header_size(frame) :])
    return Listed(
        agent=letter.agent,
        pos=letter.event.seq,
        event_id=letter.event.id,
        channel=event.origin or event.channel,
        event=event.event,
        data=bytes(event.data),
        at=event.timestamp,
        deliveries=letter.deliveries,
        reason=letter.reason,
        died_at=letter.died_at,
        redriven_at=letter.redriven_at or None,
        sender=b"" if event.sender is None else from_field(event.sender),
    )
