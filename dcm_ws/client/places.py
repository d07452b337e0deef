"""
How far a client is in the server's log, in each of its channels, and what it resumes on a new connection
(docs/protocol.md, Positions and resuming).

On one connection the server sends the logged events of all channels in the order of the log.  So a single number says
how far the client is in all of them, except in those that it still has to resume, and in those that it has joined
beyond that number.
"""

from __future__ import annotations

from collections.abc import Collection, Container
from typing import Any

from dcm_ws.client.gaps import Gap, Position, gap_of, place_of

GROUP_BYTES = 48_000
"""
Maximum bytes of the channels in one message.  In production, clients that have not authenticated may send 64 KiB.
"""

_GLOBAL = "global"


class Places:
    """
    How far a client is.

    @param unwanted: channels that the client does not resume, although the server subscribes it to them.
    @param start: where to begin on the first connection, if nothing else is known: an epoch, or None for the epoch that
        the server has then, and a position.  None for the events that are published from then on.

    @ivar epoch: the log that the positions are of; None without one.
    @ivar waiting: channels that have not been resumed on this connection yet.
    @ivar apart: resume the channels one by one, because the server has refused to resume them together.
    @ivar leaving: what comes on C{global} before the client has resumed will come again, if it is wanted.
    """

    def __init__(self, unwanted: Container[str] = (), start: tuple[str | None, int] | None = None) -> None:
        self._unwanted = unwanted
        self.epoch: str | None = None
        self.waiting: dict[str, None] = {}
        self.apart = False
        self.leaving = False
        self._start = start
        # for channels that turn up while the client starts at a position
        self._starting: int | None = None
        # it has not found a position to start at yet
        self._searching = False
        self._start_gap: Gap | None = None
        self._newest = 0
        # the position at which the client was subscribed to each channel
        self._since: dict[str, int] = {}
        # the client has everything up to here in each channel, and up to _passed in those that do not wait
        self._floor: dict[str, int] = {}
        self._passed = 0
        self._early: set[int] = set()

    # what is known

    @property
    def channels(self) -> Collection[str]:
        """
        The channels in which the client has a position.
        """
        return self._since.keys()

    def state(self, unhandled: int | None) -> tuple[str, dict[str, int]] | None:
        """
        The epoch, and the position in each channel up to which the client's user has got all events; None if there is
        none.

        @param unhandled: the first position that the user has not got yet; None if there is none.
        """
        if self.epoch is None:
            return None
        most = self._newest if unhandled is None else unhandled - 1
        return self.epoch, {name: max(since, min(self._at(name), most)) for name, since in self._since.items()}

    def position(self, unhandled: int | None) -> Position | None:
        """
        The position up to which the client's user has got the events of all channels; None if there is none.
        """
        state = self.state(unhandled)
        return Position(state[0], min(state[1].values())) if state and state[1] else None

    def load(self, epoch: str, channels: dict[str, int]) -> None:
        """
        Resume from these positions on the next connection.
        """
        self.epoch = epoch
        self._since = dict(channels)
        self._floor = dict(channels)
        self._passed = 0
        self._newest = max(channels.values(), default=0)

    def _at(self, channel: str) -> int:
        floor = self._floor[channel]
        return floor if channel in self.waiting else max(floor, self._passed)

    # connections

    def opened(self) -> None:
        """
        A connection has been opened: every channel has to be resumed on it.
        """
        self._freeze()
        self.waiting = dict.fromkeys(self._since)
        self.apart = self.leaving = False
        self._early.clear()

    def greeted(self, frame: dict[str, Any], wanted: Collection[str]) -> Gap | None:
        """
        The server has sent its greeting.

        @param wanted: the channels that begin at the start position, if there is one.
        @return: the gap if the server has no positions any more.
        """
        epoch, pos = place_of(frame)
        if epoch is None:
            lost = self.epoch is not None
            self._forget()
            return Gap("epoch") if lost else None
        if self.epoch is None:
            start, self._start = self._start, None
            if start is None:
                self._restart(epoch, pos, (_GLOBAL,))
            else:
                self._restart(start[0] or epoch, start[1], wanted)
                self.waiting = dict.fromkeys(wanted)
                self._starting = start[1]
                self._searching = True
        # events of another log do not come again
        self.leaving = epoch == self.epoch and bool(self.waiting)
        return None

    def settled(self, channels: Collection[str]) -> None:
        """
        The client has resumed and subscribed.

        @param channels: what it is subscribed to now.
        """
        self._starting = None
        self._searching = self.leaving = False
        if self.epoch is not None:
            for name in channels:
                self._join(name)

    def _freeze(self) -> None:
        self._floor = {name: self._at(name) for name in self._since}
        self._passed = 0

    def _forget(self) -> None:
        self.epoch = None
        self.waiting = {}
        self._since = {}
        self._floor = {}
        self._passed = self._newest = 0

    def _restart(self, epoch: str, pos: int, channels: Collection[str]) -> None:
        self._forget()
        self.epoch = epoch
        self._newest = pos
        self._since = {name: pos for name in channels if name not in self._unwanted}
        self._floor = dict(self._since)

    # resuming

    def next_group(self) -> dict[str, Any] | None:
        """
        What to resume next; None if no channel waits.  Channels at the same position are resumed together.
        """
        if not self.waiting:
            return None
        pos = min(self._floor[name] for name in self.waiting)
        group: list[str] = []
        size = 0
        for name in self.waiting:
            if self._floor[name] == pos:
                size += len(name.encode("utf-8", "replace")) + 3
                if group and (self.apart or size > GROUP_BYTES):
                    break
                group.append(name)
        return {"epoch": self.epoch, "pos": pos, "channels": group}

    def refused(self, group: dict[str, Any]) -> bool:
        """
        The server does not let the client resume a group of channels: it resumes one by one, and gives up those that
        are refused alone.

        @return: whether this one is given up.
        """
        alone = len(group["channels"]) == 1
        if alone:
            self.left(group["channels"][0])
        else:
            self.apart = True
        return alone

    def answered(self, frame: dict[str, Any], group: dict[str, Any] | None) -> Gap | None:
        """
        The server has accepted an C{auth} or a C{resume}.

        @param group: what was to be resumed; None without.
        @return: the gap if it could not be resumed.
        """
        epoch, pos = place_of(frame)
        if epoch is None or self.epoch is None:
            return None
        gap = None
        if group is not None and (_GLOBAL in group["channels"] or _GLOBAL not in self.waiting):
            self.leaving = False
        if group is None:
            self._sent(epoch, pos)
        elif frame.get("resumed") is False:
            gap = self._not_resumed(frame, group)
        else:
            # the log is read again from there
            self._freeze()
            self._newest = max(self._newest, pos)
            self._searching = False
            for name in group["channels"]:
                self.waiting.pop(name, None)
            gap, self._start_gap = self._start_gap, None
            if gap is not None:
                gap = Gap(gap.reason, group["pos"] + 1, epoch, pos)
        if "subscriptions" in frame:
            self._has(frame["subscriptions"])
        return gap

    def _not_resumed(self, frame: dict[str, Any], group: dict[str, Any]) -> Gap | None:
        gap = gap_of(frame.get("gap"), frame)
        epoch, pos = place_of(frame)
        assert epoch is not None
        if self._searching and gap.reason in ("epoch", "expired"):
            begin = 0 if gap.reason == "epoch" else (gap.first or 1) - 1
            if gap.reason == "expired" and begin <= group["pos"]:
                # events of these channels were dropped before older ones of others
                begin = (group["pos"] + pos + 1) // 2
            if begin < pos:
                # the oldest events that there are
                self._restart(epoch, begin, (*self._since, *group["channels"]))
                self.waiting = dict.fromkeys(self._since)
                self._newest = pos
                self._starting = begin
                self._start_gap = self._start_gap or gap
                return None
        self._start_gap = None
        self._starting = None
        if epoch != self.epoch:
            self._restart(epoch, pos, group["channels"])
            return gap
        for name in group["channels"]:
            self.waiting.pop(name, None)
            self._since[name] = self._floor[name] = pos
        # smaller after the gap reason "ahead"
        self._newest = max([pos, *self._floor.values()])
        return gap

    def _has(self, channels: Collection[str]) -> None:
        """
        The server has subscribed the client to these channels, and to no others.
        """
        for name in channels:
            self._join(name)
        for name in self._since.keys() - self.waiting.keys() - set(channels):
            self.left(name)

    def _join(self, channel: str) -> None:
        if channel in self._since or channel in self._unwanted:
            return
        begin = self._newest if self._starting is None else self._starting
        self._since[channel] = self._floor[channel] = begin
        if self._starting is not None:
            self.waiting[channel] = None

    # on a connection

    def subscribed(self, channel: str, frame: dict[str, Any]) -> None:
        """
        The server has accepted a C{subscribe}.
        """
        self.sent(frame)
        if self.epoch is not None:
            self._join(channel)

    def left(self, channel: str) -> None:
        """
        The client is not subscribed to C{channel} any more, or does not want to be.
        """
        self.waiting.pop(channel, None)
        self._since.pop(channel, None)
        self._floor.pop(channel, None)
        if channel == _GLOBAL:
            self.leaving = False

    def sent(self, frame: dict[str, Any]) -> None:
        """
        The server says how far it has sent everything.
        """
        epoch, pos = place_of(frame)
        if epoch is not None:
            self._sent(epoch, pos)

    def _sent(self, epoch: str, pos: int) -> None:
        if epoch == self.epoch:
            self._newest = max(self._newest, pos)
            self._passed = max(self._passed, pos)

    def skipped(self, gap: Gap) -> bool:
        """
        The server skips events.

        @return: whether the positions are those of another log from now on.
        """
        if gap.epoch is None or gap.epoch == self.epoch:
            return False
        self._restart(gap.epoch, gap.pos or 0, list(self._since))
        return True

    def is_early(self, channel: object, pos: int) -> bool:
        """
        Whether an event will come again, in its place, because the client has not resumed the channel yet.
        """
        if not (self.leaving and channel == _GLOBAL):
            return False
        self._early.add(pos)
        return True

    def heard(self, channel: str, pos: int, *, whole: bool) -> None:
        """
        An event has come on a channel for the first time.

        @param whole: it will not come on another channel.
        """
        self._newest = max(self._newest, pos)
        if channel in self.waiting:
            return
        if channel not in self._since and channel not in self._unwanted:
            # the answer to its subscription was not awaited
            self._since[channel] = self._floor[channel] = pos - 1
        # what was early may have been sent again out of turn, because it was not acknowledged
        if pos not in self._early:
            self._passed = max(self._passed, pos if whole else pos - 1)
