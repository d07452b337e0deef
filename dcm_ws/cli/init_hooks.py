"""
C{dcm-ws init-hooks}: installs hooks in the settings of a coding agent.
"""

from __future__ import annotations

import difflib
import os
import shlex
import shutil
import sys
from pathlib import Path

import click

from dcm_ws.cli.hook_events import KINDS
from dcm_ws.cli.hook_settings import DEFAULT_EVENTS, SettingsFormatError, parsed, with_ours, without_ours, written
from dcm_ws.cli.options import check_channels
from dcm_ws.cli.terminal import harmless, say

BACKUP = ".before-dcm-ws"
"""
What is added to the name of the file for a copy of it.
"""

_SCOPES = {
    "local": (".claude", "settings.local.json"),
    "project": (".claude", "settings.json"),
    "user": ("~", ".claude", "settings.json"),
}


@click.command("init-hooks")
@click.option(
    "--scope",
    type=click.Choice(list(_SCOPES)),
    default="local",
    show_default=True,
    help="Which settings: of this project for you only, of this project for everybody, or yours for all projects.",
)
@click.option(
    "--settings", "file", metavar="FILE", type=click.Path(dir_okay=False), help="This file in place of --scope."
)
@click.option(
    "--event",
    "events",
    multiple=True,
    type=click.Choice(list(KINDS)),
    metavar="HOOK",
    help=f"A hook to install; repeatable.  [default: {', '.join(DEFAULT_EVENTS)}]",
)
@click.option("--channel", metavar="CHANNEL", help="Publish on this channel in place of that of the session.")
@click.option("--agent-id", metavar="AGENT", help="The agent's name, for a service in development.")
@click.option("--url", metavar="URL", help="URL of the service, if DCM_WS_URL will not be set.")
@click.option("--full", is_flag=True, help="Also publish prompts, messages, and the inputs and results of tools, cut.")
@click.option("--apply", is_flag=True, help="Change the file, after a copy of it.")
@click.option("--remove", is_flag=True, help="Take the hooks of dcm-ws out again.")
def command(
    scope: str,
    file: str | None,
    events: tuple[str, ...],
    channel: str | None,
    agent_id: str | None,
    url: str | None,
    full: bool,
    apply: bool,
    remove: bool,
) -> None:
    """
    Show what installing the hooks of dcm-ws changes in the settings of Claude Code; with --apply, change them.  Then
    each session publishes its beginning and end, and what happens in it, with dcm-ws hook.

    Other settings and hooks stay as they are.  Installing again replaces the hooks that were installed before, and
    --remove takes them out.  The token is not written there: set DCM_WS_TOKEN.

    Exit codes: 0 done, or nothing to do; 1 the file cannot be read or written, or is not what Claude Code writes; 2
    invalid usage.

    \b
    Examples:
      dcm-ws init-hooks
      dcm-ws init-hooks --agent-id backend --apply
      dcm-ws init-hooks --remove --apply
    """
    if channel is not None:
        check_channels((channel,))
    path = (Path(file) if file is not None else Path(*_SCOPES[scope])).expanduser()
    # a link stays one
    target = path.resolve()
    try:
        before = _read(target)
        settings = parsed(before)
        if remove:
            wanted = without_ours(settings)
        else:
            options = (("--url", url), ("--channel", channel), ("--agent-id", agent_id))
            words = [_program(), "hook", *(word for name, value in options if value for word in (name, value))]
            wanted = with_ours(settings, shlex.join(words + ["--full"] * full), events or DEFAULT_EVENTS)
    except SettingsFormatError as error:
        raise click.ClickException(f"{harmless(str(path))}: {harmless(str(error))}; nothing was changed") from None
    if wanted == settings:
        say(f"{harmless(str(path))}: nothing to change")
        return
    after = written(wanted, before)
    if not apply:
        _show(before, after, str(path))
        say("nothing was changed; --apply changes the file")
        return
    backup = _change(target, before, after)
    say(f"changed {harmless(str(path))}" + (f"; a copy is in {harmless(str(backup))}" if backup else ""))


def _program() -> str:
    """
    The path of this program, because a coding agent may not have the same PATH.
    """
    return shutil.which(sys.argv[0]) or "dcm-ws"


def _read(path: Path) -> str:
    """
    The text of the file; empty if there is none.
    """
    try:
        return path.read_bytes().decode()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise click.ClickException(f"cannot read {harmless(str(path))}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsFormatError("it is not UTF-8") from None


def _show(before: str, after: str, name: str) -> None:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), name, name, lineterm="")
    for line in lines:
        click.echo(harmless(line))


def _change(path: Path, before: str, after: str) -> Path | None:
    """
    Replace the file as a whole; returns the copy of what it was, or None if there was none.
    """
    backup = path.with_name(path.name + BACKUP)
    draft = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if before:
            shutil.copy2(path, backup)
        draft.write_bytes(after.encode())
        if before:
            shutil.copymode(path, draft)
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise click.ClickException(f"cannot change {harmless(str(path))}: {error.strerror}") from None
    return backup if before else None
