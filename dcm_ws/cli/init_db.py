"""
C{dcm-ws init-db}: shows or runs the SQL for tables and triggers.
"""

from __future__ import annotations

import json
from contextlib import closing

import click
import psycopg2

from dcm_ws.cli.options import SettingsFiles, json_option, settings_options
from dcm_ws.cli.settings import find_database
from dcm_ws.cli.terminal import one_line
from dcm_ws.postgres.install import BEGIN, INSTALLED, Installed, in_transaction, install_sql, remove_sql
from dcm_ws.postgres.schema import NAMES
from dcm_ws.postgres.triggers import VERSION, Choice, ChoiceError

_CONNECT_SECONDS = 10
# two runs at once would each drop what the other creates
_LOCK = "select pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('dcm-ws init-db'))"


@click.command("init-db")
@click.option("--apply", "apply", is_flag=True, help="Run the SQL, in one transaction.")
@click.option("--remove", is_flag=True, help="Remove the triggers and keep the tables; with --apply, run the SQL.")
@click.option("--table", "tables", metavar="NAME", multiple=True, help="Only this table; repeatable.")
@click.option("--event", "events", metavar="NAME", multiple=True, help="Send only this event; repeatable.")
@click.option(
    "--exclude-column", "exclude", metavar="[TABLE.]COLUMN", multiple=True, help="Never send this column; repeatable."
)
@click.option(
    "--include-column",
    "include",
    metavar="[TABLE.]COLUMN",
    multiple=True,
    help="Send this column whatever its size; others are left out beyond 500 bytes.  Repeatable.",
)
@click.option("--replicated", is_flag=True, help="Send events for rows that logical replication applies here, too.")
@click.option(
    "--database-url",
    "-d",
    metavar="URL",
    help="URL of the database.  It may hold a password, and options show in ps: prefer the variable DATABASE_URL.",
)
@json_option
@settings_options
def command(
    apply: bool,
    remove: bool,
    tables: tuple[str, ...],
    events: tuple[str, ...],
    exclude: tuple[str, ...],
    include: tuple[str, ...],
    replicated: bool,
    database_url: str | None,
    as_json: bool,
    files: SettingsFiles,
) -> None:
    """
    Show the SQL that creates the tables of the metrics, where they are missing, and triggers on task_lists, subtasks,
    agent_messages and sessions.  With the triggers, a plain INSERT or UPDATE sends task.created, subtask.running,
    message.new, session.ended and so on.  The options describe all the triggers: running it again with the same
    options changes nothing, and other options add, replace and remove what differs.

    If your application already publishes some of these events, they would arrive twice: choose only the others with
    --table or --event.

    Exit codes: 0 shown, or done; 1 it failed, and nothing was changed; 2 invalid usage.

    \b
    Examples:
      dcm-ws init-db                               # show the SQL
      dcm-ws init-db --apply                       # run it
      dcm-ws init-db --apply --table agent_messages --exclude-column payload
      dcm-ws init-db --apply --event subtask.completed --event subtask.failed
      dcm-ws init-db --remove --apply              # undo it
    """
    choice = _choice(tables, events, exclude, include, replicated)
    if remove and choice != Choice():
        raise click.UsageError("--remove removes all the triggers; it cannot be combined with a choice of them")
    sql = remove_sql() if remove else install_sql(choice)
    if not apply:
        sql = in_transaction(sql)
        click.echo(json.dumps({"version": VERSION, "sql": sql}) if as_json else sql.strip())
        return
    before, after = _apply(find_database(files, database_url), sql)
    if as_json:
        click.echo(json.dumps({"before": before.version, "version": after.version}))
    elif remove:
        click.echo("triggers removed; the tables stay" if before.functions else "there were no triggers")
    else:
        click.echo(f"triggers, version {VERSION}: {_difference(before, after, choice)}")


def _choice(
    tables: tuple[str, ...],
    events: tuple[str, ...],
    exclude: tuple[str, ...],
    include: tuple[str, ...],
    replicated: bool,
) -> Choice:
    """
    @raise click.UsageError: the choice is invalid, or chooses no event.
    """
    try:
        choice = Choice(tables or NAMES, events, exclude, include, replicated)
    except ChoiceError as error:
        raise click.UsageError(str(error)) from None
    if events and not choice.triggered:
        raise click.UsageError("the chosen tables send none of the events chosen with --event")
    return choice


def _apply(url: str, sql: str) -> tuple[Installed, Installed]:
    """
    Run the SQL in one transaction; returns what was installed before and what is installed after.

    @raise click.ClickException: it failed, and nothing was changed.
    """
    try:
        with (
            closing(psycopg2.connect(url, connect_timeout=_CONNECT_SECONDS)) as connection,
            connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(BEGIN)
            cursor.execute(_LOCK)
            before = _installed(cursor)
            cursor.execute(sql)
            return before, _installed(cursor)
    except psycopg2.errors.LockNotAvailable:
        raise click.ClickException("nothing was changed: the tables are in use; try again later") from None
    except psycopg2.Error as error:
        raise click.ClickException(f"nothing was changed: {_reason(error)}") from None


def _installed(cursor: psycopg2.extensions.cursor) -> Installed:
    cursor.execute(INSTALLED)
    return Installed(**cursor.fetchone()[0])


def _reason(error: psycopg2.Error) -> str:
    message = error.diag.message_primary or str(error) or type(error).__name__
    hint = f" ({error.diag.message_hint})" if error.diag.message_hint else ""
    return one_line(f"{message}{hint}")


def _difference(before: Installed, after: Installed, choice: Choice) -> str:
    if before == after:
        return "already installed, unchanged"
    if before.version != VERSION:
        return "installed"
    missing = [
        name for name in choice.tables if name in before.absent or (name in before.bare and name in choice.triggered)
    ]
    return f"created what was missing: {', '.join(missing)}" if missing else "changed"
