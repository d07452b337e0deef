"""
C{dcm-ws init-db}.
"""

from __future__ import annotations

import json
from contextlib import closing

import click
import psycopg2

from dcm_ws.cli.common import config_option, database_of, harmless
from dcm_ws.triggers import INSTALLED, VERSION, install_sql, remove_sql, version_of

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
    sql = remove_sql() if remove else install_sql()
    if not apply:
        click.echo(json.dumps({"version": VERSION, "sql": sql}) if as_json else sql.strip())
        return
    url = database_of(config, *(["--database-url", database_url] if database_url else []))
    try:
        with closing(psycopg2.connect(url, connect_timeout=_CONNECT_SECONDS)) as connection:
            before = _run(connection, sql, remove=remove)
    except psycopg2.Error as error:
        reason = harmless(" ".join(str(error).split())) or type(error).__name__
        raise click.ClickException(f"nothing was changed: {reason}") from None
    after = 0 if remove else VERSION
    if as_json:
        click.echo(json.dumps({"before": before, "version": after}))
    elif remove:
        click.echo("the triggers are gone; the tables stay" if before else "there were no triggers")
    else:
        click.echo(f"triggers, version {VERSION}: " + ("they were there" if before == VERSION else "made"))


def _run(connection: psycopg2.extensions.connection, sql: str, *, remove: bool) -> int:
    """
    Run it in one transaction; answers the version that was there before.
    """
    with connection, connection.cursor() as cursor:
        cursor.execute(_LOCK)
        cursor.execute(INSTALLED)
        row = cursor.fetchone()
        before = version_of(row[0] if row else None)
        if before > VERSION and not remove:
            raise click.ClickException(
                f"the triggers there are of version {before}: use the newer dcm-ws that made them"
            )
        if before != VERSION or remove:
            cursor.execute(sql)
    return before
