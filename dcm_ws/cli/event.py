"""
C{dcm-ws event}: shows what became of an event.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import click

from dcm_ws.cli.columns import columns
from dcm_ws.cli.durable_log import connected, transaction
from dcm_ws.cli.options import SettingsFiles, database_option, json_option, settings_options
from dcm_ws.cli.settings import find_database
from dcm_ws.cli.terminal import harmless, json_line
from dcm_ws.core.event_records import EventRecord, event_fields, sender_of
from dcm_ws.core.fates import Fate, fates
from dcm_ws.core.ledger_pages import BLOCK, entries_of
from dcm_ws.postgres.ledger_rows import BYTES_MAX, PAGES_MAX, FoundEvent
from dcm_ws.postgres.statements import statement

_HEAD = ("AGENT", "STATE", "SENT", "FIRST SENT", "LAST SENT", "ACKNOWLEDGED", "DIED")
_HISTORY_MAX = 40


@click.command("event")
@click.argument("event_id", metavar="ID")
@click.option("--agent", metavar="AGENT", help="Only what became of it at this agent.")
@click.option(
    "--limit",
    metavar="NUMBER",
    type=click.IntRange(1, 1_000_000),
    default=100,
    show_default=True,
    help="At most so many agents, by their names.",
)
@json_option
@database_option
@settings_options
def command(
    event_id: str, agent: str | None, limit: int, as_json: bool, database_url: str | None, files: SettingsFiles
) -> None:
    """
    Show what became of an event: when it was published and by whom, and for each agent how often it was sent and when,
    and when it was acknowledged, died or was redriven.  The command works on the database with the durable log, which
    dcm-ws init-db --apply creates, and finds it as the service does.  What it shows is up to a second old.

    Clients without an agent, and observers, are not listed.  STATE: sent, acknowledged, dead (it was sent as often as
    the service does) or redriven (an operator had it sent again, and its agent has not been sent it yet).

    Exit codes: 0 shown; 1 it failed, or the log has no such event; 2 invalid usage.

    \b
    Examples:
      dcm-ws event msg_5f0c9d8e7b6a
      dcm-ws event msg_5f0c9d8e7b6a --agent worker-1
      dcm-ws event msg_5f0c9d8e7b6a --json | jq '.agents[] | select(.state == "dead").agent_id'
    """
    with connected(find_database(files, database_url)) as connection:
        record = _find(connection, event_id)
    if record is None:
        raise click.ClickException(f"the log has no event {harmless(event_id)!r}")
    chosen = [fate for fate in record.fates if agent is None or fate.agent == agent]
    if as_json:
        click.echo(json_line(event_fields(record, chosen[:limit])))
        return
    _print(record)
    _print_table(chosen[:limit], len(record.fates))
    _print_history(chosen[:limit])


def _find(connection: Any, event_id: str) -> EventRecord | None:
    with transaction(connection) as cursor:
        cursor.execute(statement("ledger/event"), {"event_id": event_id})
        row = cursor.fetchone()
        if row is None:
            return None
        found = FoundEvent(*row)
        end = (found.pos // BLOCK + 1) * BLOCK
        part = {"pos": found.pos, "end": end, "most": PAGES_MAX, "bytes": BYTES_MAX}
        cursor.execute(statement("ledger/find"), part)
        pages = [entries.encode() for (entries,) in cursor]
    return EventRecord(
        *(found.pos, found.event_id, found.channel, found.event, found.at, sender_of(found.sender)),
        fates(entries_of(pages, found.pos)),
    )


def _print(record: EventRecord) -> None:
    for name, value in {
        "id": record.event_id,
        "event": record.event,
        "channel": record.channel,
        "pos": record.pos,
        "published": _moment(record.timestamp),
        "by": record.sender or "-",
    }.items():
        click.echo(f"{name:<9}  {harmless(str(value))}")


def _print_table(chosen: Sequence[Fate], total: int) -> None:
    rows = [
        (
            *(one.agent, one.state, one.sends, _moment(one.first_sent), _moment(one.last_sent)),
            *(_moment(one.acknowledged), _moment(one.dead)),
        )
        for one in chosen
    ]
    for line in columns(_HEAD, rows) if rows else ("it went to no agent, as far as the ledger knows",):
        click.echo(line)
    if total > len(chosen) > 1:
        click.echo(f"and {total - len(chosen)} more; --limit shows more")


def _print_history(chosen: Sequence[Fate]) -> None:
    entries = sorted((entry for fate in chosen for entry in fate.history), key=lambda entry: entry.at)
    if 0 < len(entries) <= _HISTORY_MAX:
        rows = [(_moment(entry.at), entry.agent, f"{entry.what} {entry.reason}".rstrip()) for entry in entries]
        for line in columns(("TIME", "AGENT", "WHAT"), rows):
            click.echo(line)


def _moment(ms: int | None) -> str:
    """
    A time with its milliseconds, in local time; C{-} for None.
    """
    if ms is None:
        return "-"
    try:
        return datetime.fromtimestamp(ms / 1000).isoformat(" ", "milliseconds")
    except (ValueError, OverflowError, OSError):
        return str(ms)
