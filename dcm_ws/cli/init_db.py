"""
C{dcm-ws init-db}.
"""

from __future__ import annotations

import json
from contextlib import closing

import click
import psycopg2

from dcm_ws.cli.common import config_option, database_of, harmless
from dcm_ws.postgres.install import BEGIN, INSTALLED, Installed, in_transaction, install_sql, remove_sql
from dcm_ws.postgres.schema import NAMES
from dcm_ws.postgres.triggers import VERSION, Choice, ChoiceError

_CONNECT_SECONDS = 10
# two of us at once would each drop what the other creates
_LOCK = "select pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('dcm-ws init-db'))"


@click.command("init-db")
@click.option("--apply", "apply", is_flag=True, help="Run the SQL, in one transaction.")
@click.option("--remove", is_flag=True, help="Remove the triggers; tables stay.  With --apply too, to run it.")
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
    "--database-url", "-d", metavar="URL", help="The database; a password shows in ps, so prefer DATABASE_URL."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@config_option
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
    config: str | None,
) -> None:
    """
    Show the SQL that creates the tables of the metrics, where they are missing, and triggers on task_lists, subtasks,
    agent_messages and sessions, so that a plain INSERT or UPDATE becomes task.created, subtask.running, message.new,
    session.ended and so on.  The triggers are afterwards exactly those that the options say; running it again with
    the same options changes nothing.

    If your application already publishes these events, do not install triggers, or each event arrives twice: choose
    with --table or --event what it does not publish.

    Exit codes: 0 shown, or done; 1 it failed, and nothing was changed; 2 invalid usage.

    \b
    Examples:
      dcm-ws init-db                               # show it
      dcm-ws init-db --apply                       # run it
      dcm-ws init-db --apply --table agent_messages --exclude-column payload
      dcm-ws init-db --apply --event subtask.completed --event subtask.failed
      dcm-ws init-db --remove --apply              # undo it
    """
    try:
        choice = Choice(tables or NAMES, events, exclude, include, replicated)
    except ChoiceError as error:
        raise click.UsageError(str(error)) from None
    if remove and choice != Choice():
        raise click.UsageError("--remove removes all the triggers, and takes no choice of them")
    if events and not choice.triggered:
        raise click.UsageError("the tables that were chosen send none of the events that were chosen")
    sql = remove_sql() if remove else install_sql(choice)
    if not apply:
        sql = in_transaction(sql)
        click.echo(json.dumps({"version": VERSION, "sql": sql}) if as_json else sql.strip())
        return
    url = database_of(config, *(["--database-url", database_url] if database_url else []))
    try:
        with closing(psycopg2.connect(url, connect_timeout=_CONNECT_SECONDS)) as connection:
            before, after = _run(connection, sql)
    except psycopg2.errors.LockNotAvailable:
        raise click.ClickException("nothing was changed: others use the tables for long; try again") from None
    except psycopg2.Error as error:
        raise click.ClickException(f"nothing was changed: {_reason(error)}") from None
    if as_json:
        click.echo(json.dumps({"before": before.version, "version": after.version}))
    elif remove:
        click.echo("the triggers are gone; the tables stay" if before.functions else "there were no triggers")
    else:
        click.echo(f"triggers, version {VERSION}: {_done(before, after, choice)}")


def _reason(error: psycopg2.Error) -> str:
    said = error.diag.message_primary or str(error) or type(error).__name__
    hint = f" ({error.diag.message_hint})" if error.diag.message_hint else ""
    return harmless(" ".join(f"{said}{hint}".split()))


def _done(before: Installed, after: Installed, choice: Choice) -> str:
    if before == after:
        return "they were there"
    if before.version != VERSION:
        return "installed"
    lacking = [
        name for name in choice.tables if name in before.absent or (name in before.bare and name in choice.triggered)
    ]
    return f"made what was missing: {', '.join(lacking)}" if lacking else "changed"


def _run(connection: psycopg2.extensions.connection, sql: str) -> tuple[Installed, Installed]:
    """
    Run it in one transaction; returns what was there before and what is there after.
    """
    with connection, connection.cursor() as cursor:
        cursor.execute(BEGIN)
        cursor.execute(_LOCK)
        before = _installed(cursor)
        cursor.execute(sql)
        return before, _installed(cursor)


def _installed(cursor: psycopg2.extensions.cursor) -> Installed:
    cursor.execute(INSTALLED)
    return Installed(**cursor.fetchone()[0])
