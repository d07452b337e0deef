"""
Dead letters in the database: which ones an operator means, and what is shown of them.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, get_args

import click

from dcm_ws.cli.durable_log import transaction
from dcm_ws.cli.times import TIME_RULE, moment
from dcm_ws.core.dead_letters import Reason
from dcm_ws.postgres.statements import statement

REASONS = get_args(Reason)

_NOT_REDRIVEN = "redriven_at is null and request is distinct from 'purge'"


@dataclass(frozen=True, slots=True)
class Choice:
    """
    Which dead letters an operator means; what is None or empty does not matter.

    @ivar since: they died at this time or later, in ms since the epoch.
    @ivar until: they died before this time.
    @ivar most: how many, at most.
    """

    agent: str | None = None
    event_ids: Sequence[str] = ()
    reasons: Sequence[str] = ()
    since: int | None = None
    until: int | None = None
    most: int = 100

    def parameters(self) -> dict[str, object]:
        """
        The parameters of the queries.
        """
        return {
            "agent": self.agent,
            "event_ids": list(self.event_ids) or None,
            "reasons": list(self.reasons) or None,
            "since": self.since,
            "until": self.until,
        }


class Letter(NamedTuple):
    """
    A row of the table; times in ms since the epoch.

    @ivar data: JSON; empty if it was not asked for.
    @ivar redriven_at: None if it was not redriven.
    @ivar request: what an operator has asked for and no service has done yet; None for nothing.
    """

    agent: str
    event_id: str
    pos: int
    channel: str
    event: str
    data: str
    at: int
    deliveries: int
    reason: str
    died_at: int
    redriven_at: int | None
    request: str | None

    @property
    def state(self) -> str:
        """
        What is done with it, in a word or two.
        """
        if self.request is not None:
            return f"to {self.request}"
        return "dead" if self.redriven_at is None else "redriven"

    def fields(self) -> dict[str, object]:
        """
        The letter as C{--json} prints it.
        """
        return {**self._asdict(), "data": json.loads(self.data)}


def choice_options(function: Callable[..., None]) -> Callable[..., None]:
    """
    The options that choose dead letters; the command gets them as C{choice}.
    """

    @functools.wraps(function)
    def command(
        *arguments: Any,
        agent: str | None,
        reasons: Sequence[str],
        since: int | None,
        until: int | None,
        limit: int,
        event_ids: Sequence[str] = (),
        **options: Any,
    ) -> None:
        function(*arguments, choice=Choice(agent, event_ids, reasons, since, until, limit), **options)

    chosen: Callable[..., None] = command
    for option in (
        click.option(
            "--limit",
            metavar="NUMBER",
            type=click.IntRange(1, 1_000_000),
            default=100,
            show_default=True,
            help="At most so many, the oldest first.",
        ),
        click.option("--until", metavar="TIME", type=moment, help="Only those that died before this time."),
        click.option(
            "--since", metavar="TIME", type=moment, help=f"Only those that died at this time or later: {TIME_RULE}."
        ),
        click.option(
            "--reason",
            "reasons",
            type=click.Choice(REASONS),
            multiple=True,
            help="Only those that died for this reason; repeatable.",
        ),
        click.option("--agent", metavar="AGENT", help="Only those of this agent."),
    ):
        chosen = option(chosen)
    return chosen


def find(connection: Any, choice: Choice, *, data: bool = False, dead: bool = False) -> Generator[Letter]:
    """
    Iterate over the chosen dead letters, the oldest first.

    @param data: read their data, too.
    @param dead: leave out those that have been redriven, or are to be purged.
    """
    query = statement(
        "agents/list",
        data="data" if data else "''",
        chosen=statement("agents/chosen"),
        unless=_NOT_REDRIVEN if dead else "true",
    )
    with transaction(connection, "letters") as cursor:
        cursor.execute(query, {**choice.parameters(), "most": choice.most})
        yield from map(Letter._make, cursor)


def request(connection: Any, letters: Sequence[Letter], wanted: str) -> None:
    """
    Ask the service to C{redrive} or to C{purge} dead letters.
    """
    with transaction(connection) as cursor:
        cursor.execute(statement("agents/request"), {**_keys(letters), "request": wanted})


def progress(connection: Any, letters: Sequence[Letter]) -> tuple[int, int]:
    """
    Return how many of the letters the service has seen to, and how many are gone.
    """
    with transaction(connection) as cursor:
        cursor.execute(statement("agents/progress"), _keys(letters))
        taken, gone = cursor.fetchone()
    return taken, gone


def _keys(letters: Sequence[Letter]) -> dict[str, object]:
    return {"agents": [letter.agent for letter in letters], "event_ids": [letter.event_id for letter in letters]}
