"""
Where settings come from: options, the environment, a TOML file and the defaults, in this order.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from dcm_ws.settings import SettingsError, path_of

FILE_NAME = "dcm-ws.toml"
FILE_MAX = 1 << 20
"""
Bytes of the file.
"""

VARIABLES = (
    *("ws-port", "host", "ws-auth-secret", "ws-auth-secrets", "ws-auth-secret-file", "database-url"),
    *("db-host", "db-port", "db-name", "db-user", "db-password", "db-password-file"),
    *("dcm-env", "dcm-data-dir", "log-level"),
)
"""
The options that an environment variable gives, too: the same name in capitals, with underscores.
"""

SECRET = frozenset({"ws-auth-secret", "ws-auth-secrets", "database-url", "db-password"})
"""
The settings whose values hold secrets.
"""

FLAGS = ("testee", "production", "enforce-expiry", "ready-needs-database", "no-database", "no-same-host")
"""
The settings that are on or off.
"""

_SEVERAL = ("listen", "admin-listen", "extra-event", "allowed-origin", "server-name", "trusted-proxy")
_PATHS = ("ws-auth-secret-file", "db-password-file", "dcm-data-dir")
_NOT_SETTINGS = ("config", "version", "help")

# each choice can be said in several ways: who says it in one does not want what somebody farther off says in another
_SECRETS = ("ws-auth-secret", "ws-auth-secrets", "ws-auth-secret-file")
_OUTDONE = (
    (_SECRETS, _SECRETS),
    (("db-host", "db-name"), ("database-url", "no-database")),
    (("database-url",), ("db-host", "db-name", "no-database")),
    (("no-database",), ("database-url", "db-host", "db-name")),
    (("db-password", "db-password-file"), ("db-password", "db-password-file")),
    (("ws-port", "host"), ("listen",)),
    (("listen",), ("ws-port", "host")),
)

_Value = str | bool | list[str]


@dataclass(frozen=True, slots=True)
class Sources:
    """
    What there is to make L{Settings<dcm_ws.settings.Settings>} of.

    @ivar options: by option name, from the command line, the file or the defaults.
    @ivar environment: the variables, and what the file has in their place.
    @ivar origins: where each setting comes from, by option name: C{option}, C{environment}, the file's path or
        C{default}.
    @ivar file: the file that was read; None for none.
    """

    options: Mapping[str, Any]
    environment: Mapping[str, str]
    origins: Mapping[str, str]
    file: Path | None


def find(given: str | None) -> Path | None:
    """
    The file to read: the one given, else the one in the working folder, else the one in the user's config folder.
    Folders that cannot be looked into have none.

    @raise SettingsError: there is no such place as the one given.
    """
    if given is not None:
        try:
            return path_of("--config", given).absolute()
        except FileNotFoundError:
            raise SettingsError(f"--config: {given!r} is in a working folder that is gone") from None
    for folder in (Path(), platformdirs.user_config_path("dcm-ws")):
        with suppress(OSError):
            if (folder / FILE_NAME).is_file():
                return (folder / FILE_NAME).absolute()
    return None


def read(file: Path, known: Mapping[str, object]) -> dict[str, _Value]:
    """
    The settings in a file: a string, a truth or a list of strings each.

    @param known: the options that there are, by name.
    @raise SettingsError: the file cannot be read, or something in it is no setting.
    """
    try:
        with file.open("rb") as opened:
            content = opened.read(FILE_MAX + 1)
        if len(content) > FILE_MAX:
            raise SettingsError(f"{file} is larger than {FILE_MAX} bytes")
        table = tomllib.loads(content.decode())
    except OSError as error:
        raise SettingsError(f"cannot read {str(file)!r}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} is not TOML: {error}") from None
    return {name: _value(file, name, value, known) for name, value in table.items()}


def _value(file: Path, name: str, value: object, known: Mapping[str, object]) -> _Value:
    names = [option for option in known if option not in _NOT_SETTINGS]
    if name not in names:
        near = difflib.get_close_matches(name.lower().replace("_", "-"), names, 1, 0.5)
        hint = f"; did you mean {near[0]!r}?" if near else "; the settings are in docs/operations.md"
        raise SettingsError(f"{file}: there is no setting {name!r}{hint}")
    if name in FLAGS:
        if not isinstance(value, bool):
            raise SettingsError(f"{file}: {name} must be true or false, not {_shown(name, value)}")
        return value
    if name in _SEVERAL:
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
            raise SettingsError(f"{file}: {name} must be a list of strings, not {_shown(name, value)}")
        return list(values)
    if name == "compression" and isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise SettingsError(f"{file}: {name} must be a string or a number, not {_shown(name, value)}")
    if name in _PATHS and value:
        # relative to the file, wherever the service is started
        return str(file.parent / path_of(f"{file}: {name}", str(value)))
    return str(value)


def _shown(name: str, value: object) -> str:
    return "what it is" if name in SECRET else repr(value)


def merge(options: Mapping[str, Any], defaults: Mapping[str, Any], environment: Mapping[str, str]) -> Sources:
    """
    Put together what was given, the nearest first.

    @param options: by option name; what was not given is the very object that is in C{defaults}, or an empty list.
    @raise SettingsError: the file is no good.
    """
    origins = _origins(options, defaults, environment)
    variables = dict(environment)
    for name in _outdone(origins, "option"):
        if origins[name] == "environment":
            origins[name] = "default"
            del variables[_variable(name)]
    file = find(options.get("config"))
    if file is None:
        return Sources(options, variables, origins, None)
    held = read(file, options)
    if held.pop("production", False) and held.setdefault("dcm-env", "production") != "production":
        raise SettingsError(f"{file}: production and dcm-env contradict each other")
    for name in _outdone(origins, "option", "environment"):
        held.pop(name, None)
    merged = dict(options)
    for name, value in held.items():
        if origins[name] != "default":
            continue
        origins[name] = str(file)
        if name in VARIABLES:
            variables[_variable(name)] = str(value)
        else:
            merged[name] = value
    return Sources(merged, variables, origins, file)


def _origins(options: Mapping[str, Any], defaults: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, str]:
    origins = dict.fromkeys((name for name in options if name not in _NOT_SETTINGS), "default")
    for name in origins:
        if _given(name, options, defaults):
            origins[name] = "option"
        elif name in VARIABLES and environment.get(_variable(name)):
            origins[name] = "environment"
    if options.get("production"):
        origins["dcm-env"] = "option"
    elif origins["dcm-env"] == "default" and environment.get("NODE_ENV") == "production":
        origins["dcm-env"] = "environment"
    return origins


def _outdone(origins: Mapping[str, str], *givers: str) -> set[str]:
    """
    The settings that are put aside where others have given another.
    """
    return {name for nearer, outdone in _OUTDONE if any(origins[one] in givers for one in nearer) for name in outdone}


def _variable(name: str) -> str:
    return name.upper().replace("-", "_")


def _given(name: str, options: Mapping[str, Any], defaults: Mapping[str, Any]) -> bool:
    value = options[name]
    if name in FLAGS or name in _SEVERAL:
        return bool(value)
    # not by equality: the default may be given by hand, too
    return value is not None and value is not defaults.get(name)
