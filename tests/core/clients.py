"""
Clients as the tests of the core use them, and what these read.
"""

from __future__ import annotations

from typing import Any

from dcm_ws.core.assembly import Core
from dcm_ws.protocol.events import is_tracked
from dcm_ws.protocol.tokens import sign
from tests.fakes import SECRET, WALL_MS, Client

TASK: dict[str, Any] = {"type": "publish", "channel": "topics/t", "event": "task.created"}


def joined(core: Core, *channels: str, agent: str | None = None, quiet: bool = False) -> Client:
    """
    A client that is subscribed to some channels besides C{global}, or, where it is quiet, in place of it.
    """
    client = Client(core)
    if agent is not None:
        client.auth(agent)
    for channel in channels:
        client.say(type="subscribe", channel=channel)
    if quiet:
        client.say(type="unsubscribe", channel="global")
    client.peer.take()
    return client


def token(core: Core, agent: str, session: str | None = None) -> str:
    return sign(SECRET, agent, session, core.world.wall_ms())


def texts(messages: list[dict[str, Any]]) -> list[tuple[str, Any]]:
    """
    The channel and the data of each tracked event.
    """
    return [(m["channel"], m["data"]) for m in messages if "event" in m and is_tracked(m["event"])]


def stats(core: Core) -> dict[str, Any]:
    return dict(core.stats.report(names=True))


def joined_again(core: Core, agent: str) -> list[dict[str, Any]]:
    """
    The events that an agent receives when it returns and unsubscribes from C{global}.
    """
    client = joined(core, quiet=True)
    return client.auth(agent)


def away(core: Core, agent: str, count: int) -> None:
    """
    Have an agent miss so many events on C{topics/t}.
    """
    joined(core, "topics/t", agent=agent, quiet=True).leave()
    publisher = joined(core, quiet=True)
    for number in range(count):
        publisher.say(**TASK, data=number)
    publisher.leave()


def only(messages: list[dict[str, Any]]) -> dict[str, Any]:
    (message,) = messages
    return message


def ack(request: object, **more: object) -> dict[str, Any]:
    return {"type": "ack", "id": request, "success": True, "timestamp": WALL_MS} | more


def refusal(request: object, code: str, error: str) -> dict[str, Any]:
    return {
        "type": "ack",
        "id": request,
        "success": False,
        "error": error,
        "code": code,
        "timestamp": WALL_MS,
    }


def codes(client: Client, times: int, **message: Any) -> list[str | None]:
    return [answer.get("code") for _ in range(times) for answer in client.say(**message)]
