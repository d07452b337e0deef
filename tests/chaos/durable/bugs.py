"""
Bugs that are planted into the service, to see that the runs find them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from dcm_ws.core.agents import Absence, AgentMemory
from dcm_ws.core.catchup import CatchUp
from dcm_ws.core.clients import Clients
from dcm_ws.core.delivery import DeliveryQueue
from dcm_ws.core.tracked import Late
from dcm_ws.postgres.listen_connection import ListenConnection
from dcm_ws.protocol import events


@dataclass(frozen=True, slots=True)
class Bug:
    """
    One bug.

    @ivar what: what is wrong with it.
    @ivar plant: puts it into this process.
    """

    what: str
    plant: Callable[[], None]


BUGS: dict[str, Bug] = {}


def bug(where: Any, method: str, what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """
    Make a bug of a function that takes the place of a method, and gets the method as its first argument.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        def plant() -> None:
            good = getattr(where, method)

            def bad(*positional: Any, **named: Any) -> Any:
                return function(good, *positional, **named)

            setattr(where, method, bad)

        BUGS[function.__name__] = Bug(what, plant)
        return function

    return decorate


# the core


@bug(CatchUp, "end", "what an agent had not been sent yet when it lost its connection again is lost")
def replay_lost(good: Any, self: CatchUp, session: Any, **named: Any) -> Any:
    behind = session.behind is not None
    owed, places = good(self, session, **named)
    return ({}, dict.fromkeys(places, self.head)) if behind else (owed, places)


@bug(DeliveryQueue, "ack", "an ack settles the event for all clients")
def ack_settles_all(good: Any, self: DeliveryQueue, client: Any, event_id: str) -> Any:
    delivery = client.owed.get(event_id)
    others = [one for one in delivery.waiting if one is not client] if delivery is not None else []
    settled = good(self, client, event_id)
    for one in others:
        good(self, one, event_id)
    return settled


@bug(AgentMemory, "returned", "the channels of sessions are not restored")
def sessions_forgotten(good: Any, self: AgentMemory, agent: str) -> Absence | None:
    absence: Absence | None = good(self, agent)
    if absence is None:
        return None
    return absence._replace(
        channels={name: pos for name, pos in absence.channels.items() if not name.startswith("sessions/")}
    )


@bug(DeliveryQueue, "late", "what is sent again is sent to nobody")
def retry_to_nobody(good: Any, self: DeliveryQueue) -> Iterator[Late | None]:
    for late in good(self):
        yield late and late._replace(frames=())


@bug(DeliveryQueue, "late", "only the first frame of an event is sent again")
def retry_of_one_frame(good: Any, self: DeliveryQueue) -> Iterator[Late | None]:
    for late in good(self):
        yield late and late._replace(frames=late.frames[:1])


@bug(CatchUp, "begin", "new events overtake those that a client has missed")
def live_overtakes(good: Any, self: CatchUp, session: Any, **named: Any) -> None:
    good(self, session, **named)
    self._behind.discard(session)


@bug(CatchUp, "begin", "the first event that a client has missed is skipped")
def first_missed_skipped(good: Any, self: CatchUp, session: Any, **named: Any) -> None:
    for places in ("resumed", "missed"):
        if named.get(places):
            named[places] = {name: pos + 1 for name, pos in named[places].items()}
    good(self, session, **named)


@bug(CatchUp, "begin", "nothing that was missed is sent")
def nothing_missed(good: Any, self: CatchUp, session: Any, *, missed: Any = None, **named: Any) -> None:
    good(self, session, **named)


@bug(CatchUp, "begin", "nothing that is owed is sent to the next connection")
def nothing_owed(good: Any, self: CatchUp, session: Any, *, owed: Any = None, **named: Any) -> None:
    good(self, session, **named)


@bug(Clients, "others", "connections of one agent know nothing of each other")
def no_takeover(good: Any, self: Clients, session: Any, agent: str) -> list[Any]:
    return []


@bug(AgentMemory, "returned", "an agent that comes back gets everything in the log")
def everything_again(good: Any, self: AgentMemory, agent: str) -> Absence | None:
    absence: Absence | None = good(self, agent)
    return absence and absence._replace(channels=dict.fromkeys(absence.channels, 0))


@bug(ListenConnection, "resume", "the database is not read again after a pause")
def never_resumed(good: Any, self: ListenConnection) -> None:
    pass


def _untracked() -> None:
    setattr(events, "TRACKED", ("task.", "message."))  # noqa: B010


BUGS["subtasks_untracked"] = Bug("events of subtasks are not tracked", _untracked)
