"""
C{dcm-ws serve}.
"""

from __future__ import annotations

import sys

import click

from dcm_ws.cli.common import ServiceCommand


@click.command(
    "serve",
    cls=ServiceCommand,
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def command(options: tuple[str, ...]) -> None:
    """
    Run the service in the foreground, as twistd -n dcm-ws does, with the same options.
    """
    from dcm_ws.app.commandline import Options

    Options.program = "dcm-ws serve"
    if "--help" in options or "-h" in options:

        class Listed(Options):
            synopsis = "Usage: dcm-ws serve [options]"

        click.echo(str(Listed()))
        click.echo(
            "Exit codes: 0 stopped by SIGTERM or SIGINT, 1 it could not start.\n\n"
            "Examples:\n  dcm-ws serve\n  dcm-ws serve --config /etc/dcm-ws.toml --log-format json"
        )
        return
    # no console script beside this one is sure to be twistd's
    sys.argv = ["twistd", "-n", "--pidfile=", "dcm-ws", *options]
    from twisted.scripts.twistd import run

    run()
