"""
Processes of twistd, dcm-ws and short Python programs that are forked from one that has imported their modules already.
"""

from __future__ import annotations

import atexit
import fcntl
import inspect
import json
import os
import select
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from tests.process_state import current_umask

ROOT = Path(__file__).parent.parent
_PROGRAMS = frozenset(str(Path(sys.executable).with_name(name)) for name in ("twistd", "dcm-ws"))
# what Python or the C library reads when a process starts
_READ_AT_START = ("PYTHON", "LC_", "LANG", "LD_", "MALLOC_")
SHARED = "TESTS_FORK_FROM"
"""
The environment variable with the folder of what the processes of a test run share; see L{share}.
"""
# of these, what the server sets in the process
_SET_LATER = frozenset(("PYTHONFAULTHANDLER", "PYTHONDONTWRITEBYTECODE"))
# of Popen: with any other value, the process is started as usual
_USUAL: dict[str, Any] = {
    "executable": None,
    "preexec_fn": None,
    "close_fds": True,
    "pass_fds": (),
    "shell": False,
    "restore_signals": True,
    "gid": None,
    "gids": None,
    "uid": None,
    "umask": -1,
    "start_new_session": False,
    "process_group": -1,
}


class _Server:
    """
    A process that forks, as long as this process runs.

    @param name: of what it has imported.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._owner = 0

    def fork(self, argv: list[str], env: dict[str, str], folder: str, streams: list[int]) -> tuple[int, int]:
        """
        @return: the number of the process, and a pipe that its status can be read from when it has ended.
        """
        request = json.dumps({"argv": argv, "env": env, "folder": folder, "umask": current_umask()}).encode()
        ours, theirs = os.pipe()
        try:
            with self._lock:
                control = self._start()
                socket.send_fds(control, [request], [*streams, theirs])
                pid = int(control.recv(100))
        finally:
            os.close(theirs)
        return pid, ours

    def _start(self) -> socket.socket:
        if self._control is None or self._owner != os.getpid():
            self._owner = os.getpid()
            if SHARED in os.environ:
                self._control = _connect(Path(os.environ[SHARED]), self._name)
            else:
                self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                with theirs:
                    atexit.register(self._stop, self._control, _run_server(theirs, self._name))
            # a request has the whole environment
            self._control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            assert self._control.recv(100) == b"ready"
        return self._control

    def _stop(self, control: socket.socket, process: subprocess.Popen[bytes]) -> None:
        if self._owner == os.getpid():
            control.close()
            process.wait()


def _run_server(end: socket.socket, name: str, *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.forkserver", str(end.fileno()), name, *more]
    null = subprocess.DEVNULL
    return subprocess.Popen(command, cwd=ROOT, pass_fds=[end.fileno()], stdin=null, stdout=null)


def _connect(folder: Path, name: str) -> socket.socket:
    """
    A server that is forked from the one that all processes of this test run share; the first of them starts it.
    """
    address, kind = str(folder / name), (socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with open(f"{address}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(address):
            with socket.socket(*kind) as listening:
                listening.bind(address)
                listening.listen(100)
                _run_server(listening, name, str(folder / "alive"))
    control = socket.socket(*kind)
    control.connect(address)
    return control


def share(folder: Path) -> int:
    """
    Have the processes that are started from now on share what forks, until the descriptor that is returned is closed.
    """
    alive = folder / "alive"
    os.mkfifo(alive)
    os.environ[SHARED] = str(folder)
    return os.open(alive, os.O_RDWR)


_servers = {name: _Server(name) for name in ("usual", "mcp")}


class Popen(subprocess.Popen[Any]):
    """
    Like the class of the standard library.  Programs other than twistd, dcm-ws and C{python -c} are started as usual,
    and so are these with an environment that Python itself reads.
    """

    _ended: int | None = None

    def _execute_child(self, *arguments: Any) -> None:
        usual = super()._execute_child  # type: ignore[misc]
        given = inspect.signature(usual).bind(*arguments).arguments
        env = given["env"]
        if not _may_be_forked(given, dict(os.environ if env is None else env)):
            usual(*arguments)
            return
        pipes = [given[name] for name in ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")]
        streams = [number if pipe == -1 else pipe for number, pipe in enumerate((pipes[0], pipes[3], pipes[5]))]
        try:
            argv = [os.fspath(one) for one in given["args"]]
            self.pid, self._ended = _servers["mcp" if argv[1:2] == ["mcp"] else "usual"].fork(
                argv,
                dict(os.environ if env is None else env),
                os.getcwd() if given["cwd"] is None else os.path.abspath(given["cwd"]),
                streams,
            )
            self._child_created = True
        finally:
            self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]

    def _try_wait(self, flags: int) -> tuple[int, int]:
        if self._ended is None:
            result: tuple[int, int] = super()._try_wait(flags)  # type: ignore[misc]
            return result
        if flags & os.WNOHANG and not is_readable(self._ended):
            return 0, 0
        status = os.read(self._ended, 4)
        os.close(self._ended)
        # nothing: the server is gone, and nobody can know
        return self.pid, int.from_bytes(status or b"\0\0\0\x09", "big")

    def _internal_poll(self, *arguments: Any, **more: Any) -> int | None:
        if self._ended is None:
            result: int | None = super()._internal_poll(*arguments, **more)  # type: ignore[misc]
            return result
        if self.returncode is None and self._waitpid_lock.acquire(False):  # type: ignore[attr-defined]
            try:
                if self.returncode is None:
                    pid, status = self._try_wait(os.WNOHANG)
                    if pid:
                        self._handle_exitstatus(status)  # type: ignore[attr-defined]
            finally:
                self._waitpid_lock.release()  # type: ignore[attr-defined]
        return self.returncode


def run(command: list[str], *, input: str, timeout: float, **options: Any) -> subprocess.CompletedProcess[str]:
    """
    Like C{subprocess.run} with C{text=True}, and pipes for all streams.
    """
    pipe = subprocess.PIPE
    with Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, **options) as process:
        try:
            stdout, stderr = process.communicate(input, timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def is_readable(descriptor: int) -> bool:
    """
    Is there something to read from a pipe or a connection, or has its other end been closed?
    """
    # select takes only the first 1,024 descriptors
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def _may_be_forked(given: dict[str, Any], env: dict[str, str]) -> bool:
    args = given["args"]
    if isinstance(args, (str, bytes)) or not (args[0] in _PROGRAMS or args[:2] == [sys.executable, "-c"]):
        return False
    if any(given[name] != value for name, value in _USUAL.items() if name in given):
        return False
    return _read_at_start(env) == _read_at_start(dict(os.environ))


def _read_at_start(env: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(_READ_AT_START) and name not in _SET_LATER}
