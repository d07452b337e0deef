"""
Options that several commands take, and the values made of them.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from dcm_ws.cli.terminal import harmless

if TYPE_CHECKING:
    from dcm_ws.protocol.channels import Channels

Command = Callable[..., None]

_PLAIN = re.compile(r"global|metrics|(?:agents|sessions|topics)/[A-Za-z0-9_.-]{1,128}", re.ASCII)
_HTTP_SCHEMES = {"ws": "http", "wss": "https", "http": "http", "https": "https"}


@dataclass(frozen=True, slots=True)
class SettingsFiles:
    """
    The files with settings that the command line names; None for those that it does not.
    """

    config: str | None = None
    env_file: str | None = None

    def as_options(self) -> list[str]:
        """
        Return the files as options of the service.
        """
        given = (("--config", self.config), ("--env-file", self.env_file))
        return [word for name, value in given if value for word in (name, value)]


@dataclass(frozen=True, slots=True)
class Server:
    """
    Where a command connects to, and who it says that it is.

    @ivar url: the URL as the user gave it.
    @ivar token: None for none.
    @ivar agent_id: the agent to connect as without a token; None for none.
    @ivar cacert: the file with the certificate authorities that are trusted; None for those of the system.
    """

    url: str
    token: str | None = None
    agent_id: str | None = None
    cacert: str | None = None


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """
    The options C{--url}, C{--token-file}, C{--agent-id} and C{--cacert} as given.
    """

    url: str
    token_file: str | None
    agent_id: str | None
    cacert: str | None = None

    def server(self) -> Server:
        """
        Read the token.

        @raise click.ClickException: its file cannot be read, or what is in it cannot be a token.
        @raise click.UsageError: there is a C{--cacert}, and C{--url} is one without TLS.
        """
        if self.cacert is not None and not self.url.startswith(("wss:", "https:")):
            raise click.UsageError(f"--cacert is for a --url that begins with wss://, not {self.url!r}")
        return Server(self.url, _read_token(self.token_file), self.agent_id, self.cacert)

    def http_base(self) -> str:
        """
        Return the URL of the service's HTTP, without a slash at its end.

        @raise click.UsageError: C{--url} is not a WebSocket URL.
        """
        try:
            parts = urlsplit(self.url)
            valid = parts.scheme in _HTTP_SCHEMES and parts.hostname and parts.port != 0
        except ValueError:
            valid = False
        if not valid:
            raise click.UsageError(f"--url must be a URL such as ws://127.0.0.1:3849/, not {self.url!r}")
        return f"{_HTTP_SCHEMES[parts.scheme]}://{parts.netloc.rpartition('@')[2]}"


database_option = click.option(
    "--database-url",
    "-d",
    metavar="URL",
    help="URL of the database.  It may hold a password, and options show in ps: prefer the variable DATABASE_URL.",
)
"""
Which database a command works on.
"""

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def settings_options(function: Command) -> Command:
    """
    The options C{--config} and C{--env-file}; the command gets them as C{files}.
    """

    @functools.wraps(function)
    def command(*arguments: Any, config: str | None, env_file: str | None, **options: Any) -> None:
        function(*arguments, files=SettingsFiles(config, env_file), **options)

    return _with_options(
        command,
        click.option(
            "--config",
            type=click.Path(dir_okay=False),
            help="TOML file with the service's settings."
            "  [default: dcm-ws.toml in the working folder, or in the user's config folder]",
        ),
        click.option(
            "--env-file",
            type=click.Path(dir_okay=False),
            help="File of NAME=VALUE lines, read for the variables that the environment does not set.",
        ),
    )


def server_options(function: Command) -> Command:
    """
    How commands that are clients find the service, and who they connect as; the command gets it as C{server}.
    """

    @functools.wraps(function)
    def command(
        *arguments: Any, url: str, token_file: str | None, agent_id: str | None, cacert: str | None, **options: Any
    ) -> None:
        function(*arguments, server=ServerOptions(url, token_file, agent_id, cacert), **options)

    return _with_options(
        command,
        click.option(
            "--url",
            envvar="DCM_WS_URL",
            default="ws://127.0.0.1:3849/",
            metavar="URL",
            show_default=True,
            show_envvar=True,
            help="WebSocket URL of the service.",
        ),
        click.option(
            "--token-file",
            type=click.Path(dir_okay=False),
            help="File with the token.  [default: the token in the variable DCM_WS_TOKEN]",
        ),
        click.option(
            "--agent-id",
            metavar="AGENT",
            help="Agent to connect as without a token; only development allows it.",
        ),
        click.option(
            "--cacert",
            type=click.Path(dir_okay=False),
            help="PEM file with the certificate authorities to trust.  [default: those of the system]",
        ),
    )


@functools.cache
def _channels() -> Channels:
    # 20 ms to import, which most names can do without
    from dcm_ws.protocol.channels import Channels

    # only the service knows which channels its operator has added
    return Channels(("*",))


def check_channel(name: str) -> None:
    """
    Check that a channel can have this name.

    @raise ProtocolError: it cannot.
    """
    if not _PLAIN.fullmatch(name):
        _channels().parse(name)


def check_channels(names: Collection[str]) -> None:
    """
    Check the channels that the command line names.

    @raise click.UsageError: a channel cannot have such a name.
    """
    odd = [name for name in names if not _PLAIN.fullmatch(name)]
    if not odd:
        return
    from dcm_ws.protocol.errors import ProtocolError

    for name in odd:
        try:
            check_channel(name)
        except ProtocolError as error:
            raise click.UsageError(harmless(error.reason)) from None


def _with_options(command: Command, *options: Callable[[Command], Command]) -> Command:
    """
    Add options to a command, to be listed in this order.
    """
    for option in reversed(options):
        command = option(command)
    return command


def _read_token(file: str | None) -> str | None:
    where = "DCM_WS_TOKEN" if file is None else repr(file)
    try:
        token = (os.environ.get("DCM_WS_TOKEN", "") if file is None else Path(file).read_text()).strip()
    except OSError as error:
        raise click.ClickException(f"cannot read the token from {where}: {error.strerror}") from None
    except UnicodeDecodeError:
        token = "\0"
    # an HTTP header accepts no other characters, and an error there would show the token
    if not re.fullmatch("[!-~]*", token):
        raise click.ClickException(f"there is no token in {where}: a token is one line without spaces")
    return token or None
