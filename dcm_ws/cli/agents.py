"""
C{dcm-ws agents}: shows what agents are owed.
"""

from __future__ import annotations

from itertools import islice

import click

from dcm_ws.cli.columns import columns
from dcm_ws.cli.durable_log import connected
from dcm_ws.cli.options import SettingsFiles, database_option, json_option, settings_options
from dcm_ws.cli.owed import WAITING_MAX, Agent, Owed, by_number_owed, place_of
from dcm_ws.cli.settings import find_database
from dcm_ws.cli.terminal import harmless, json_line, say
from dcm_ws.cli.times import shown

_HEAD = ("AGENT", "STATE", "SINCE", "DURABLE", "OWED", "WAITING", "OLDEST", "DEAD", "CHANNELS")
_SHOWN_MAX = 20


@click.command("agents")
@click.argument("agent", required=False)
@click.option(
    "--limit",
    metavar="NUMBER",
    type=click.IntRange(1, 1_000_000),
    default=100,
    show_default=True,
    help="At most so many agents; those that owe most acknowledgements come first.",
)
@json_option
@database_option
@settings_options
def command(agent: str | None, limit: int, as_json: bool, database_url: str | None, files: SettingsFiles) -> None:
    """
    Show what agents are owed, or all that is known of AGENT.  The command works on the database with the durable log,
    which dcm-ws init-db --apply creates, and finds it as the service does.  What it shows is up to a second old.

    OWED is how many events the agent was sent and has not acknowledged; WAITING is how many events of its channels are
    in the log and have not been sent to it yet, of which it gets those that it has to acknowledge.  OLDEST is when the
    oldest of them was published.  DEAD is how many dead letters it has: see dcm-ws dead.  An agent that is not DURABLE
    has never acknowledged anything, and is only owed events for five minutes.

    Exit codes: 0 shown; 1 it failed, or nothing is known of AGENT; 2 invalid usage.

    \b
    Examples:
      dcm-ws agents
      dcm-ws agents worker-1
      dcm-ws agents --json --limit 10000 | jq -r 'select(.owed + .waiting > 1000).agent'
    """
    with connected(find_database(files, database_url)) as connection:
        owed = Owed(connection)
        states = owed.states(agent)
        if agent is not None and agent not in states:
            raise click.ClickException(f"nothing is known of agent {harmless(agent)!r}")
        names = islice(by_number_owed(states), limit)
        agents = owed.agents({name: states[name] for name in names})
        if as_json:
            for one in agents:
                click.echo(json_line(one.fields()))
        elif agent is None:
            _print_table(agents)
        else:
            _print_agent(agents[0], owed)
    if len(states) > limit:
        say(f"there are {len(states)} agents; --limit shows more")
    if not owed.is_live:
        say("no service uses the durable log now: agents that are shown as connected were when it ended")


def _print_table(agents: list[Agent]) -> None:
    if not agents:
        say("no agents")
        return
    rows = [
        (
            *(one.name, *_state(one), "yes" if one.state.durable else "no", len(one.state.owed)),
            *(_number(one.waiting), shown(one.oldest), one.dead, len(one.state.channels)),
        )
        for one in agents
    ]
    for line in columns(_HEAD, rows):
        click.echo(line)


def _state(agent: Agent) -> tuple[str, str]:
    return ("connected", "-") if agent.state.left is None else ("away", shown(agent.state.left))


def _number(waiting: int) -> int | str:
    return f"{WAITING_MAX}+" if waiting >= WAITING_MAX else waiting


def _print_agent(agent: Agent, owed: Owed) -> None:
    state, since = _state(agent)
    for name, value in {
        "agent": agent.name,
        "state": state if agent.state.left is None else f"{state} since {since}",
        "durable": "yes" if agent.state.durable else "no",
        "owed": len(agent.state.owed),
        "waiting": _number(agent.waiting),
        "oldest": shown(agent.oldest),
        "dead": agent.dead,
    }.items():
        click.echo(f"{name:<8}  {harmless(str(value))}")
    channels = [(name, str(place_of(agent.state, name))) for name in sorted(agent.state.channels)]
    for line in columns(("CHANNEL", "SENT UP TO"), channels) if channels else ():
        click.echo(line)
    first = sorted(agent.state.owed)[:_SHOWN_MAX]
    events = owed.events(first)
    rows = []
    for pos in first:
        event_id, deliveries = agent.state.owed[pos]
        event = events.get(pos)
        published = (shown(event.at), event.event, event.channel) if event else ("-", "not in the log any more", "-")
        rows.append((pos, *published, deliveries, event_id))
    for line in columns(("OWED", "PUBLISHED", "EVENT", "CHANNEL", "SENT", "ID"), rows) if rows else ():
        click.echo(line)
    if len(agent.state.owed) > _SHOWN_MAX:
        click.echo(f"and {len(agent.state.owed) - _SHOWN_MAX} more")
