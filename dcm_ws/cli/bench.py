"""
C{dcm-ws bench}: puts a small load on a service, and measures its latency.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import time
from collections.abc import Awaitable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import asdict, dataclass
from urllib.parse import urlsplit

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from dcm_ws.cli.connection import connected, failure, make_client, repeat_until_accepted
from dcm_ws.cli.options import Server, ServerOptions, json_option, server_options
from dcm_ws.cli.terminal import INTERRUPTED, harmless, progress_bar
from dcm_ws.client import DCMError, Event
from dcm_ws.client.aio import DCMClient

CONNECTIONS_MAX = 1000
MESSAGES_MAX = 100_000
RATE_MAX = 10_000

_CONNECTING_AT_ONCE = 20
_LAST_SECONDS = 10.0
_LOCAL = ("127.0.0.1", "::1", "localhost")
# anyone with a token may publish it, and it needs no acknowledgement
_EVENT = "agent.unblocked"


@dataclass(frozen=True, slots=True)
class Plan:
    """
    The load.

    @ivar rate: messages per second.
    """

    topic: str
    connections: int
    messages: int
    rate: int

    @property
    def deliveries(self) -> int:
        """
        The number of events that the subscribers receive if none is lost.
        """
        return self.connections * self.messages

    def __str__(self) -> str:
        return (
            f"{self.connections} connections to {self.topic}, and {self.messages} messages at {self.rate}/s:"
            f" {self.deliveries:,} deliveries, and as many events on global as messages"
        )


@dataclass(frozen=True, slots=True)
class Figures:
    """
    What was measured; times in milliseconds.

    @ivar waited: the number of messages that the rate limit delayed.
    """

    connections: int
    connecting_ms: float
    published: int
    waited: int
    expected: int
    received: int
    deliveries_per_second: float
    latency_p50_ms: float
    latency_p95_ms: float
    latency_p99_ms: float
    latency_max_ms: float


@click.command("bench")
@click.option(
    "--connections",
    metavar="NUMBER",
    type=click.IntRange(1, CONNECTIONS_MAX),
    default=50,
    show_default=True,
    help="Number of subscribers.",
)
@click.option(
    "--messages",
    metavar="NUMBER",
    type=click.IntRange(1, MESSAGES_MAX),
    default=200,
    show_default=True,
    help="Number of messages to publish.",
)
@click.option(
    "--rate",
    metavar="NUMBER",
    type=click.IntRange(1, RATE_MAX),
    default=50,
    show_default=True,
    help="Messages per second.",
)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation if the service is on another machine.")
@json_option
@server_options
def command(connections: int, messages: int, rate: int, yes: bool, as_json: bool, server: ServerOptions) -> None:
    """
    Put a small load on a running service: subscribers of one topic, and one client that publishes to it.  It first
    prints what it will do.  Clients subscribed to global receive these events, too.  The latency is the time from
    before publishing to after receiving in this one process, which may well be the slower one.

    Exit codes: 0 every event reached every subscriber; 1 one did not, or the service cannot be reached (if nothing
    listens, it retries for 15 seconds); 2 invalid usage, nothing was done; 130 ended by Ctrl-C.

    \b
    Examples:
      dcm-ws bench
      dcm-ws bench --connections 500 --messages 1000 --rate 100
      dcm-ws bench --json | jq .latency_p99_ms
    """
    plan = Plan(f"topics/dcm-ws-bench-{secrets.token_hex(6)}", connections, messages, rate)
    host = urlsplit(server.http_base()).hostname or ""
    click.echo(f"{server.url}: {plan}", err=True)
    if host not in _LOCAL and not yes:
        _confirm(host)
    figures = _run(server.server(), plan)
    if as_json:
        click.echo(json.dumps(asdict(figures)))
    else:
        _show(figures)
    if figures.received < figures.expected:
        raise SystemExit(1)


def _confirm(host: str) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError(f"{harmless(host)} is another machine: use --yes to put this load on it")
    click.confirm("The service is on another machine: continue?", abort=True)


def _run(server: Server, plan: Plan) -> Figures:
    try:
        return asyncio.run(_measure(server, plan))
    except DCMError as error:
        raise failure(error, server) from None
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


async def _measure(server: Server, plan: Plan) -> Figures:
    async with AsyncExitStack() as stack:
        progress = stack.enter_context(progress_bar())
        # the publisher connects before the subscribers, so that a connection failure is reported once
        publisher = await stack.enter_async_context(connected(make_client(server), server))
        subscribers = _Subscribers(server, plan)
        began = time.perf_counter()
        await subscribers.connect(stack, progress)
        connecting = time.perf_counter() - began
        began = time.perf_counter()
        waited = await _publish_all(publisher, plan, progress)
        await subscribers.wait()
        elapsed = time.perf_counter() - began
    return _figures(plan, connecting, waited, sorted(subscribers.latencies), elapsed)


class _Subscribers:
    """
    The clients that receive the events.

    @ivar latencies: seconds from publishing to receiving, of each delivery.
    """

    def __init__(self, server: Server, plan: Plan) -> None:
        self._server = server
        self._plan = plan
        self._complete = asyncio.Event()
        self._connecting = asyncio.Semaphore(_CONNECTING_AT_ONCE)
        self._refusals: list[DCMError] = []
        self.latencies: list[float] = []

    async def connect(self, stack: AsyncExitStack, progress: Progress) -> None:
        """
        Connect all of them, a few at a time; they are closed with C{stack}.

        @raise click.ClickException: a client cannot connect, or is not allowed to subscribe.
        """
        task = progress.add_task("connecting", total=self._plan.connections)

        async def connect_one() -> None:
            client = make_client(self._server, (self._plan.topic,))
            client.on_error(self._refusals.append)
            client.on(_EVENT, self._received, channel=self._plan.topic)
            await client.unsubscribe("global")
            async with self._connecting:
                await stack.enter_async_context(connected(client, self._server))
            progress.advance(task)

        await asyncio.gather(*(connect_one() for _ in range(self._plan.connections)))
        if self._refusals:
            raise failure(self._refusals[0], self._server)

    async def wait(self) -> None:
        """
        Wait for the last events, but not indefinitely.
        """
        with suppress(TimeoutError):
            await asyncio.wait_for(self._complete.wait(), _LAST_SECONDS)

    def _received(self, event: Event) -> None:
        self.latencies.append(time.perf_counter() - event.data["sent"])
        if len(self.latencies) == self._plan.deliveries:
            self._complete.set()


async def _publish_all(publisher: DCMClient, plan: Plan, progress: Progress) -> int:
    """
    Publish at the rate of the plan; returns how many messages the rate limit delayed.
    """
    task = progress.add_task("publishing", total=plan.messages)
    began = time.perf_counter()
    waited = 0
    for number in range(plan.messages):
        await asyncio.sleep(began + number / plan.rate - time.perf_counter())
        waited += await _publish(publisher, plan.topic, number)
        progress.advance(task)
    return waited


async def _publish(publisher: DCMClient, topic: str, number: int) -> bool:
    """
    Publish one message; returns whether the rate limit delayed it.
    """

    # each attempt takes the time again: the latency does not include the delay
    def attempt() -> Awaitable[str]:
        return publisher.publish(topic, _EVENT, {"bench": number, "sent": time.perf_counter()})

    return (await repeat_until_accepted(attempt))[1]


def _figures(plan: Plan, connecting: float, waited: int, latencies: Sequence[float], elapsed: float) -> Figures:
    """
    @param connecting: seconds.
    @param latencies: seconds, in ascending order.
    @param elapsed: seconds from the first publish to the last delivery.
    """
    p50, p95, p99, slowest = (round(1000 * _quantile(latencies, share), 3) for share in (0.5, 0.95, 0.99, 1))
    return Figures(
        connections=plan.connections,
        connecting_ms=round(1000 * connecting, 1),
        published=plan.messages,
        waited=waited,
        expected=plan.deliveries,
        received=len(latencies),
        deliveries_per_second=round(len(latencies) / elapsed, 1),
        latency_p50_ms=p50,
        latency_p95_ms=p95,
        latency_p99_ms=p99,
        latency_max_ms=slowest,
    )


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def _show(figures: Figures) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="cyan")
    table.add_column(justify="right")
    for name, value in asdict(figures).items():
        label = name.removesuffix("_ms").replace("_", " ")
        label = "delayed by the rate limit" if name == "waited" else label
        table.add_row(label, f"{value:,.2f} ms" if name.endswith("_ms") else f"{value:,}")
    Console(highlight=False).print(table)
