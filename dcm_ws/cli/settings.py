"""
The service's settings, read as the service reads them, for commands that need some of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import click
from click.shell_completion import CompletionItem

from dcm_ws.app.commandline import Options
from dcm_ws.app.files import default_folder
from dcm_ws.app.reading import data_folder_of, database_of, secrets_of
from dcm_ws.app.settings import SettingsError
from dcm_ws.cli.options import SettingsFiles
from dcm_ws.postgres.connection import remove_libpq_environment
from dcm_ws.postgres.server import running_url


class ServiceCommand(click.Command):
    """
    A command that accepts the options of the service as well; the shell completes them.
    """

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        names = (f"--{name.removesuffix('=')}" for name in sorted(Options().longOpt))
        own = super().shell_complete(ctx, incomplete)
        known = {item.value for item in own}
        return own + [CompletionItem(name) for name in names if name.startswith(incomplete) and name not in known]


class _UncheckedOptions(Options):
    """
    The options of the service, parsed but not checked.
    """

    def postOptions(self) -> None:
        pass


def parse_options(files: SettingsFiles, *arguments: str, others: Sequence[str] = ()) -> Options:
    """
    Parse options of the service.

    @param others: names of options of the command itself, which an error may suggest.
    @raise click.UsageError: an option does not exist, or lacks its value.
    """
    options = _UncheckedOptions()
    options.others = others
    try:
        options.parseOptions([*files.as_options(), *arguments])
    except SystemExit as error:
        if isinstance(error.code, str):
            raise click.UsageError(error.code.removeprefix("dcm-ws: ").partition("; see ")[0]) from None
        raise
    return options


def find_secrets(files: SettingsFiles) -> tuple[str, ...]:
    """
    Return the secrets that C{serve} would use.

    @raise click.ClickException: they cannot be read.
    """
    try:
        return secrets_of(parse_options(files).sources().given)
    except SettingsError as error:
        raise click.ClickException(str(error)) from None


def find_database(files: SettingsFiles, url: str | None = None) -> str:
    """
    Return the URL of the database: the one that is set, or else of the embedded one that a service of this user runs.

    @param url: the value of C{--database-url}; None if it is not given.
    @raise click.ClickException: there is no database.
    """
    try:
        given = parse_options(files, *(["--database-url", url] if url else [])).sources().given
        found = database_of(given)
        if found is None:
            found = running_url((data_folder_of(given) or default_folder()).resolve())
            # they are not meant for the embedded database
            remove_libpq_environment()
    except SettingsError as error:
        raise click.ClickException(str(error)) from None
    if found is None:
        raise click.ClickException(
            "there is no database: set DATABASE_URL to postgresql://user:password@host:port/name,"
            " or run dcm-ws serve, which starts an embedded one in development"
        )
    return found
