"""
C{dcm-ws run}: runs a command, and publishes its start and its end.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePath
from types import FrameType
from typing import Any

import click

from dcm_ws.cli.options import ServerOptions, check_channels, server_options
from dcm_ws.cli.outbox import Outbox, poster, spool_of
from dcm_ws.cli.run_output import Copy, LastLines
from dcm_ws.cli.run_reports import Reports
from dcm_ws.cli.terminal import one_line, say
from dcm_ws.cli.who import agent_of

HEARTBEAT_SECONDS = 30.0
"""
Seconds between two heartbeats.
"""

TASK_VARIABLE = "DCM_WS_TASK_ID"
"""
The environment variable in which the command finds the id of its task.
"""

_CANNOT_RUN = 126
_NOT_FOUND = 127
_SIGNALLED = 128
_OUTPUT_SECONDS = 1.0
_TEXT_MAX = 200
_PASSED_ON = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
# a terminal sends them to the command, too
_FROM_TERMINAL = (signal.SIGINT, signal.SIGQUIT)


@click.command("run", context_settings={"allow_interspersed_args": False})
@click.argument("words", nargs=-1, required=True, metavar="COMMAND [ARGUMENT]...", type=click.UNPROCESSED)
@click.option("--channel", metavar="CHANNEL", default="topics/runs", show_default=True, help="Publish on this channel.")
@click.option("--name", metavar="TEXT", help="What the events call it.  [default: the name of the program]")
@click.option("--task-id", metavar="ID", help="The id of the task.  [default: one that is made]")
@click.option("--subtask-of", metavar="ID", help="Publish subtask.* of this task in place of task.*.")
@click.option(
    "--lines",
    metavar="NUMBER",
    type=click.IntRange(0, 100),
    default=20,
    show_default=True,
    help="How many of the last lines of output to publish; with 0, the command keeps the terminal.",
)
@click.option(
    "--heartbeat",
    metavar="SECONDS",
    type=click.FloatRange(1, 3600),
    default=HEARTBEAT_SECONDS,
    show_default=True,
    help="Time between two heartbeats.",
)
@server_options
def command(
    words: tuple[str, ...],
    channel: str,
    name: str | None,
    task_id: str | None,
    subtask_of: str | None,
    lines: int,
    heartbeat: float,
    server: ServerOptions,
) -> None:
    """
    Run COMMAND, and publish task.created, then agent.heartbeat while it runs, and in the end task.completed or
    task.failed with its exit status, its duration and its last lines.  Its input and output are passed on, and so are
    signals.  The command never waits for the service; if the service is away, the events are kept and sent later.

    Exit codes: that of COMMAND; 128 + N if signal N ended it; 126 it cannot be run; 127 it is not found; 1 the token
    or the certificates cannot be read, 2 invalid usage: nothing was run.

    \b
    Examples:
      dcm-ws run -- make test
      dcm-ws run --agent-id ci --channel topics/builds --name "nightly build" ./build.sh
      dcm-ws run --subtask-of "$DCM_WS_TASK_ID" -- pytest -q
    """
    check_channels((channel,))
    base, who = server.http_base(), server.server()
    agent = agent_of(who)
    identity = task_id or f"run-{os.urandom(8).hex()}"
    data: dict[str, Any] = {"id": identity, "name": (name or PurePath(words[0]).name)[:_TEXT_MAX]}
    if subtask_of is not None:
        data["task_list_id"] = subtask_of
    if agent is not None:
        data["agent_id"] = agent
    outbox = Outbox(poster(base, who), spool_of(base, agent), _report)
    family = "task" if subtask_of is None else "subtask"
    reports = Reports(outbox, channel, family, data, heartbeat=heartbeat, report=_report)
    with _signals() as passing:
        reports.begin()
        status, more = _run(words, identity, lines, passing)
        reports.end(status, more)
    raise SystemExit(status)


def _report(text: str) -> None:
    say(f"dcm-ws run: {one_line(text)}")


def _run(words: tuple[str, ...], identity: str, number: int, passing: _Passing) -> tuple[int, dict[str, Any]]:
    """
    Run the command; returns its exit status, and what else there is to say.

    @param number: of lines to keep; 0 if the command gets our output as its own.
    """
    lines = LastLines(number)
    pipe = subprocess.PIPE if number else None
    environment = {**os.environ, TASK_VARIABLE: identity}
    try:
        process = subprocess.Popen(words, stdout=pipe, stderr=pipe, env=environment, bufsize=0)
    except OSError as error:
        reason = error.strerror or str(error)
        _report(f"cannot run {words[0]!r}: {reason}")
        return _NOT_FOUND if isinstance(error, FileNotFoundError) else _CANNOT_RUN, {"error": reason}
    passing.attach(process)
    copies = []
    for stream, target in ((process.stdout, 1), (process.stderr, 2)):
        if stream is not None:
            copies.append(Copy(os.dup(stream.fileno()), target, lines))
            stream.close()
    status = process.wait()
    for copy in copies:
        copy.finish(_OUTPUT_SECONDS)
    more: dict[str, Any] = {"last_lines": lines.texts()} if number else {}
    if status < 0:
        return _SIGNALLED - status, more | {"signal": signal.Signals(-status).name}
    return status, more


class _Passing:
    """
    Passes signals on to the command, also those that come before it has started.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []

    def attach(self, process: subprocess.Popen[bytes]) -> None:
        """
        The command has started.
        """
        self._process = process
        for number in self._early:
            process.send_signal(number)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if number in _FROM_TERMINAL and _in_foreground():
            return
        if self._process is None:
            self._early.append(number)
        else:
            # does nothing if the command has ended
            self._process.send_signal(number)


def _in_foreground() -> bool:
    """
    Whether a terminal sends its signals to this process, and so to the command.
    """
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


@contextmanager
def _signals() -> Iterator[_Passing]:
    """
    Pass signals on; they do not end this process, which has to report the end of the command.
    """
    passing = _Passing()
    former = {number: signal.getsignal(number) for number in (*_PASSED_ON, *_FROM_TERMINAL)}
    # what is ignored here, as by nohup, the command ignores, too
    changed = {number: handler for number, handler in former.items() if handler is not signal.SIG_IGN}
    for number in changed:
        signal.signal(number, passing)
    try:
        yield passing
    finally:
        for number, handler in changed.items():
            signal.signal(number, handler)
