"""
Starts twistd, dcm-ws and short Python programs for tests without importing their modules again, which takes most of
the time of a short test.

The server has imported them once.  For each start it forks, and the child becomes the program: with the arguments, the
environment, the folder and the standard streams that were sent.  Nothing of the program has run in the server, and no
reactor is installed there.  L{tests.forking} is the other side.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import gc
import importlib
import io
import json
import os
import pkgutil
import re
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.forkedworkers import fork_workers
from tests.process_state import take_over

_MESSAGE_BYTES = 1 << 20
_STREAMS = 3
_PACKAGES = ("dcm_ws.app", "dcm_ws.cli", "dcm_ws.brokers", "dcm_ws.http", "dcm_ws.websocket", "dcm_ws.nats")
_MCP = ("dcm_ws.mcp",)


def preload(packages: tuple[str, ...]) -> None:
    """
    Import what the programs import.

    @param packages: names of packages; all their modules are imported.
    """
    importlib.import_module("twisted.scripts.twistd")
    importlib.import_module("dcm_ws.tap")
    for package in packages:
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
            importlib.import_module(module.name)
    assert "twisted.internet.reactor" not in sys.modules
    gc.collect()
    gc.freeze()


class Children:
    """
    Tells the tests when their processes end.

    @ivar pipes: where to write the status of each process.
    """

    def __init__(self) -> None:
        self.pipes: dict[int, int] = {}
        signal.signal(signal.SIGCHLD, self._reap)

    def _reap(self, *_: object) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            pipe = self.pipes.pop(pid)
            with contextlib.suppress(BrokenPipeError):
                os.write(pipe, status.to_bytes(4, "big"))
            os.close(pipe)


def serve(control: socket.socket) -> Callable[[], object] | None:
    """
    Fork for each request.

    @return: in a child, what to run; None when nobody asks any more.
    """
    children = Children()
    while True:
        message, pipes, _, _ = socket.recv_fds(control, _MESSAGE_BYTES, _STREAMS + 1)
        if not message:
            return None
        request = json.loads(message)
        # the child may end before its number is known here
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        pid = os.fork()
        if not pid:
            control.close()
            for pipe in (*children.pipes.values(), pipes[_STREAMS]):
                os.close(pipe)
            return become(request, pipes[:_STREAMS])
        children.pipes[pid] = pipes[_STREAMS]
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        for pipe in pipes[:_STREAMS]:
            os.close(pipe)
        control.send(str(pid).encode())


def become(request: dict[str, object], streams: list[int]) -> Callable[[], object]:
    """
    Make this process like one that has just been started.
    """
    argv, env, folder, umask = request["argv"], request["env"], request["folder"], request["umask"]
    assert isinstance(argv, list) and isinstance(env, dict) and isinstance(folder, str) and isinstance(umask, int)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    take_over(env, folder, umask)
    # the C library has read TZ already
    time.tzset()
    sys.argv = argv
    # as of a script
    sys.path[0] = str(Path(argv[0]).parent)
    sys.modules["__main__"].__package__ = None
    if env.get("PYTHONFAULTHANDLER"):
        faulthandler.enable()
    sys.dont_write_bytecode = bool(env.get("PYTHONDONTWRITEBYTECODE"))
    sys.stdin, sys.stdout, sys.stderr = _reading(0), _writing(1), _writing(2, errors="backslashreplace")
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]
    if "--workers" in argv and (worker := fork_workers()) is not None:
        return worker
    if argv[1:2] == ["-c"]:
        program = compile(argv[2], "<string>", "exec")
        sys.argv = argv[1:2] + argv[3:]
        return lambda: exec(program, {"__name__": "__main__"})
    if Path(argv[0]).name == "twistd":
        return importlib.import_module("twisted.scripts.twistd").run
    return importlib.import_module("dcm_ws.cli.main").main


def end_as_python(program: Callable[[], object]) -> None:
    """
    Run the program, and end with its status: as Python does, but without taking apart all the modules, which takes six
    times as long as a short program.
    """
    try:
        status = program()
    except SystemExit as ending:
        status = ending.code
    if status is None or isinstance(status, int):
        # waits for threads
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        # what has failed and was not looked at is told
        gc.collect()
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit((status or 0) & 0xFF)
    # a text to print, or output that nobody takes
    sys.exit(status)  # type: ignore[arg-type]


def _reading(number: int) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BufferedReader(io.FileIO(number, "r", closefd=False)))


def _writing(number: int, errors: str = "strict") -> io.TextIOWrapper:
    is_lines = number == 2 or os.isatty(number)
    stream = io.BufferedWriter(io.FileIO(number, "w", closefd=False))
    return io.TextIOWrapper(stream, errors=errors, line_buffering=is_lines)


def serve_all(listening: socket.socket, alive: str) -> Callable[[], object] | None:
    """
    Fork a server for each process that connects.

    @param alive: a pipe, which is closed when no more will connect.
    @return: as of L{serve}.
    """
    # the system reaps them
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    pipe = os.open(alive, os.O_RDONLY | os.O_NONBLOCK)
    poll = select.poll()
    for end in (listening.fileno(), pipe):
        poll.register(end, select.POLLIN)
    while True:
        ready = dict(poll.poll())
        if listening.fileno() in ready:
            control, _ = listening.accept()
            with control:
                if not os.fork():
                    listening.close()
                    os.close(pipe)
                    control.send(b"ready")
                    return serve(control)
        elif ready:
            return None


def main() -> None:
    with socket.socket(fileno=int(sys.argv[1])) as end:
        # most programs do not import the SDK of MCP, which takes as long as everything else
        preload((*_PACKAGES, *_MCP) if sys.argv[2] == "mcp" else _PACKAGES)
        if len(sys.argv) > 3:
            program = serve_all(end, sys.argv[3])
        else:
            end.send(b"ready")
            program = serve(end)
    if program is not None:
        sys.argv[0] = re.sub(r"\.exe$", "", sys.argv[0])
        end_as_python(program)


if __name__ == "__main__":
    main()
