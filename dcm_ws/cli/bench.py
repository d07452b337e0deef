"""
C{dcm-ws bench}.
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

from dcm_ws.cli.common import harmless, http_base, server_options, token_of
from dcm_ws.cli.connection import advised, connected, make_client
from dcm_ws.cli.patience import patiently
from dcm_ws.client import DCMError, Event
from dcm_ws.client.aio import DCMClient

CONNECTIONS_MAX = 1000
MESSAGES_MAX = 100_000
RATE_MAX = 10_000

_AT_ONCE = 20
_LAST_SECONDS = 10.0
# anybody with a token may publish it, and nobody owes an ack for it
_EVENT = "agent.unblocked"


@dataclass(frozen=True, slots=True)
class Figures:
    """
    What was measured; times in ms.

    @ivar waited: of those published, the ones that the rate limit held up.
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
@click.option("--connections", type=click.IntRange(1, CONNECTIONS_MAX), default=50, show_default=True)
@click.option("--messages", type=click.IntRange(1, MESSAGES_MAX), default=200, show_default=True)
@click.option("--rate", type=click.IntRange(1, RATE_MAX), default=50, show_default=True, help="Messages a second.")
@click.option("--yes", is_flag=True, help="Do not ask if the service is on another machine.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@server_options
def command(
    connections: int,
    messages: int,
    rate: int,
    yes: bool,
    as_json: bool,
    url: str,
    token_file: str | None,
    agent_id: str | None,
) -> None:
    """
    Put a small load on a running service: subscribers of one topic, and one client that publishes to it.  It first says
    what it will do.  Clients subscribed to global receive these events, too.  The latency is measured from before
    publishing to after receiving in this one process, which may well be the slower one.

    Exit codes: 0 every event came to every subscriber; 1 one did not, or the service cannot be reached (if nothing
    listens, it retries for 15 seconds); 2 invalid usage, nothing was done; 130 ended by Ctrl-C.

    \b
    Examples:
      dcm-ws bench
      dcm-ws bench --connections 500 --messages 1000 --rate 100
      dcm-ws bench --json | jq .latency_p99_ms
    """
    host = urlsplit(http_base(url)).hostname or ""
    topic = f"topics/dcm-ws-bench-{secrets.token_hex(6)}"
    click.echo(
        f"{url}: {connections} connections to {topic}, and {messages} messages at {rate}/s:"
        f" {connections * messages:,} deliveries, and as many events on global as messages",
        err=True,
    )
    if host not in ("127.0.0.1", "::1", "localhost") and not yes:
        if not sys.stdin.isatty():
            raise click.UsageError(f"{harmless(host)} is another machine: say --yes to put this load on it")
        click.confirm("It is another machine: go on?", abort=True)
    token = token_of(token_file)
    try:
        figures = asyncio.run(_measure(url, token, agent_id, topic, connections, messages, rate))
    except DCMError as error:
        raise click.ClickException(f"{harmless(url)}: {advised(error, token)}") from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    if as_json:
        click.echo(json.dumps(asdict(figures)))
    else:
        _show(figures)
    if figures.received < figures.expected:
        raise SystemExit(1)


async def _measure(
    url: str, token: str | None, agent_id: str | None, topic: str, connections: int, messages: int, rate: int
) -> Figures:
    took: list[float] = []
    complete = asyncio.Event()

    def heard(event: Event) -> None:
        took.append(time.perf_counter() - event.data["sent"])
        if len(took) == connections * messages:
            complete.set()

    refusals: list[DCMError] = []
    console = Console(stderr=True)
    async with AsyncExitStack() as stack:
        progress = stack.enter_context(Progress(console=console, transient=True, disable=not console.is_terminal))
        # first, and alone: what keeps it from connecting is reported once
        publisher = await stack.enter_async_context(connected(make_client(url, token, agent_id, ()), url, token))
        joining = progress.add_task("connecting", total=connections)
        began = time.perf_counter()
        gate = asyncio.Semaphore(_AT_ONCE)

        async def join() -> None:
            client = make_client(url, token, agent_id, (topic,))
            client.on_error(refusals.append)
            client.on(_EVENT, heard, channel=topic)
            await client.unsubscribe("global")
            async with gate:
                await stack.enter_async_context(connected(client, url, token))
            progress.advance(joining)

        await asyncio.gather(*(join() for _ in range(connections)))
        connecting = time.perf_counter() - began
        if refusals:
            raise click.ClickException(f"{harmless(url)}: {advised(refusals[0], token)}")
        publishing = progress.add_task("publishing", total=messages)
        began = time.perf_counter()
        waited = 0
        for number in range(messages):
            await asyncio.sleep(began + number / rate - time.perf_counter())
            waited += await _publish(publisher, topic, number)
            progress.advance(publishing)
        with suppress(TimeoutError):
            await asyncio.wait_for(complete.wait(), _LAST_SECONDS)
        elapsed = time.perf_counter() - began
    took.sort()
    p50, p95, p99, last = (1000 * _quantile(took, share) for share in (0.5, 0.95, 0.99, 1))
    return Figures(
        connections,
        round(1000 * connecting, 1),
        messages,
        waited,
        connections * messages,
        len(took),
        round(len(took) / elapsed, 1),
        *(round(value, 3) for value in (p50, p95, p99, last)),
    )


async def _publish(publisher: DCMClient, topic: str, number: int) -> bool:
    """
    Did it have to wait?  The time that an event has is of its last sending.
    """

    def attempt() -> Awaitable[str]:
        return publisher.publish(topic, _EVENT, {"bench": number, "sent": time.perf_counter()})

    return (await patiently(attempt))[1]


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def _show(figures: Figures) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="cyan")
    table.add_column(justify="right")
    for name, value in asdict(figures).items():
        label = name.removesuffix("_ms").replace("_", " ")
        label = "waited for the rate limit" if name == "waited" else label
        table.add_row(label, f"{value:,.2f} ms" if name.endswith("_ms") else f"{value:,}")
    Console(highlight=False).print(table)
