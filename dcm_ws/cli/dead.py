"""
C{dcm-ws dead}: lists, shows, redrives and purges dead letters.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import click

from dcm_ws.cli.columns import columns
from dcm_ws.cli.durable_log import connected
from dcm_ws.cli.letters import Choice, Letter, choice_options, find, progress, request
from dcm_ws.cli.options import SettingsFiles, database_option, json_option, settings_options
from dcm_ws.cli.settings import find_database
from dcm_ws.cli.suggestions import Group
from dcm_ws.cli.terminal import harmless, json_line, say
from dcm_ws.cli.times import shown

_HEAD = ("DIED", "AGENT", "EVENT", "CHANNEL", "POS", "SENT", "REASON", "STATE", "ID")
_LOOK_SECONDS = 0.2

_wait_option = click.option(
    "--wait",
    metavar="SECONDS",
    type=click.FloatRange(0, 600),
    default=5.0,
    show_default=True,
    help="How long to wait for the service; 0 to only ask it.",
)


def _common(function: Callable[..., None]) -> Callable[..., None]:
    return json_option(database_option(settings_options(function)))


@click.group("dead", cls=Group)
def command() -> None:
    """
    Dead letters: events that agents did not acknowledge in the end, kept for seven days.  The commands work on the
    database with the durable log, which dcm-ws init-db --apply creates; they find it as the service does.

    \b
    Examples:
      dcm-ws dead list --agent worker-1 --since 1d
      dcm-ws dead show msg_5f0c9d8e7b6a
      dcm-ws dead redrive --agent worker-1
      dcm-ws dead purge --reason poison --until 3d

    Exit codes: 0 done; 1 it failed, or there are no such dead letters (list: 0); 2 invalid usage, nothing was done.
    """


@command.command("list")
@choice_options
@_common
def list_letters(choice: Choice, as_json: bool, database_url: str | None, files: SettingsFiles) -> None:
    """
    List dead letters, the oldest first.  With --json there is an object a line, which has the data of the event, too.

    SENT is how often the event was sent; since it was redriven, if it was.  REASON: attempts (sent as often as the
    service does while the agent was connected), poison (15 times over its returns) or overflow (the agent owed far
    too much).  STATE: dead, redriven (sent again, or waiting for its agent, and not acknowledged yet), or what the
    service was asked to do and has not done yet.

    Exit codes: 0 listed, even if there is none; 1 it failed; 2 invalid usage.

    \b
    Examples:
      dcm-ws dead list
      dcm-ws dead list --agent worker-1 --since 2h --reason attempts
      dcm-ws dead list --json --limit 1000 | jq -r .event_id
    """
    number = 0
    # one more, to see if there are more
    more = replace(choice, most=choice.most + 1)
    with (
        connected(find_database(files, database_url)) as connection,
        closing(find(connection, more, data=as_json)) as letters,
    ):
        if as_json:
            for number, letter in enumerate(letters, 1):
                if number <= choice.most:
                    click.echo(json_line(letter.fields()))
        else:
            listed = list(letters)
            number = len(listed)
            _print_table(listed[: choice.most])
    if number > choice.most:
        say(f"there are more than {choice.most}; --limit shows more")


def _print_table(letters: Sequence[Letter]) -> None:
    if not letters:
        say("no dead letters")
        return
    rows = [
        (
            *(shown(one.died_at), one.agent, one.event, one.channel, one.pos),
            *(one.deliveries, one.reason, one.state, one.event_id),
        )
        for one in letters
    ]
    for line in columns(_HEAD, rows):
        click.echo(line)


@command.command("show")
@click.argument("event_id", metavar="ID")
@click.option("--agent", metavar="AGENT", help="Only that of this agent; several agents may have the same event.")
@_common
def show_letters(
    event_id: str, agent: str | None, as_json: bool, database_url: str | None, files: SettingsFiles
) -> None:
    """
    Show the dead letters of an event with the event's data.

    Exit codes: 0 shown; 1 it failed, or there is none; 2 invalid usage.

    \b
    Examples:
      dcm-ws dead show msg_5f0c9d8e7b6a
      dcm-ws dead show msg_5f0c9d8e7b6a --json | jq .data
    """
    found = False
    with (
        connected(find_database(files, database_url)) as connection,
        closing(find(connection, Choice(agent, (event_id,)), data=True)) as letters,
    ):
        for letter in letters:
            if as_json:
                click.echo(json_line(letter.fields()))
            else:
                _print_letter(letter, first=not found)
            found = True
    if not found:
        raise click.ClickException("there is no such dead letter")


def _print_letter(letter: Letter, *, first: bool) -> None:
    fields = {
        "agent": letter.agent,
        "id": letter.event_id,
        "event": letter.event,
        "channel": letter.channel,
        "pos": letter.pos,
        "published": shown(letter.at),
        "died": shown(letter.died_at),
        "reason": letter.reason,
        "sent": letter.deliveries,
        "state": letter.state,
        "redriven": shown(letter.redriven_at),
    }
    if not first:
        click.echo()
    for name, value in fields.items():
        click.echo(f"{name:<9}  {harmless(str(value))}")
    click.echo("data")
    for line in json.dumps(json.loads(letter.data), ensure_ascii=False, indent=2).splitlines():
        click.echo(f"  {harmless(line)}")


@command.command("redrive")
@click.argument("event_ids", metavar="[ID]...", nargs=-1)
@choice_options
@_wait_option
@_common
def redrive_letters(choice: Choice, wait: float, as_json: bool, database_url: str | None, files: SettingsFiles) -> None:
    """
    Have events that became dead letters sent again, each to its agent only and with the same id: at once if the agent
    is connected, or else when it returns.  A dead letter is kept until its agent has acknowledged the event.  Without
    ID and options, the oldest 100 are redriven.  Those that were redriven before are left out.

    A service that does not run, or has lost the database, redrives them later.

    Exit codes: 0 the service was asked; 1 it failed, or there are no such dead letters; 2 invalid usage, nothing was
    done.

    \b
    Examples:
      dcm-ws dead redrive msg_5f0c9d8e7b6a
      dcm-ws dead redrive --agent worker-1 --since 2h --limit 1000
      dcm-ws dead redrive --reason attempts --wait 0 --json
    """
    with connected(find_database(files, database_url)) as connection:
        letters = _chosen(connection, choice, dead=True)
        request(connection, letters, "redrive")
        taken, gone = _wait(connection, letters, wait)
    if as_json:
        click.echo(json_line({"letters": len(letters), "taken": taken, "acknowledged": gone}))
    else:
        click.echo(f"{_number(letters)} to redrive: {taken} taken by the service, {gone} acknowledged")
    _hint(len(letters), taken, wait, choice)


@command.command("purge")
@click.argument("event_ids", metavar="[ID]...", nargs=-1)
@choice_options
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@_wait_option
@_common
def purge_letters(
    choice: Choice, yes: bool, wait: float, as_json: bool, database_url: str | None, files: SettingsFiles
) -> None:
    """
    Delete dead letters.  Without ID and options, the oldest 100 are deleted.  It asks for confirmation, unless --yes
    is given.

    A service that does not run, or has lost the database, deletes them later.

    Exit codes: 0 the service was asked; 1 it failed, was not confirmed, or there are no such dead letters; 2 invalid
    usage, nothing was done.

    \b
    Examples:
      dcm-ws dead purge msg_5f0c9d8e7b6a
      dcm-ws dead purge --agent worker-1 --until 2026-05-01 --yes
      dcm-ws dead purge --reason poison --limit 1000 --yes --json
    """
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("purge asks for confirmation on a terminal; use --yes without one")
    with connected(find_database(files, database_url)) as connection:
        letters = _chosen(connection, choice)
        if not yes:
            agents = len({letter.agent for letter in letters})
            click.confirm(f"Delete {_number(letters)} of {_plural(agents, 'agent')} for good?", abort=True, err=True)
        request(connection, letters, "purge")
        gone = _wait(connection, letters, wait)[1]
    if as_json:
        click.echo(json_line({"letters": len(letters), "purged": gone}))
    else:
        click.echo(f"{_number(letters)} to purge: {gone} purged")
    _hint(len(letters), gone, wait, choice)


def _chosen(connection: Any, choice: Choice, *, dead: bool = False) -> list[Letter]:
    """
    @raise click.ClickException: there is none.
    """
    letters = list(find(connection, choice, dead=dead))
    if not letters:
        raise click.ClickException("there are no such dead letters; nothing was done")
    return letters


def _wait(connection: Any, letters: Sequence[Letter], seconds: float) -> tuple[int, int]:
    """
    Wait until all letters are gone, or the time is over; returns what L{progress} does.
    """
    end = time.monotonic() + seconds
    while True:
        taken, gone = progress(connection, letters)
        left = end - time.monotonic()
        if gone == len(letters) or left <= 0:
            return taken, gone
        time.sleep(min(_LOOK_SECONDS, left))


def _hint(letters: int, done: int, wait: float, choice: Choice) -> None:
    if wait and done < letters:
        say(f"no service has seen to the other {letters - done} yet; it does so when it runs and has the database")
    if letters == choice.most:
        say(f"there may be more than {letters}; run it again, or with a larger --limit")


def _number(letters: Sequence[Letter]) -> str:
    return _plural(len(letters), "dead letter")


def _plural(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
