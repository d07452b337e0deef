"""
C{dcm-ws help}: describes a command.
"""

from __future__ import annotations

import click


@click.command("help")
@click.argument("names", nargs=-1, metavar="[COMMAND]...")
@click.pass_context
def command(context: click.Context, names: tuple[str, ...]) -> None:
    """
    Describe a command, as its --help does, or without COMMAND list all commands.

    Exit codes: 0 described; 2 there is no such command.

    \b
    Examples:
      dcm-ws help
      dcm-ws help tail
      dcm-ws help dead redrive
    """
    root = context.find_root()
    # serve and check describe themselves
    root.command.main([*names, "--help"], prog_name=root.info_name, standalone_mode=False)
