"""
Events that agents did not acknowledge in the end, kept for a while, so that an operator can look at them and have them
sent again (protocol, section 10).

A dead letter that is redriven stays here until its agent has acknowledged the event, so that it is not lost if the
agent is away, or leaves again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Literal, NamedTuple

import msgspec

from dcm_ws.core.counts import Counts
from dcm_ws.core.delivery import Tracked
from dcm_ws.core.fairness import shorten
from dcm_ws.protocol.frames import header_size

Reason = Literal["attempts", "poison", "overflow"]
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
    """

    __slots__ = ("agent", "deliveries", "died_at", "event", "reason", "redriven_at", "until")

    def __init__(
        self, agent: str, event: Tracked, deliveries: int, reason: Reason, *, died_at: int, until: float
    ) -> None:
        self.agent = agent
        self.event = event
        self.deliveries = deliveries
        self.reason: Reason = reason
        self.died_at = died_at
        self.redriven_at = 0
        self.until = until

    @property
    def size(self) -> int:
        """
        Bytes that count as taken by it.
        """
        return _OVERHEAD + len(self.agent) + self.event.size


class Listed(NamedTuple):
    """
    A dead letter as it is shown.

    @ivar channel: what the event was published to.
    @ivar data: JSON, UTF-8, as it was published.
    @ivar at: the event's timestamp: ms since the epoch, like C{died_at} and C{redriven_at}.
    @ivar redriven_at: None if it was not.
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


class _Event(msgspec.Struct):
    channel: str
    event: str
    data: msgspec.Raw
    timestamp: int
    origin: str = ""


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
        # by agent and position, in the order of dying
        self._letters: dict[tuple[str, int], DeadLetter] = {}
        self._of: dict[str, dict[int, DeadLetter]] = {}
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
        self.bytes = self.redriven = 0

    def bury(self, agent: str, event: Tracked, deliveries: int, reason: Reason) -> None:
        """
        C{agent} has not acknowledged the event, which is not sent to it any more.  One that was redriven dies again.
        """
        self._drop(agent, event.seq)
        letter = DeadLetter(agent, event, deliveries, reason, died_at=self._wall_ms(), until=self._now() + self._keep)
        self._letters[agent, event.seq] = letter
        self._of.setdefault(agent, {})[event.seq] = letter
        self.bytes += letter.size
        self._counts.died.add_of(agent)
        if reason == "poison":
            self._counts.poison += 1
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

    def drop(self, letter: DeadLetter) -> None:
        """
        Forget a dead letter.
        """
        self._drop(letter.agent, letter.event.seq)

    def redrive(self, letter: DeadLetter) -> None:
        """
        The event is owed by its agent again.
        """
        letter.redriven_at = self._wall_ms()
        letter.deliveries = 0
        self.redriven += 1
        self._counts.redriven += 1

    def redriven_of(self, agent: str) -> dict[int, DeadLetter]:
        """
        What has been redriven to C{agent} and not been acknowledged yet, by position.
        """
        if not self.redriven:
            return {}
        return {pos: letter for pos, letter in self._of.get(agent, {}).items() if letter.redriven_at}

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

    def _drop(self, agent: str, pos: int) -> None:
        letter = self._letters.pop((agent, pos), None)
        if letter is None:
            return
        letters = self._of[agent]
        del letters[pos]
        if not letters:
            del self._of[agent]
        self.bytes -= letter.size
        if letter.redriven_at:
            self.redriven -= 1


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
    )
