"""
What C{dcm-ws check} finds out about a database: LISTEN from end to end, tables, triggers and the clock.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg2
from psycopg2.extensions import parse_dsn

from dcm_ws.cli import probes
from dcm_ws.cli.check_report import Finding
from dcm_ws.cli.terminal import one_line
from dcm_ws.postgres.install import BEGIN, INSTALLED, Installed
from dcm_ws.postgres.log_schema import APPLY, FIND, LogSchema, log_schema
from dcm_ws.postgres.triggers import VERSION

CLOCK_MAX = 5.0
"""
Seconds that the clocks may differ.
"""

_ERRORS = (psycopg2.Error, probes.SlowError)


def database_findings(url: str) -> Iterator[Finding]:
    """
    Connect to the database, and look at what the service needs of it.
    """
    try:
        with probes.deadlines(), closing(probes.connect(url)) as connection:
            version = probes.ask(connection, "show server_version")[0]
            yield Finding("database", True, f"PostgreSQL {version} answers")
            yield _listen(url)
            installed, schema = _installed(connection)
            yield _tables(installed)
            yield _triggers(installed)
            yield _log(schema)
            yield compare_clocks(probes.clock_difference(connection))
    except _ERRORS as error:
        yield Finding(
            "database", False, one_line(error), f"{_is_ready(url)}; start the database, or correct DATABASE_URL"
        )


def _is_ready(url: str) -> str:
    """
    The command that says if a server accepts connections there.
    """
    try:
        parts = parse_dsn(url)
    except psycopg2.ProgrammingError:
        parts = {}
    given = [(option, parts[name]) for option, name in (("-h", "host"), ("-p", "port")) if parts.get(name)]
    return shlex.join(["pg_isready", *(word for pair in given for word in pair)])


def _listen(url: str) -> Finding:
    direct = (
        "set DATABASE_URL to PostgreSQL itself, or to a pool in session mode (in pgbouncer.ini: pool_mode = session)"
    )
    try:
        mode = probes.pooler_mode(url)
        if mode is not None:
            text = f"notifications get lost in a pooler in {mode} mode, which is between dcm-ws and the database"
            return Finding("listen", False, text, direct)
        if probes.notification_arrives(url):
            return Finding("listen", True, "a notification arrived")
        return Finding("listen", False, f"no notification arrived within {probes.DEADLINE:g} s", direct)
    except _ERRORS as error:
        return Finding("listen", False, one_line(error), f"there may be too few connections; {direct}")


def _installed(connection: Any) -> tuple[Installed, LogSchema]:
    with connection.cursor() as cursor:
        cursor.execute("begin")
        cursor.execute(BEGIN)
        cursor.execute(INSTALLED)
        installed = Installed(**cursor.fetchone()[0])
        cursor.execute(FIND)
        schema = log_schema(cursor.fetchone()[0])
        cursor.execute("rollback")
    return installed, schema


def _tables(installed: Installed) -> Finding:
    if installed.absent:
        text = f"missing, so the metrics are zero: {', '.join(installed.absent)}"
        return Finding("tables", False, text, APPLY)
    return Finding("tables", True, "all exist")


def _triggers(installed: Installed) -> Finding:
    for name, owner in installed.foreign.items():
        text = f"the function {name} belongs to {owner}, who could change what it does when anyone writes to the tables"
        return Finding("triggers", False, text, f"dcm-ws init-db --remove --apply or drop it; then {APPLY}")
    if not installed.functions:
        return Finding("triggers", True, f"not installed; they are optional: {APPLY}")
    if not installed.version:
        name = installed.functions[0]["name"]
        return Finding(
            "triggers",
            False,
            f"the function {name} was not made by dcm-ws",
            f"in psql: alter function {name} rename to another_name; then {APPLY}",
        )
    if installed.altered:
        return Finding("triggers", False, "their function has been changed", APPLY)
    if installed.bare:
        return Finding("triggers", False, f"missing on {', '.join(installed.bare)}", APPLY)
    if disabled := installed.enabled("DR"):
        return Finding("triggers", False, f"disabled on {', '.join(disabled)}", APPLY)
    if installed.unreplicated:
        text = f"rows that logical replication writes to {', '.join(installed.unreplicated)} send no events"
        return Finding("triggers", False, text, f"{APPLY} --replicated")
    newer = f"; version {VERSION} is available: {APPLY}" if installed.version < VERSION else ""
    return Finding("triggers", True, f"installed, version {installed.version}{newer}")


def _log(schema: LogSchema) -> Finding:
    if not schema.usable and not schema.read_only:
        # a database without the schema is a choice
        text = f"events are kept in memory, and are lost when dcm-ws restarts: {schema.reason}"
        return Finding("log", not schema.owner, text, schema.hint)
    if schema.altered:
        return Finding("log", False, f"functions that are missing or changed: {', '.join(schema.altered)}", APPLY)
    text = f"durable, version {schema.version}, in the schema dcm_ws of {schema.owner}"
    return Finding("log", True, f"{text}; {schema.reason}" if schema.reason else text)


def compare_clocks(difference: float) -> Finding:
    """
    @param difference: seconds that the database's clock is ahead.
    """
    text = f"{abs(difference):.3f} s {'behind' if difference > 0 else 'ahead of'} the database's"
    if abs(difference) > CLOCK_MAX:
        return Finding(
            "clock", False, text, "timedatectl set-ntp true, here or at the database: tokens expire by the clock"
        )
    return Finding("clock", True, text)
