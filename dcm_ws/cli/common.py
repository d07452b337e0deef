"""
What several commands do alike.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from dcm_ws.app.commandline import Options
from dcm_ws.app.files import default_folder
from dcm_ws.app.settings import SettingsError, database_from, path_of, secrets_from
from dcm_ws.postgres.embedded import running_url
from dcm_ws.protocol.channels import Channels

_F = TypeVar("_F", bound=Callable[..., Any])

# C0 and C1 controls, text-direction marks and line separators: a terminal acts on them
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


_ENV_FILE = "dcm_ws.env_file"


class _Unjudged(Options):
    """
    The service's options, read but not judged.
    """

    def postOptions(self) -> None:
        pass


def options_of(arguments: Sequence[str] = (), config: str | None = None) -> Options:
    """
    The service's options as given.

    @raise click.UsageError: there is no such option.
    """
    options = _Unjudged()
    try:
        options.parseOptions([*_env_file(), *(["--config", config] if config else []), *arguments])
    except SystemExit as error:
        if isinstance(error.code, str):
            raise click.UsageError(error.code.removeprefix("dcm-ws: ").partition("; see ")[0]) from None
        raise
    return options


def secrets_of(config: str | None) -> tuple[str, ...]:
    """
    The secrets that C{serve} would use.

    @raise click.ClickException: they cannot be read.
    """
    try:
        sources = options_of((), config).sources()
        return secrets_from(sources.options, sources.environment)
    except SettingsError as error:
        raise click.ClickException(str(error)) from None


def database_of(config: str | None, *arguments: str) -> str:
    """
    Where the database is: the one set, else the embedded one that a service of this user runs now.

    @raise click.ClickException: there is none.
    """
    try:
        sources = options_of(arguments, config).sources()
        url = database_from(sources.options, sources.environment)
        if url is None:
            folder = sources.options.get("dcm-data-dir") or sources.environment.get("DCM_DATA_DIR")
            url = running_url((path_of("DCM_DATA_DIR", folder) if folder else default_folder()).resolve())
            forget_libpq_environment()
    except SettingsError as error:
        raise click.ClickException(str(error)) from None
    if url is None:
        raise click.ClickException(
            "there is no database: set DATABASE_URL to postgresql://user:password@host:port/name,"
            " or run dcm-ws serve, which brings one in development"
        )
    return url


def forget_libpq_environment() -> None:
    """
    From now on no variable of libpq changes the way to a database: they are not meant for the embedded one.
    """
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]


class ServiceCommand(click.Command):
    """
    A command that takes the service's options as they are: the shell completes them, too.
    """

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        names = (f"--{name.removesuffix('=')}" for name in sorted(Options().longOpt))
        own = super().shell_complete(ctx, incomplete)
        known = {item.value for item in own}
        return own + [CompletionItem(name) for name in names if name.startswith(incomplete) and name not in known]


def config_option(function: _F) -> _F:
    """
    The options C{--config} and C{--env-file}; L{options_of} finds the latter by itself.
    """

    def keep(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
        ctx.meta[_ENV_FILE] = value

    function = click.option(
        "--env-file",
        type=click.Path(dir_okay=False),
        expose_value=False,
        callback=keep,
        help="A file of NAME=VALUE lines, read for the variables that the environment does not set.",
    )(function)
    return click.option(
        "--config", type=click.Path(dir_okay=False), help="The TOML file with the settings.  [default: ./dcm-ws.toml]"
    )(function)


def _env_file() -> list[str]:
    context = click.get_current_context(silent=True)
    given = context.meta.get(_ENV_FILE) if context is not None else None
    return ["--env-file", given] if given else []


def server_options(function: _F) -> _F:
    """
    How the commands that are clients find the service, and say who they are.
    """
    for option in (
        click.option(
            "--agent-id",
            metavar="AGENT",
            help="Agent to connect as without a token, which only development allows.",
        ),
        click.option(
            "--token-file",
            type=click.Path(dir_okay=False),
            help="File with the token; otherwise it is taken from DCM_WS_TOKEN.",
        ),
        click.option(
            "--url",
            envvar="DCM_WS_URL",
            default="ws://127.0.0.1:3849/",
            show_default=True,
            show_envvar=True,
            help="Where the service is.",
        ),
    ):
        function = option(function)
    return function


def token_of(file: str | None) -> str | None:
    """
    The token to connect with; None for none.

    @raise click.ClickException: the file cannot be read, or what is there cannot be a token.
    """
    where = "DCM_WS_TOKEN" if file is None else repr(file)
    try:
        token = (os.environ.get("DCM_WS_TOKEN", "") if file is None else Path(file).read_text()).strip()
    except OSError as error:
        raise click.ClickException(f"cannot read the token from {where}: {error.strerror}") from None
    except UnicodeDecodeError:
        token = "\0"
    # an HTTP header takes no others, and an error there would show the token
    if not re.fullmatch("[!-~]*", token):
        raise click.ClickException(f"there is no token in {where}: a token is one line without spaces")
    return token or None


# which channels an operator has added, only the service knows
_channels = Channels(("*",))


def check_channel(name: str) -> None:
    """
    See whether C{name} can be the name of a channel.

    @raise ProtocolError: it cannot.
    """
    _channels.parse(name)


def harmless(text: str) -> str:
    """
    The text with everything that a terminal would act on escaped.
    """
    return _CONTROLS.sub(
        lambda found: f"\\x{ord(found[0]):02x}" if found[0] < "\xff" else f"\\u{ord(found[0]):04x}", text
    )


def compact(value: object) -> str:
    """
    JSON in one line for people to read, without anything that a terminal would act on.
    """
    return harmless(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def json_line(value: object) -> str:
    """
    JSON in one line, all ASCII.
    """
    return json.dumps(value, separators=(",", ":")).replace("\x7f", "\\u007f")


def http_base(url: str) -> str:
    """
    Where the service answers HTTP.

    @raise click.UsageError: it is no WebSocket URL.
    """
    from urllib.parse import urlsplit

    schemes = {"ws": "http", "wss": "https", "http": "http", "https": "https"}
    try:
        parts = urlsplit(url)
        good = parts.scheme in schemes and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise click.UsageError(f"--url must be such as ws://127.0.0.1:3849/, not {url!r}")
    return f"{schemes[parts.scheme]}://{parts.netloc.rpartition('@')[2]}"
