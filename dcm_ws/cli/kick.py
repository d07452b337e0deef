"""
C{dcm-ws kick}: disconnects an agent.
"""

from __future__ import annotations

import json
from urllib.parse import quote

import click

from dcm_ws.cli.calls import call
from dcm_ws.cli.options import ServerOptions, json_option, server_options
from dcm_ws.cli.terminal import harmless
from dcm_ws.protocol.channels import IDENTIFIER_RULE, is_identifier


@click.command("kick")
@click.argument("agent")
@click.option("--revoke", is_flag=True, help="Also refuse the tokens of the agent that were issued up to now.")
@json_option
@server_options
def command(agent: str, revoke: bool, as_json: bool, server: ServerOptions) -> None:
    """
    Close all connections of AGENT with 4003, at all nodes of a cluster.  In production this takes an operator's token.

    Without --revoke the agent may connect again at once.

    Exit codes: 0 done; 1 the service cannot be reached, or refuses; 2 invalid usage.

    \b
    Examples:
      dcm-ws kick worker-7
      dcm-ws kick worker-7 --revoke
    """
    if not is_identifier(agent):
        raise click.UsageError(f"AGENT must be {IDENTIFIER_RULE}, not {agent!r}")
    path = f"/v1/agents/{quote(agent)}/connections{'?revoke=true' if revoke else ''}"
    found = call(server, "DELETE", path)
    if as_json:
        click.echo(json.dumps(found))
        return
    closed = found.get("closed")
    if not isinstance(closed, int):
        raise click.ClickException("the answer is not that of a dcm-ws service")
    click.echo(f"{harmless(agent)}: {closed} connection{'s' * (closed != 1)} closed{', tokens revoked' * revoke}")
    for node in found.get("missing", ()):
        click.echo(f"no answer from node {harmless(str(node))}", err=True)
