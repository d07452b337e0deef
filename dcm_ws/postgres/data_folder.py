"""
The data folder of the embedded PostgreSQL: its files, who owns it, and who may change it::

    lock        held by the service that uses the folder; the system frees it when that process ends
    password    of the database's only role
    port        that PostgreSQL had last time
    postgres/   owned by the account that PostgreSQL runs under: cluster/ and server.log
    programs/   copies of PostgreSQL's programs, if that account cannot run the installed ones
"""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path
from typing import NamedTuple

from dcm_ws.postgres.connection import DatabaseUnavailableError

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows has no such thing, nor uids
    fcntl = None  # type: ignore[assignment]


_OTHER = "choose another folder with DCM_DATA_DIR"


class EmbeddedError(DatabaseUnavailableError):
    """
    The embedded PostgreSQL cannot run; the text says why, and what to do, in one line.
    """


class Account(NamedTuple):
    """
    The account that PostgreSQL runs under; None and None for the service's own.
    """

    uid: int | None = None
    gid: int | None = None

    def give(self, path: Path) -> None:
        """
        Make the account the owner of a file or folder.
        """
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def blocked_at(self, path: Path) -> Path | None:
        """
        Returns the first folder on the way to C{path} that the account cannot enter; None if there is none.
        """
        if self.uid is None:
            return None
        for folder in (*reversed(path.parents), path):
            status = folder.stat()
            if status.st_uid == self.uid:
                way = stat.S_IXUSR
            elif status.st_gid == self.gid:
                way = stat.S_IXGRP
            else:
                way = stat.S_IXOTH
            if not status.st_mode & way:
                return folder
        return None


class DataFolder:
    """
    The paths in the data folder, and the account that owns the cluster.

    @ivar path: the folder itself.
    @ivar home: the folder that the account owns.
    @ivar log: what the server writes.
    @ivar account: set by L{prepare}.
    """

    def __init__(self, path: Path) -> None:
        # the account must be able to enter each folder of the path, so the path has no symbolic links
        self.path = path.resolve()
        self.password = self.path / "password"
        self.port = self.path / "port"
        self.home = self.path / "postgres"
        self.cluster = self.home / "cluster"
        self.log = self.home / "server.log"
        self.account = Account()
        self._lock: int | None = None

    def prepare(self) -> None:
        """
        Make the folder if it is missing, and check that PostgreSQL can run in it and that others cannot change it.

        @raise EmbeddedError: PostgreSQL cannot run in it, or others can change it.
        """
        # pg_ctl starts PostgreSQL through a shell, and quotes paths only with "
        if set(str(self.path)) & set('"$`\\\n'):
            raise EmbeddedError(
                f'PostgreSQL cannot start in a folder with one of " $ ` \\ in its path, such as {str(self.path)!r}:'
                f" {_OTHER}"
            )
        self.account = _account_for(self.cluster)
        self._make()
        blocked = self.account.blocked_at(self.path)
        if blocked is not None:
            raise EmbeddedError(f"PostgreSQL does not run as root, and its account cannot enter {blocked}: {_OTHER}")
        _refuse_foreign(self.path)

    def lock(self) -> None:
        """
        Lock the folder for this process.

        @raise EmbeddedError: another process has locked it.
        """
        self._lock = _take_lock(self.path / "lock")

    def unlock(self) -> None:
        """
        Release the folder for other processes.
        """
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _make(self) -> None:
        """
        Make the folder so that PostgreSQL's account can enter it.  This must not depend on the umask: that of twistd in
        the background excludes other accounts.
        """
        missing = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        for folder in reversed(missing):
            folder.mkdir(0o700, exist_ok=True)
            if self.account.uid is not None:
                folder.chmod(0o711)


def _account_for(cluster: Path) -> Account:
    """
    Returns the account that PostgreSQL must run under.  For root, this is the owner of the cluster, if there is one.

    @raise EmbeddedError: there is no account for root.
    """
    if os.geteuid() != 0:
        return Account()
    if cluster.exists():
        status = cluster.stat()
        if status.st_uid != 0:
            return Account(status.st_uid, status.st_gid)
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    raise EmbeddedError(
        "PostgreSQL does not run as root, and there is no account 'postgres' or 'nobody': start dcm-ws as another user"
    )


def _refuse_foreign(folder: Path) -> None:
    """
    @raise EmbeddedError: other accounts can change the content of the data folder, or own it.
    """
    status = folder.stat()
    if status.st_uid != os.geteuid():
        raise EmbeddedError(f"{folder} belongs to another account (uid {status.st_uid}): {_OTHER}")
    # the account's own group is as trusted as the account
    if status.st_mode & stat.S_IWOTH or (status.st_mode & stat.S_IWGRP and status.st_gid != os.getegid()):
        raise EmbeddedError(f"other accounts may write to {folder}: chmod go-w {folder}, or {_OTHER}")
    for above in folder.parents:
        mode = above.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise EmbeddedError(f"other accounts may replace {folder}, since they may write to {above}: {_OTHER}")
    for name in ("lock", "password", "port", "postgres", "programs"):
        if (folder / name).is_symlink():
            raise EmbeddedError(f"{folder / name} is a symbolic link: remove it, or {_OTHER}")
    for name in ("lock", "password", "port"):
        # reading from a named pipe would wait indefinitely
        if (folder / name).exists() and not (folder / name).is_file():
            raise EmbeddedError(f"{folder / name} is not a file: remove it, or {_OTHER}")


def read_own(path: Path) -> str:
    """
    Read a file of the service; a symbolic link is an error.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)) as stream:
        return stream.read()


def _take_lock(path: Path) -> int:
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(lock, 32).decode() or "?"
        os.close(lock)
        raise EmbeddedError(
            f"another dcm-ws (process {owner}) uses the data in {path.parent}:"
            " give this one its own folder with DCM_DATA_DIR, or a database with DATABASE_URL"
        ) from None
    os.truncate(lock, 0)
    os.write(lock, str(os.getpid()).encode())
    return lock


def write_secret(path: Path, text: str) -> None:
    """
    Replace a file by a new one that only this account may read.
    """
    path.unlink(missing_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(file, "w") as stream:
        stream.write(text)
