"""
C{dcm-ws serve}: runs the service in the foreground.
"""

from __future__ import annotations

import sys

import click

from dcm_ws.app.commandline import Options
from dcm_ws.cli.settings import ServiceCommand


class _ServeOptions(Options):
    synopsis = "Usage: dcm-ws serve [OPTIONS]"


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
    Options.program = "dcm-ws serve"
    if "--help" in options or "-h" in options:
        click.echo(str(_ServeOptions()))
        click.echo(
            "Runs the service in the foreground, as twistd -n dcm-ws does, with the same options.\n\n"
            "Exit codes: 0 stopped by SIGTERM or SIGINT; 1 it could not start, or an option is invalid.\n\n"
            "Examples:\n"
            "  dcm-ws serve\n"
            "  dcm-ws serve --ws-port 8080 --log-level debug\n"
            "  dcm-ws serve --config /etc/dcm-ws.toml --log-format json"
        )
        return
    # the command twistd on PATH may belong to another installation
    sys.argv = ["twistd", "-n", "--pidfile=", "dcm-ws", *options]
    from twisted.scripts.twistd import run

    run()
