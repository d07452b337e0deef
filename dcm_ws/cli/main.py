"""
C{dcm-ws}: the commands by name.  Each is imported only when it is used, so that C{--help} answers at once.
"""

from __future__ import annotations

import importlib

import click

from dcm_ws.cli.deferring import defer, spare_collections
from dcm_ws.cli.suggestions import Group

_COMMANDS = {
    "serve": "Run the service.",
    "check": "Check the settings, the database and the port.",
    "init-db": "Create tables, and triggers that send events.",
    "token": "Make a token, or verify one.",
    "tail": "Show events as they arrive.",
    "wait": "Wait until an event comes.",
    "publish": "Publish events.",
    "mcp": "Let a coding agent receive events and publish, by MCP.",
    "run": "Run a command, and publish its start and its end.",
    "hook": "Publish events from a coding agent's hooks.",
    "init-hooks": "Install hooks in a coding agent's settings.",
    "dead": "List, redrive and purge dead letters.",
    "agents": "Show what agents are owed.",
    "kick": "Disconnect an agent, and revoke its tokens.",
    "event": "Show what became of an event.",
    "nodes": "Show the nodes of a cluster.",
    "top": "Show what a service does, refreshed.",
    "demo": "Watch six agents at work, on a service of their own.",
    "bench": "Put a small load on a service, and measure it.",
    "help": "Describe a command.",
}
"""
A line of help for each command; its module has the same name, with an underscore for a hyphen.
"""

_OTHER_NAMES = {
    "doctor": "check",
    "listen": "tail",
    "logs": "tail",
    "pub": "publish",
    "redrive": "dead",
    "send": "publish",
    "start": "serve",
    "stats": "top",
    "status": "top",
    "sub": "tail",
    "subscribe": "tail",
    "watch": "tail",
}
"""
What other programs call a command.
"""

_DEFERRED = ("importlib.metadata", "urllib.request", "urllib.error")
"""
Modules that the package websockets and the client import, and that few commands use: a fifth of the time that C{wait}
takes to start.
"""


class _Lazy(Group):
    other_names = _OTHER_NAMES

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        for name in _DEFERRED:
            defer(name)
        with spare_collections():
            module = importlib.import_module(f"dcm_ws.cli.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


def _version(ctx: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        from dcm_ws.version import VERSION

        click.echo(f"dcm-ws {VERSION}")
        ctx.exit()


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version and exit."
)
def main() -> None:
    """
    Real-time events from PostgreSQL to WebSocket channels: the service, and commands to set it up, watch it and publish
    events.

    dcm-ws help COMMAND describes a command, with examples.

    Exit codes: 0 done; 1 it failed; 2 invalid usage, nothing was done.
    """
