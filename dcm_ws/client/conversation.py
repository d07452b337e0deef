"""
What a client says on each new connection, as a generator without I/O: it waits for the greeting, authenticates, resumes
where it was, and subscribes to the channels that its user wants.

L{converse} yields requests.  L{drive} has each of them performed, and sends the result or the exception back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Any

from dcm_ws.client.core import ClientCore
from dcm_ws.client.errors import (
    InvalidChannelError,
    InvalidMessageError,
    NotAuthorizedError,
    RateLimitedError,
    RefusedError,
    TokenFailedError,
    TooManySubscriptionsError,
)
from dcm_ws.client.subscriptions import PAUSE, Subscriptions


@dataclass(frozen=True, slots=True)
class Greeting:
    """
    Wait for the server's greeting; fail with L{RequestTimeoutError<dcm_ws.client.errors.RequestTimeoutError>} if it
    does not come in time.
    """


@dataclass(frozen=True, slots=True)
class GetToken:
    """
    Get the token; the result is None if there is none.  Fail with C{TimeoutError} if it does not come in time.
    """


@dataclass(frozen=True, slots=True)
class Ask:
    """
    Send a message, and wait for its answer, which is the result.  Fail with L{DCMError<dcm_ws.client.errors.DCMError>}
    if it is refused, or if there is no answer.
    """

    message: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Pause:
    """
    Wait.
    """

    seconds: float


@dataclass(frozen=True, slots=True)
class Together:
    """
    Drive several generators at the same time until all have ended; fail as the first of them that fails.
    """

    parts: list[Steps]


_OF_CHANNELS = (InvalidChannelError, InvalidMessageError, NotAuthorizedError, TooManySubscriptionsError)
"""
Refusals to resume that are because of a channel.
"""

Request = Greeting | GetToken | Ask | Pause | Together
Steps = Generator[Request, Any, None]


def converse(core: ClientCore, *, timeout: float, complain: Callable[[RefusedError], object]) -> Steps:
    """
    Greet, authenticate and subscribe, on a connection that has just been opened.  After that the client is connected.

    @param timeout: seconds that the token may take; for the text of the error.
    @param complain: called with the refusal of each subscription.
    @raise RefusedError: the authentication was refused.
    @raise TokenFailedError: there is no token.
    @raise RequestTimeoutError: there is no greeting, or no answer.
    @raise NotConnectedError: the connection ended.
    """
    yield Greeting()
    if core.places.leaving:
        yield from _leave_global(core)
    message = core.auth((yield from _get_token(timeout)))
    if message is not None:
        yield from _authenticate(core, message)
    yield from _resume(core, authenticated=message is not None)
    subscriptions = core.subscriptions
    subscriptions.begin()
    # the user may change what is wanted meanwhile
    while subscriptions.unsettled:
        yield Together([_settle(subscriptions, number, complain) for number in range(subscriptions.settlers)])
    core.settled()


def _leave_global(core: ClientCore) -> Steps:
    """
    Unsubscribe from C{global}, to which the server subscribes each client at once: new events would come before those
    that the client has missed.
    """
    try:
        yield Ask({"type": "unsubscribe", "channel": "global"})
    except NotAuthorizedError:
        # in production, nothing comes before the authentication
        core.places.leaving = False
    else:
        core.subscriptions.has.discard("global")


def _authenticate(core: ClientCore, message: dict[str, Any]) -> Steps:
    try:
        yield Ask(message)
    except _OF_CHANNELS:
        if "resume" not in message:
            raise
        core.not_resumed(message["resume"])
        yield Ask({name: value for name, value in message.items() if name != "resume"})


def _resume(core: ClientCore, *, authenticated: bool) -> Steps:
    """
    Resume the channels that still wait for it.
    """
    while (message := core.resume()) is not None:
        try:
            yield Ask(message)
        except RateLimitedError as error:
            yield Pause(error.retry_after or PAUSE)
        except _OF_CHANNELS as error:
            everything = isinstance(error, NotAuthorizedError) and not authenticated
            core.not_resumed(message, everything=everything)


def _get_token(timeout: float) -> Generator[Request, Any, str | None]:
    try:
        token = yield GetToken()
    except TimeoutError:
        raise TokenFailedError(f"there is no token: none came in {timeout:g} s") from None
    except Exception as error:
        raise TokenFailedError(f"there is no token: {error}") from error
    if token is None or isinstance(token, str):
        return token
    raise TokenFailedError(f"there is no token: it must be a str, not {type(token).__name__}")


def _settle(subscriptions: Subscriptions, number: int, complain: Callable[[RefusedError], object]) -> Steps:
    """
    Subscribe to channels one after the other, as one of several that do so at the same time: very many messages at
    once would exceed the server's rate limit.

    @param number: which one of them it is, from 0.  Those whose number is C{settlers} or more end.
    """
    while subscriptions.unsettled and number < subscriptions.settlers:
        if subscriptions.pause:
            yield Pause(subscriptions.pause)
        message = subscriptions.next_message()
        if message is None:
            return
        try:
            yield Ask(message)
        except RefusedError as error:
            if not subscriptions.refused(message, error):
                complain(error)


async def drive(steps: Steps, perform: Callable[[Request], Awaitable[Any]]) -> None:
    """
    Run a generator of requests to its end, in any event loop.

    @param perform: does what a request says.
    """
    try:
        request = next(steps)
        while True:
            try:
                result = await perform(request)
            except Exception as error:
                request = steps.throw(error)
            else:
                request = steps.send(result)
    except StopIteration:
        pass
    finally:
        steps.close()
