"""
The PostgreSQL that is disturbed: on a small file system of its own where that can be mounted, and with a backup.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg2

from tests.integration.databases import TOOLS, PostgresServer
from tests.integration.machine import free_port

_OPTIONS = (
    "-c max_prepared_transactions=8",
    "-c max_connections=100",
    "-c max_wal_size=96MB",
    "-c min_wal_size=32MB",
    "-c checkpoint_timeout=30s",
    "-c log_min_messages=fatal",
)
_REST = 200_000


class Database(PostgresServer):
    """
    A PostgreSQL server.

    @param folder: where it has its files.
    @param megabytes: the size of its file system, if that is its own.
    @param admitted: the network from which anybody may connect as well; empty for only this machine.
    @ivar is_small: its file system is its own, and can be filled.
    """

    def __init__(self, folder: Path, megabytes: int, *, is_small: bool, admitted: str = "") -> None:
        super().__init__(folder, TOOLS)
        self._admitted = admitted
        self._admit()
        self._megabytes = megabytes
        self.is_small = is_small
        self._folder = folder
        self._backup = folder / "backup"
        self._dump = folder / "dump.sql"
        self._filling = folder / "filling"

    def start(self) -> None:
        """
        Start, and wait until it can be connected to.
        """
        self._start_on(self.port)

    def is_up(self) -> bool:
        """
        Can it be connected to?
        """
        try:
            psycopg2.connect(self.url, connect_timeout=2).close()
        except psycopg2.Error:
            return False
        return True

    def recover(self) -> None:
        """
        Start it if it does not run, or has ended itself.
        """
        end = time.monotonic() + 10
        while time.monotonic() < end:
            if self.is_up():
                return
            time.sleep(0.2)
        with contextlib.suppress(subprocess.CalledProcessError):
            self.stop("immediate")
        self.start()

    def back_up(self) -> None:
        """
        Copy the data folder of the server, which is stopped meanwhile.
        """
        self.stop("fast")
        shutil.rmtree(self._backup, ignore_errors=True)
        subprocess.run(["cp", "-a", str(self._data), str(self._backup)], check=True)
        self.start()

    def dump(self) -> None:
        """
        Write a dump of everything, while the server runs.
        """
        with self._dump.open("wb") as dump:
            subprocess.run([TOOLS / "pg_dumpall", "-d", self.url], stdout=dump, check=True, env={"PATH": os.defpath})

    def start_aside(self) -> str:
        """
        Start the server where nobody finds it, so that its log can be read before it is replaced; return its URL.
        """
        port = free_port()
        self._start_on(port)
        return self.url.replace(f":{self.port}/", f":{port}/")

    def restore_copy(self) -> None:
        """
        Replace the data folder by the copy.  The server is stopped.
        """
        shutil.rmtree(self._data)
        subprocess.run(["cp", "-a", str(self._backup), str(self._data)], check=True)

    def restore_dump(self) -> None:
        """
        Replace the server by a new one that has what the dump has.  The server is stopped.
        """
        shutil.rmtree(self._data)
        self._run("initdb", "-D", str(self._data), "-U", "dcm", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
        self._admit()
        port = free_port()
        self._start_on(port)
        url = self.url.replace(f":{self.port}/", f":{port}/")
        with self._dump.open("rb") as dump:
            subprocess.run(
                [TOOLS / "psql", "-q", "-d", url], stdin=dump, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                check=True, env={"PATH": os.defpath},
            )  # fmt: skip
        self.stop("fast")

    def _admit(self) -> None:
        if self._admitted:
            with (self._data / "pg_hba.conf").open("a") as rules:
                rules.write(f"host all all {self._admitted} trust\n")

    def fill(self) -> None:
        """
        Make the file system as small as what is in it, and use up the rest.
        """
        assert self.is_small
        while not self._resize(f"{self._used() + _REST}"):
            # the server has written more meanwhile
            pass
        with self._filling.open("wb", buffering=0) as filling, contextlib.suppress(OSError):
            while True:
                filling.write(bytes(4096))

    def empty(self) -> None:
        """
        Give back what L{fill} took.
        """
        self._resize(f"{self._megabytes}m")
        self._filling.unlink(missing_ok=True)

    def _used(self) -> int:
        now = os.statvfs(self._folder)
        return (now.f_blocks - now.f_bfree) * now.f_frsize

    def _resize(self, size: str) -> bool:
        remount = ["mount", "-o", f"remount,size={size}", str(self._folder)]
        return subprocess.run(remount, stderr=subprocess.DEVNULL).returncode == 0

    def _start_on(self, port: int) -> None:
        address = "*" if self._admitted else "127.0.0.1"
        options = f"-p {port} -c listen_addresses={address} -c unix_socket_directories='' -c fsync=off"
        log = str(self._data / "server.log")
        self._run("pg_ctl", "-D", str(self._data), "-o", " ".join((options, *_OPTIONS)), "-l", log, "-w", "start")


@contextlib.contextmanager
def database(megabytes: int, admitted: str = "") -> Iterator[Database]:
    """
    A running server, with its data folder and its backups on a file system of so many MB, if one can be mounted.

    @param admitted: as for L{Database}.
    """
    folder = Path(tempfile.mkdtemp(prefix="dcm-ws-chaos-"))
    size = f"size={megabytes}m"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", size, "dcm-ws-chaos", str(folder)], stderr=subprocess.DEVNULL
    )
    is_small = mounted.returncode == 0
    server = Database(folder, megabytes, is_small=is_small, admitted=admitted)
    try:
        server.start()
        yield server
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            server.stop("immediate")
        if is_small:
            subprocess.run(["umount", "-l", str(folder)], check=False)
        shutil.rmtree(folder, ignore_errors=True)
