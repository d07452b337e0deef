"""
Workers that are forked from a process that has imported their modules, as L{tests.forkserver} does for the service
itself: the start of a worker takes a tenth of the time.

A worker must be a child of its supervisor, but must have nothing of what the supervisor has done meanwhile.  So before
the supervisor begins, it forks a process that waits.  For each worker, that one forks a process that forks the worker
and ends at once; the worker then becomes a child of the supervisor.
"""

from __future__ import annotations

import ctypes
import fcntl
import importlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

from dcm_ws.app.worker_process import PROGRAM
from tests.process_state import current_umask, take_over

_MESSAGE_BYTES = 1 << 20
_DESCRIPTORS = 250
# beyond those of a worker
_HIGH = 300
_PR_SET_CHILD_SUBREAPER = 36


def fork_workers() -> Callable[[], object] | None:
    """
    Let the workers that this process starts be forked.

    @return: in a worker, what to run; None in this process.
    """
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MESSAGE_BYTES)
    if os.fork():
        theirs.close()
        _ask(ours)
        return None
    ours.close()
    return _serve(theirs)


def _ask(control: socket.socket) -> None:
    """
    Make Twisted ask for a worker where it would execute one.
    """
    from twisted.internet.process import Process

    usual: Any = getattr(Process, "_trySpawnInsteadOfFork", None)
    if usual is None:
        # workers are executed
        return

    def spawn(
        self: Any, path: Any, uid: Any, gid: Any, program: Any, args: Any, environment: Any, more: dict[str, Any]
    ) -> bool:
        argv = [os.fsdecode(one) for one in args]
        if argv[1:4] != ["-P", "-m", PROGRAM]:
            return bool(usual(self, path, uid, gid, program, args, environment, more))
        env = {os.fsdecode(name): os.fsdecode(value) for name, value in environment.items()}
        places = more["fdmap"]
        request = {
            "argv": argv[3:],
            "env": env,
            "folder": os.getcwd(),
            "umask": current_umask(),
            "places": list(places),
        }
        socket.send_fds(control, [json.dumps(request).encode()], list(places.values()))
        self.pid = int(control.recv(100))
        self.status = -1
        return True

    Process._trySpawnInsteadOfFork = spawn  # type: ignore[method-assign]


def _serve(control: socket.socket) -> Callable[[], object]:
    """
    Fork for each request, until the supervisor has ended.

    @return: in a worker, what to run.
    """
    # for the supervisor
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # whoever reads what the supervisor prints waits for the last process that could print
    with open(os.devnull, "r+b", buffering=0) as null:
        for number in range(3):
            os.dup2(null.fileno(), number)
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, _MESSAGE_BYTES, _DESCRIPTORS)
        if not message:
            os._exit(0)
        ours, theirs = os.pipe()
        between = os.fork()
        if not between:
            worker = os.fork()
            if worker:
                os.write(theirs, str(worker).encode())
                os._exit(0)
            for unneeded in (control.detach(), ours, theirs):
                os.close(unneeded)
            return _become(json.loads(message), descriptors)
        os.waitpid(between, 0)
        for unneeded in (theirs, *descriptors):
            os.close(unneeded)
        control.send(os.read(ours, 100))
        os.close(ours)


def _become(request: dict[str, Any], descriptors: list[int]) -> Callable[[], object]:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    high = [fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, _HIGH) for one in descriptors]
    for one in descriptors:
        os.close(one)
    for place, one in zip(request["places"], high, strict=True):
        os.dup2(one, place)
        os.close(one)
    take_over(request["env"], request["folder"], request["umask"])
    sys.argv = request["argv"]
    main: Callable[[], object] = importlib.import_module(PROGRAM).main
    return main
