"""
Files with settings: where they are, who may have written them, and who may read them.
"""

from __future__ import annotations

import io
import os
import pwd
import stat
from collections.abc import Callable
from pathlib import Path

from dotenv.parser import parse_stream

from dcm_ws.app.settings import SettingsError

FILE_MAX = 1 << 20
"""
Bytes of a file with settings.
"""


def user_folder(find: Callable[[str], Path]) -> Path | None:
    """
    A folder of the user, as C{platformdirs} finds it; None if the user has no home.

    Without C{HOME}, and without an entry in the user database, there is none: containers often run so.
    """
    try:
        folder = find("dcm-ws")
    except (RuntimeError, KeyError, OSError):
        return None
    return folder if folder.is_absolute() else None


def default_folder() -> Path:
    """
    The default data folder.  For root it is the system's folder, because PostgreSQL does not run as root and the user
    that it runs as cannot read root's home.

    @raise SettingsError: the user has no home folder.
    """
    if os.geteuid() == 0:
        return Path("/var/lib/dcm-ws")
    import platformdirs

    folder = user_folder(platformdirs.user_data_path)
    if folder is None:
        raise SettingsError("there is no home folder for the embedded database: set DCM_DATA_DIR or DATABASE_URL")
    return folder


def path_of(name: str, given: str) -> Path:
    """
    A path, with C{~} expanded.

    @param name: of the setting.
    @raise SettingsError: it is in the home folder of an unknown account.
    """
    try:
        return Path(given).expanduser()
    except RuntimeError:
        raise SettingsError(f"{name}: the home folder of {given!r} does not exist") from None


def given_path(option: str, given: str) -> Path:
    """
    @raise SettingsError: there is no such place.
    """
    try:
        return path_of(option, given).absolute()
    except FileNotFoundError:
        raise SettingsError(f"{option}: {given!r} is in a working folder that is gone") from None


def read_text(file: Path) -> tuple[str, os.stat_result]:
    """
    What is in a file, and its owner and mode at the time it was read.

    @raise SettingsError: it cannot be read.
    """
    try:
        with file.open("rb") as opened:
            status = os.fstat(opened.fileno())
            content = opened.read(FILE_MAX + 1)
        if len(content) > FILE_MAX:
            raise SettingsError(f"{file} is larger than {FILE_MAX} bytes")
        return content.decode("utf-8-sig"), status
    except OSError as error:
        raise SettingsError(f"cannot read {str(file)!r}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{file} is not UTF-8: {error.reason} at byte {error.start}") from None


def read_env(file: Path) -> tuple[dict[str, str], os.stat_result]:
    """
    Return the variables of a C{.env} file.  C{$} in a value is an ordinary character.

    @raise SettingsError: it cannot be read, or a line in it does not set a variable.
    """
    text, status = read_text(file)
    values: dict[str, str] = {}
    for binding in parse_stream(io.StringIO(text)):
        if binding.error:
            raise SettingsError(f"{file}: line {binding.original.line} is not NAME=VALUE")
        if binding.key is not None and binding.value is not None:
            values[binding.key] = binding.value
    return values, status


def writers(status: os.stat_result) -> str | None:
    """
    Who else may have written a file, in words: not root, and not the account that the service runs as.
    """
    if status.st_uid not in (0, os.geteuid()):
        return f"it belongs to {_account(status.st_uid)}"
    if status.st_mode & stat.S_IWOTH:
        return "everybody may write to it"
    # a group of one's own is common, with a umask of 002
    if status.st_mode & stat.S_IWGRP and status.st_gid not in (0, os.getegid()):
        return "its group may write to it"
    return None


def exposed(file: str | Path) -> str | None:
    """
    A sentence if others than the owner may read a file that holds secrets.
    """
    try:
        mode = os.stat(file).st_mode
    except OSError:
        return None
    if not stat.S_ISREG(mode) or not mode & (stat.S_IRGRP | stat.S_IROTH):
        return None
    who = "everybody" if mode & stat.S_IROTH else "its group"
    return f"{file} holds secrets, and {who} may read it: chmod 600 it"


def _account(uid: int) -> str:
    try:
        return f"the account {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"the account {uid}"
