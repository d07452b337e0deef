"""
What the clients say on a connection, and when they connect again: the cases that the JavaScript client is tested
against, too.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from dcm_ws.client.conversation import Ask, GetToken, Greeting, Pause, Request, Together, converse
from dcm_ws.client.core import ClientCore
from dcm_ws.client.errors import NotAvailableError, RefusedError, TokenFailedError, refusal
from dcm_ws.client.subscriptions import PAUSE
from tests.client.players import InAsyncio, InTwisted, Player, play

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "conversation-cases.json").read_text())

SLACK = 0.25
"""
Seconds by which the delay of the asyncio client may appear shorter: it is measured by the system's clock.
"""


async def take(player: Player, step: dict[str, Any]) -> None:
    """
    Take one step of a case.  README.md, next to the cases, explains them.
    """
    match step:
        case {"server": frame}:
            await player.hear(frame)
        case {"answer": what, "with": frame}:
            await player.answer(what, frame)
        case {"closes": [code, reason]}:
            await player.end(code, reason)
        case {"wait": ms}:
            await player.wait(ms / 1000)
        case {"reconnect": True}:
            await player.reconnect()
        case {"user": ["connect"]}:
            await player.connect()
        case {"user": ["close"]}:
            await player.close()
        case {"user": [method, channel]}:
            await player.ask(method, channel)
        case {"sends": messages}:
            sent, player.sent = player.sent, []
            assert sent == messages
        case {"state": state}:
            assert player.client.state == state
        case {"retry": ms}:
            assert player.client.state == "waiting"
            assert ms / 1000 - SLACK <= player.retry_seconds() <= ms / 1000
        case {"gives_up": {"refusal": code}}:
            refusal = player.why_closed().refusal
            assert refusal is not None and refusal.code == code
        case {"gives_up": {"close": code}}:
            assert player.why_closed().close_code == code
        case {"refused": pairs}:
            assert player.refused == pairs
        case {"failed": codes}:
            assert player.failed == codes
        case _:
            pytest.fail(f"unknown step: {step}")


@pytest.mark.parametrize("kind", [InAsyncio, InTwisted], ids=["asyncio", "Twisted"])
@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_cases(case: dict[str, Any], kind: type[Player]) -> None:
    """
    Both clients do what the case says, step by step.
    """

    async def program(player: Player) -> None:
        for number, step in enumerate(case["steps"]):
            try:
                await take(player, step)
            except AssertionError as error:
                error.add_note(f"in step {number}: {step}")
                raise

    play(kind, case["options"], program)


def begin(**options: Any) -> tuple[ClientCore, Generator[Request, Any, None]]:
    """
    A client's core with a connection, and its conversation.
    """
    settings: dict[str, Any] = {"agent_id": None, "session_id": None, "channels": ["global"], "fresh_tokens": False}
    core = ClientCore(
        **settings | options,
        queue_max=5,
        random=lambda: 1.0,
        room=lambda: None,
        wall_ms=lambda: 1_700_000_000_000,
        gap=lambda gap: None,
    )
    core.opened(lambda text: None)
    return core, converse(core, timeout=10, complain=lambda error: None)


@pytest.mark.parametrize("token", [b"t1", 5, ["t1"], False])
def test_tokens_that_are_not_text(token: object) -> None:
    """
    A token function that returns something else is an error that names its type.
    """
    _, steps = begin()
    assert [next(steps), steps.send({})] == [Greeting(), GetToken()]
    with pytest.raises(TokenFailedError, match=f"must be a str, not {type(token).__name__}"):
        steps.send(token)


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (TimeoutError(), "there is no token: none came in 10 s"),
        (ValueError("not today"), "there is no token: not today"),
    ],
)
def test_tokens_that_do_not_come(problem: Exception, text: str) -> None:
    """
    The error says why there is no token.
    """
    _, steps = begin()
    next(steps)
    steps.send({})
    with pytest.raises(TokenFailedError, match=text):
        steps.throw(problem)


def test_greeting_that_has_come_already() -> None:
    """
    A client that reads before it waits for the greeting does not miss it.
    """
    core, _ = begin()
    replies: list[Any] = []
    core.received('{"type":"connected","client_id":"ws_1"}')
    core.expect_greeting(replies.append)
    core.lost(1006, "")
    core.expect_greeting(replies.append)
    assert replies[0] == {}
    assert [str(reply) for reply in replies[1:]] == ["there is no connection: connection lost (1006)"]


def test_connect_returns_before_what_a_watcher_wakes() -> None:
    """
    A task that awaits C{connect} has its result before a task goes on that a watcher of the state wakes.
    """
    seen: list[bool] = []

    async def program(player: Any) -> None:
        changed = asyncio.Event()

        async def wait() -> None:
            await changed.wait()
            seen.append(connecting.done())

        player.client.on_state(lambda state: changed.set())
        connecting = asyncio.ensure_future(player.client.connected())
        waiting = asyncio.ensure_future(wait())
        await asyncio.sleep(0)
        await player.hear({"type": "connected", "client_id": "ws_1"})
        await waiting

    play(InAsyncio, {}, program)
    assert seen == [True]


def refuse(steps: Generator[Request, Any, None], code: str, **fields: Any) -> Request:
    """
    The server refuses what the client has just asked; returns the next request.
    """
    return steps.throw(refusal({"code": code, "error": "no", **fields}))


def returning(**options: Any) -> tuple[ClientCore, Generator[Request, Any, None], Request]:
    """
    A client with a position whose server has greeted, with its next request.
    """
    core, steps = begin(**options)
    core.places.load("k1", {"global": 5, "topics/a": 5})
    core.opened(lambda text: None)
    assert next(steps) == Greeting()
    core.received('{"type":"connected","client_id":"ws_1","epoch":"k1","pos":9}')
    return core, steps, steps.send({})


def test_global_is_left_first() -> None:
    """
    Before a client resumes, it leaves global, so that no new event comes before those that it has missed.
    """
    core, steps, request = returning()
    assert request == Ask({"type": "unsubscribe", "channel": "global"})
    assert steps.send({}) == GetToken()
    assert core.subscriptions.has == set()
    resume = Ask({"type": "resume", "epoch": "k1", "pos": 5, "channels": ["global", "topics/a"]})
    assert steps.send(None) == resume
    assert refuse(steps, "RATE_LIMITED", retry_after_ms=500) == Pause(0.5)
    assert steps.send(None) == resume
    assert refuse(steps, "RATE_LIMITED") == Pause(PAUSE)
    assert steps.send(None) == resume
    with pytest.raises(NotAvailableError):
        refuse(steps, "NOT_AVAILABLE")


def test_strangers_who_may_not_resume() -> None:
    """
    A client that the server lets neither leave global nor resume is connected all the same, and has a gap.
    """
    core, steps, _ = returning()
    gaps: list[Any] = []
    core._gap = gaps.append
    assert refuse(steps, "NOT_AUTHORIZED") == GetToken()
    assert not core.places.leaving
    assert isinstance(steps.send(None), Ask)
    assert isinstance(refuse(steps, "NOT_AUTHORIZED"), Together)
    assert core.resume() is None
    assert [gap.reason for gap in gaps] == ["refused"]


def test_channels_that_may_not_be_resumed() -> None:
    """
    If the authentication is refused because of a channel, the client authenticates without resuming, and then resumes
    its channels one by one.
    """
    _, steps, _ = returning(agent_id="ann", channels=["global", "topics/a"])
    assert steps.send({}) == GetToken()
    group = {"epoch": "k1", "pos": 5, "channels": ["global", "topics/a"]}
    assert steps.send(None) == Ask({"type": "auth", "agent_id": "ann", "resume": group})
    assert refuse(steps, "NOT_AUTHORIZED") == Ask({"type": "auth", "agent_id": "ann"})
    assert steps.send({}) == Ask({"type": "resume", "epoch": "k1", "pos": 5, "channels": ["global"]})
    assert refuse(steps, "INVALID_CHANNEL") == Ask(
        {"type": "resume", "epoch": "k1", "pos": 5, "channels": ["topics/a"]}
    )


@pytest.mark.parametrize("code", ["TOKEN_INVALID", "RATE_LIMITED", "NOT_AUTHORIZED"])
def test_authentication_that_is_refused(code: str) -> None:
    """
    Any other refusal, and one of an authentication that resumes nothing, ends the conversation.
    """
    _, steps = begin(agent_id="ann")
    assert [next(steps), steps.send({})] == [Greeting(), GetToken()]
    assert steps.send(None) == Ask({"type": "auth", "agent_id": "ann"})
    with pytest.raises(RefusedError):
        refuse(steps, code)
