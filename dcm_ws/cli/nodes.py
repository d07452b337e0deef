"""
C{dcm-ws nodes}: shows the nodes of a cluster.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import click

from dcm_ws.cli.columns import columns
from dcm_ws.cli.durable_log import connected, transaction
from dcm_ws.cli.options import SettingsFiles, database_option, json_option, settings_options
from dcm_ws.cli.settings import find_database
from dcm_ws.cli.terminal import json_line, say
from dcm_ws.cli.times import shown
from dcm_ws.postgres.nodes import LIST, Listed

_HEAD = ("ID", "NODE", "ADDRESS", "STATE", "SINCE", "SEEN", "CLIENTS", "AGENTS", "BEHIND", "VERSION", "HOST", "PID")


@click.command("nodes")
@json_option
@database_option
@settings_options
def command(as_json: bool, database_url: str | None, files: SettingsFiles) -> None:
    """
    Show the nodes of a cluster: the services that were started with --cluster on one database, and those that ended
    within the last ten minutes.  The command works on the database, and finds it as the service does.

    STATE is leads for the node that numbers the events, follows for the others, drains for a node that is about to
    stop, and gone for one that has ended or was not seen for ten seconds.  SEEN is how many seconds ago it last said
    that it is there, which it does each second.  BEHIND is how many events of the log it had not delivered then.

    Exit codes: 0 shown; 1 it failed, or there are no nodes; 2 invalid usage.

    \b
    Examples:
      dcm-ws nodes
      dcm-ws nodes --json | jq -r 'select(.state == "leads").node'
    """
    with connected(find_database(files, database_url)) as connection, transaction(connection) as cursor:
        cursor.execute(LIST)
        nodes = [Listed(*row) for row in cursor.fetchall()]
    if not nodes:
        raise click.ClickException("no service on this database was started with --cluster lately")
    fields = [_fields(node) for node in nodes]
    if as_json:
        for one in fields:
            click.echo(json_line(one))
        return
    for line in columns(_HEAD, [_row(one) for one in fields]):
        click.echo(line)
    if not any(one["state"] == "leads" for one in fields):
        say("no node numbers the events now")


def _fields(node: Listed) -> dict[str, object]:
    figures = json.loads(node.figures)
    pos = figures.get("pos")
    return {
        "id": node.id,
        "node": node.name,
        "address": node.address,
        "state": _state(node),
        "started": node.started_at,
        "seen": round(node.unseen, 1),
        "clients": figures.get("clients", 0),
        "agents": figures.get("agents", 0),
        "pos": pos,
        "behind": None if pos is None or node.fenced else max(0, node.head - pos),
        "version": node.version,
        "host": node.host,
        "pid": node.pid,
    }


def _state(node: Listed) -> str:
    if node.fenced:
        return "gone"
    if node.draining:
        return "drains"
    return "leads" if node.leader else "follows"


def _row(fields: Mapping[str, object]) -> tuple[object, ...]:
    started, behind = fields["started"], fields["behind"]
    assert isinstance(started, int)
    return (
        *(fields[name] for name in ("id", "node", "address", "state")),
        shown(started),
        f"{fields['seen']} s",
        *(fields[name] for name in ("clients", "agents")),
        "-" if behind is None else behind,
        *(fields[name] for name in ("version", "host", "pid")),
    )
