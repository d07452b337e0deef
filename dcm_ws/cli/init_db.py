"""
C{dcm-ws init-db}: shows or runs the SQL for the durable log, the tables and the triggers.
"""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from typing import NamedTuple

import click
import psycopg2

from dcm_ws.cli.options import SettingsFiles, database_option, json_option, settings_options
from dcm_ws.cli.settings import find_database
from dcm_ws.cli.terminal import one_line
from dcm_ws.postgres.install import BEGIN, INSTALLED, Installed, in_transaction, install_sql, remove_sql
from dcm_ws.postgres.log_schema import FIND, LogSchema, log_schema
from dcm_ws.postgres.migrations import CONTENTS, log_sql, remove_log_sql
from dcm_ws.postgres.schema import NAMES
from dcm_ws.postgres.triggers import VERSION, Choice, ChoiceError

_CONNECT_SECONDS = 10
# two runs at once would each drop what the other creates
_LOCK = "select pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('dcm-ws init-db'))"


@click.command("init-db")
@click.option("--apply", "apply", is_flag=True, help="Run the SQL, in one transaction, instead of showing it.")
@click.option("--remove", is_flag=True, help="Remove the triggers and the log, and keep the tables.")
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
@click.option(
    "--grant",
    "grants",
    metavar="ROLE",
    multiple=True,
    help="Only this role may publish; repeatable.  Default: everybody.",
)
@click.option(
    "--owner",
    metavar="ROLE",
    help="Owner of the schema dcm_ws: the role that the service connects as.  Default: the role that runs the SQL.",
)
@click.option("--without-log", is_flag=True, help="Leave the durable log out: the triggers and tables only.")
@click.option("--without-triggers", is_flag=True, help="Leave the triggers and tables out: the durable log only.")
@click.option("--replicated", is_flag=True, help="Send events for rows that logical replication applies here, too.")
@database_option
@json_option
@settings_options
def command(
    apply: bool,
    remove: bool,
    tables: tuple[str, ...],
    events: tuple[str, ...],
    exclude: tuple[str, ...],
    include: tuple[str, ...],
    grants: tuple[str, ...],
    owner: str | None,
    without_log: bool,
    without_triggers: bool,
    replicated: bool,
    database_url: str | None,
    as_json: bool,
    files: SettingsFiles,
) -> None:
    """
    Show the SQL that creates the durable log, in the schema dcm_ws; the tables of the metrics, where they are missing;
    and triggers on task_lists, subtasks, agent_messages and sessions.

    With the log, events are kept in the database, and SQL publishes them with dcm_ws.publish().  With the triggers, a
    plain INSERT or UPDATE sends task.created, subtask.running, message.new, session.ended and so on.  The options
    describe all the triggers: running it again with the same options changes nothing, and other options add, replace
    and remove what differs.  A schema dcm_ws of an older version is migrated; the service may run meanwhile.

    If your application already publishes some of these events, they would arrive twice: choose only the others with
    --table or --event.  If it publishes all of them, use --without-triggers.

    Exit codes: 0 shown, or done; 1 it failed, and nothing was changed; 2 invalid usage.

    \b
    Examples:
      dcm-ws init-db                               # show the SQL
      dcm-ws init-db --apply                       # run it
      dcm-ws init-db --apply --owner dcm_ws --grant app
      dcm-ws init-db --apply --without-triggers
      dcm-ws init-db --apply --without-log --table agent_messages --exclude-column payload
      dcm-ws init-db --apply --event subtask.completed --event subtask.failed
      dcm-ws init-db --remove --apply              # undo it: the events in the log are lost
    """
    choice = _choice(tables, events, exclude, include, replicated)
    is_default = choice == Choice()
    if remove and (not is_default or grants):
        raise click.UsageError(
            "--remove removes everything; it cannot be combined with a choice of triggers or --grant"
        )
    if without_log and (grants or owner):
        raise click.UsageError("--grant and --owner are about the log, and --without-log leaves it out")
    if without_triggers and (not is_default or without_log):
        raise click.UsageError(
            "--without-triggers leaves only the log; it cannot be combined with a choice of triggers or --without-log"
        )
    choice = replace(choice, publisher=owner or "")
    log = "" if without_log else remove_log_sql(owner) if remove else log_sql(owner, grants)
    triggers = "" if without_triggers else remove_sql() if remove else install_sql(choice)
    sql = f"{triggers}\n{log}"
    if not apply:
        sql = in_transaction(sql)
        click.echo(json.dumps({"version": VERSION, "sql": sql}) if as_json else sql.strip())
        return
    before, after = _apply(find_database(files, database_url), sql)
    if as_json:
        click.echo(_report(before, after, with_log=not without_log))
        return
    if not without_triggers:
        click.echo(_triggers_removed(before) if remove else _triggers_installed(before, after, choice))
    if not without_log:
        click.echo(_log_removed(before) if remove else _log_installed(before, after))


class _Found(NamedTuple):
    """
    What is in the database.

    @ivar contents: how much is in the log, by kind.
    """

    triggers: Installed
    log: LogSchema
    contents: dict[str, int]


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
        choice = Choice(tables or NAMES, events, exclude, include, replicated=replicated)
    except ChoiceError as error:
        raise click.UsageError(str(error)) from None
    if events and not choice.triggered:
        raise click.UsageError("the chosen tables send none of the events chosen with --event")
    return choice


def _apply(url: str, sql: str) -> tuple[_Found, _Found]:
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
            before = _found(cursor)
            cursor.execute(sql)
            return before, _found(cursor)
    except psycopg2.errors.LockNotAvailable:
        raise click.ClickException("nothing was changed: the tables are in use; try again later") from None
    except psycopg2.Error as error:
        raise click.ClickException(f"nothing was changed: {_reason(error)}") from None


def _found(cursor: psycopg2.extensions.cursor) -> _Found:
    cursor.execute(INSTALLED)
    installed = Installed(**cursor.fetchone()[0])
    cursor.execute(FIND)
    schema, contents = log_schema(cursor.fetchone()[0]), {}
    if schema.usable:
        cursor.execute(CONTENTS)
        contents = cursor.fetchone()[0]
    return _Found(installed, schema, contents)


def _reason(error: psycopg2.Error) -> str:
    message = error.diag.message_primary or str(error) or type(error).__name__
    hint = f" ({error.diag.message_hint})" if error.diag.message_hint else ""
    return one_line(f"{message}{hint}")


def _report(before: _Found, after: _Found, *, with_log: bool) -> str:
    report: dict[str, object] = {"before": before.triggers.version, "version": after.triggers.version}
    if with_log:
        report["log"] = {"before": before.log.version, "version": after.log.version, **before.contents}
    return json.dumps(report)


def _triggers_installed(before: _Found, after: _Found, choice: Choice) -> str:
    return f"triggers, version {VERSION}: {_difference(before.triggers, after.triggers, choice)}"


def _triggers_removed(before: _Found) -> str:
    return "triggers removed; the tables stay" if before.triggers.functions else "there were no triggers"


def _difference(before: Installed, after: Installed, choice: Choice) -> str:
    if before == after:
        return "already installed, unchanged"
    if before.version != VERSION:
        return "installed"
    missing = [
        name for name in choice.tables if name in before.absent or (name in before.bare and name in choice.triggered)
    ]
    return f"created what was missing: {', '.join(missing)}" if missing else "changed"


def _log_installed(before: _Found, after: _Found) -> str:
    return f"log, version {after.log.version}: {_log_difference(before, after)}"


def _log_difference(before: _Found, after: _Found) -> str:
    if before.log == after.log:
        return "already installed, unchanged"
    who = ["everybody" if name == "public" else name for name in after.log.grantees]
    allowed = f"; {', '.join(who or [f'only {after.log.owner}'])} may publish"
    if not before.log.version:
        return f"installed in the schema dcm_ws of {after.log.owner}{allowed}"
    if before.log.version != after.log.version:
        return f"migrated from version {before.log.version}"
    return "functions replaced" if before.log.altered else f"changed{allowed}"


def _log_removed(before: _Found) -> str:
    if not before.log.owner:
        return "there was no log"
    counted = [
        f"{before.contents.get(kind, 0)} {name}"
        for kind, name in (("events", "events"), ("agents", "agents' states"), ("dead", "dead letters"))
    ]
    return f"log removed, with {', '.join(counted[:-1])} and {counted[-1]}"
