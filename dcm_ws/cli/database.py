"""
C{dcm-ws init-db}.
"""

from __future__ import annotations

import json
from contextlib import closing

import click
import psycopg2

from dcm_ws.cli.common import config_option, database_of, harmless
from dcm_ws.triggers import INSTALLED, LOCK_TIMEOUT, VERSION, Installed, in_transaction, install_sql, remove_sql

_CONNECT_SECONDS = 10
# two of us at once would each drop what the other makes
_LOCK = "select pg_advisory_xact_lock(hashtext('dcm-ws init-db'))"


@click.command("init-db")
@click.option("--apply", "apply", is_flag=True, help="Run the SQL, in one transaction.")
@click.option("--remove", is_flag=True, help="Take the triggers away; tables stay.  With --apply too, to run it.")
@click.option(
    "--database-url", "-d", metavar="URL", help="The database; a password shows in ps, so prefer DATABASE_URL."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@config_option
def command(apply: bool, remove: bool, database_url: str | None, as_json: bool, config: str | None) -> None:
    """
    Show the SQL that makes the tables of the metrics, where they are missing, and triggers on task_lists, subtasks,
    agent_messages and sessions, so that a plain INSERT or UPDATE becomes task.created, subtask.running, message.new,
    session.ended and so on.  Running it again changes nothing.

    Exit codes: 0 shown, or done; 1 it failed, and nothing was changed; 2 the command line is no good.

    \b
    Examples:
      dcm-ws init-db                    # show it
      dcm-ws init-db --apply            # run it
      dcm-ws init-db --remove --apply   # undo it
    """
    if not apply:
        sql = in_transaction(remove_sql() if remove else install_sql())
        click.echo(json.dumps({"version": VERSION, "sql": sql}) if as_json else sql.strip())
        return
    url = database_of(config, *(["--database-url", database_url] if database_url else []))
    try:
        with closing(psycopg2.connect(url, connect_timeout=_CONNECT_SECONDS)) as connection:
            before = _remove(connection) if remove else _install(connection)
    except psycopg2.errors.LockNotAvailable:
        raise click.ClickException("nothing was changed: others use the tables for long; try again") from None
    except psycopg2.Error as error:
        reason = harmless(" ".join(str(error).split())) or type(error).__name__
        raise click.ClickException(f"nothing was changed: {reason}") from None
    if as_json:
        click.echo(json.dumps({"before": before.version, "version": 0 if remove else VERSION}))
    elif remove:
        click.echo("the triggers are gone; the tables stay" if before.schema else "there were no triggers")
    else:
        click.echo(f"triggers, version {VERSION}: {_done(before)}")


def _done(before: Installed) -> str:
    if before.version != VERSION:
        return "made"
    return f"made what was missing: {', '.join(before.lacking)}" if before.lacking else "they were there"


def _install(connection: psycopg2.extensions.connection) -> Installed:
    """
    Make what is missing, in one transaction; answers what was there before.
    """
    with connection, connection.cursor() as cursor:
        before = _begin(cursor)
        if before.version > VERSION:
            raise click.ClickException(
                f"the triggers there are of version {before.version}: use the newer dcm-ws that made them"
            )
        if before.version != VERSION or before.lacking:
            cursor.execute(install_sql(before.schema))
    return before


def _remove(connection: psycopg2.extensions.connection) -> Installed:
    with connection, connection.cursor() as cursor:
        before = _begin(cursor)
        cursor.execute(remove_sql())
    return before


def _begin(cursor: psycopg2.extensions.cursor) -> Installed:
    cursor.execute(LOCK_TIMEOUT)
    cursor.execute(_LOCK)
    cursor.execute(INSTALLED)
    return Installed(*cursor.fetchone())
