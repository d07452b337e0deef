"""
The data folder of the embedded PostgreSQL: where it is, whom it belongs to, and the files in it that are the service's.
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


class EmbeddedError(DatabaseUnavailableError):
    """
    The embedded PostgreSQL cannot run; the text says why, and what to do, in one line.
    """


class Account(NamedTuple):
    """
    Who PostgreSQL runs as; None and None for the service's own user.
    """

    uid: int | None = None
    gid: int | None = None

    def give(self, path: Path) -> None:
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def blocked_at(self, path: Path) -> Path | None:
        """
        The first folder on the way to C{path} that the account cannot go through.
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


def account_for(cluster: Path) -> Account:
    """
    Who PostgreSQL is to run as: for root the owner of the data, where there is any.
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


def refuse_foreign(folder: Path) -> None:
    """
    @raise EmbeddedError: other accounts can change what is in the data folder, or have made it.
    """
    other = "choose another folder with DCM_DATA_DIR"
    status = folder.stat()
    if status.st_uid != os.geteuid():
        raise EmbeddedError(f"{folder} belongs to another account (uid {status.st_uid}): {other}")
    # the group of an account's own is as good as the account
    if status.st_mode & stat.S_IWOTH or (status.st_mode & stat.S_IWGRP and status.st_gid != os.getegid()):
        raise EmbeddedError(f"other accounts may write to {folder}: chmod go-w {folder}, or {other}")
    for above in folder.parents:
        mode = above.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise EmbeddedError(f"other accounts may replace {folder}, since they may write to {above}: {other}")
    for name in ("lock", "password", "port", "postgres", "programs"):
        if (folder / name).is_symlink():
            raise EmbeddedError(f"{folder / name} is a symbolic link: remove it, or {other}")
    for name in ("lock", "password", "port"):
        # reading from a named pipe would wait indefinitely
        if (folder / name).exists() and not (folder / name).is_file():
            raise EmbeddedError(f"{folder / name} is not a file: remove it, or {other}")


def read_own(path: Path) -> str:
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)) as stream:
        return stream.read()


def take_lock(path: Path) -> int:
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
    path.unlink(missing_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(file, "w") as stream:
        stream.write(text)
