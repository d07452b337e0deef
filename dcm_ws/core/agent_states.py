"""
What the database has of an agent: its state now and then, and in between what has changed.

Both are JSON.  The place of a channel is the position after which the agent has not been sent everything there: that of
the channel, or C{sent} if that is higher.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

Position = Annotated[int, Meta(ge=0)]
Sends = tuple[str, Annotated[int, Meta(ge=0)]]
"""
The id of an event, and how often it was sent.
"""

_ERRORS_KEPT = 100


class AgentState(Struct):
    """
    Everything that is kept of an agent.

    @ivar sent: everything up to this position has been sent in all of its channels.
    @ivar channels: what it is subscribed to, with the place in each if it is beyond C{sent}, or else 0.
    @ivar owed: what it has been sent and not acknowledged, by position.
    @ivar durable: it has acknowledged something, or said that it will.
    @ivar left: when its last connection ended, in ms since the epoch; None if it is connected.
    """

    sent: Position = 0
    channels: dict[str, Position] = {}
    owed: dict[Position, Sends] = {}
    durable: bool = False
    left: Position | None = None

    @property
    def places(self) -> dict[str, int]:
        """
        Up to where everything has been sent in each of its channels.
        """
        return {name: max(self.sent, pos) for name, pos in self.channels.items()}

    @property
    def upto(self) -> int:
        """
        The last position that it knows of.
        """
        return max(self.sent, *self.channels.values(), *self.owed, 0)


class Change(Struct, omit_defaults=True):
    """
    What has changed of an agent.

    @ivar gone: everything of before is gone.  What else is here holds after that.
    @ivar owed: what is owed now and was not, or was sent again.
    @ivar settled: the positions of what is not owed any more.
    @ivar gen: how often the agent had been taken by a node of the cluster when this was written; 0 without a cluster.
    """

    gone: bool = False
    sent: Position | UnsetType = UNSET
    channels: dict[str, Position] | UnsetType = UNSET
    owed: dict[Position, Sends] = {}
    settled: list[Position] = []
    durable: bool | UnsetType = UNSET
    left: Position | UnsetType | None = UNSET
    gen: Position = 0

    @property
    def is_end(self) -> bool:
        """
        Nothing is kept of the agent.
        """
        return self.gone and self.channels is UNSET


encode = msgspec.json.Encoder().encode
decode_state = msgspec.json.Decoder(AgentState).decode
decode_change = msgspec.json.Decoder(Change).decode
_decode_changes = msgspec.json.Decoder(dict[str, Raw]).decode


def whole(state: AgentState) -> Change:
    """
    The change that makes C{state} of anything.
    """
    return Change(True, state.sent, state.channels, state.owed, [], state.durable, state.left)


def difference(old: AgentState, new: AgentState) -> Change | None:
    """
    The change that makes C{new} of C{old}; None if they are equal.
    """
    change = Change(
        sent=UNSET if old.sent == new.sent else new.sent,
        channels=UNSET if old.channels == new.channels else new.channels,
        durable=UNSET if old.durable == new.durable else new.durable,
        left=UNSET if old.left == new.left else new.left,
    )
    if old.owed != new.owed:
        change.settled = sorted(old.owed.keys() - new.owed.keys())
        change.owed = {pos: one for pos, one in new.owed.items() if old.owed.get(pos) != one}
    return None if change == _NOTHING else change


_NOTHING = Change()


def fold(state: AgentState | None, change: Change) -> AgentState | None:
    """
    The state after a change; None if nothing is kept of the agent.
    """
    if change.is_end:
        return None
    if state is None or change.gone:
        state = AgentState()
    settled = set(change.settled)
    return AgentState(
        state.sent if change.sent is UNSET else change.sent,
        state.channels if change.channels is UNSET else change.channels,
        {pos: one for pos, one in state.owed.items() if pos not in settled} | change.owed,
        state.durable if change.durable is UNSET else change.durable,
        state.left if change.left is UNSET else change.left,
    )


def stamped(change: bytes, gen: int) -> bytes:
    """
    A change (JSON), which is not empty, with its C{gen}.
    """
    return b'{"gen":%d,%b' % (gen, change[1:])


def merge(first: Change, then: Change) -> Change:
    """
    One change in place of two.  What C{first} added and C{then} settled stays settled: C{first} may have been written
    already, although that seemed to fail.
    """
    if then.gone:
        return then
    settled = (set(first.settled) | set(then.settled)) - then.owed.keys()
    return Change(
        first.gone,
        first.sent if then.sent is UNSET else then.sent,
        first.channels if then.channels is UNSET else then.channels,
        {pos: one for pos, one in first.owed.items() if pos not in settled} | then.owed,
        sorted(settled),
        first.durable if then.durable is UNSET else then.durable,
        first.left if then.left is UNSET else then.left,
    )


class AgentStates:
    """
    Puts together what the database has: first the states, then the changes, in their order.

    Somebody may have written into these tables by hand.  What cannot be read is left out.

    @ivar states: by agent.
    @ivar gens: how often agents were taken by a node of the cluster, of those that were.
    @ivar bad: how many states or changes could not be read.
    @ivar errors: what is wrong with the first of them.
    """

    def __init__(self) -> None:
        self.states: dict[str, AgentState] = {}
        self.gens: dict[str, int] = {}
        self.bad = 0
        self.errors: list[str] = []

    def add_state(self, agent: str, state: str | bytes, gen: int = 0) -> None:
        """
        A row of C{dcm_ws.agent}.

        @param state: JSON.
        @param gen: how often the agent was taken by a node of the cluster.  Changes with another number are left out:
            they were written by a node that had lost the agent and did not know it yet.
        """
        if gen:
            self.gens[agent] = gen
        try:
            self.states[agent] = decode_state(state)
        except msgspec.DecodeError as error:
            self._is_bad(f"the state of agent {agent!r} cannot be read: {error}")

    def add_changes(self, changes: str | bytes) -> None:
        """
        A row of C{dcm_ws.ack}.

        @param changes: JSON: by agent.
        """
        try:
            by_agent = _decode_changes(changes)
        except msgspec.DecodeError as error:
            self._is_bad(f"a row of changes cannot be read: {error}")
            return
        for agent, raw in by_agent.items():
            self.add_change(agent, raw)

    def add_change(self, agent: str, raw: str | bytes | Raw) -> None:
        """
        One change of an agent.

        @param raw: JSON.
        """
        try:
            change = decode_change(raw)
        except msgspec.DecodeError as error:
            self._is_bad(f"a change of agent {agent!r} cannot be read: {error}")
            return
        if change.gen != self.gens.get(agent, 0):
            return
        state = fold(self.states.get(agent), change)
        if state is None:
            self.states.pop(agent, None)
        else:
            self.states[agent] = state

    def _is_bad(self, error: str) -> None:
        self.bad += 1
        if len(self.errors) < _ERRORS_KEPT:
            self.errors.append(error)
