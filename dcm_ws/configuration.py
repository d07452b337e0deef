"""
Where settings come from: options, the environment, a TOML file and the defaults, in this order.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import platformdirs

from dcm_ws.dsn import differing, shown
from dcm_ws.settings import DATABASE_PARTS, SettingsError, database_parts, path_of

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

_SEVERAL = ("listen", "admin-listen", "extra-event", "extra-channel", "allowed-origin", "server-name", "trusted-proxy")
_PATHS = ("ws-auth-secret-file", "db-password-file", "dcm-data-dir")
_NOT_SETTINGS = ("config", "version", "help")


class _Way(NamedTuple):
    """
    One way to give a setting that can be given in several ways.

    @ivar leading: the names that decide how near it was given; all where it is empty.
    """

    names: tuple[str, ...]
    leading: tuple[str, ...] = ()

    def distance(self, places: Mapping[str, int]) -> int | None:
        """
        How far off it was given; None if it was not.
        """
        given = [places[name] for name in self.leading or self.names if name in places]
        if given:
            return min(given)
        return _FARTHEST if any(name in places for name in self.names) else None


# the nearest way counts; of equally near ones the first
_ALTERNATIVES = (
    (_Way(("ws-auth-secret-file",)), _Way(("ws-auth-secrets",)), _Way(("ws-auth-secret",))),
    (
        _Way(("database-url",)),
        _Way((*DATABASE_PARTS, "db-password-file"), ("db-host", "db-name")),
        _Way(("no-database",)),
    ),
    (_Way(("db-password-file",)), _Way(("db-password",))),
    (_Way(("listen",)), _Way(("ws-port", "host"))),
)
_OPTION, _ENVIRONMENT, _FILE, _FARTHEST = range(4)

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
    @ivar ignored: a sentence for each setting that was given and does not count, since another one does.
    """

    options: Mapping[str, Any]
    environment: Mapping[str, str]
    origins: Mapping[str, str]
    file: Path | None
    ignored: tuple[str, ...] = ()


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


def nearest(name: str, known: Iterable[str]) -> str | None:
    """
    The name that was probably meant, if one is like it: C{port} is C{ws-port}, and C{prot} is C{port}.
    """
    name, known = name.lower().replace("_", "-"), list(known)
    parts = [one for one in known if name in one.split("-") or name in (one.replace("-", ""), f"{one}s")]
    if parts:
        return min(parts, key=len)
    return next(iter(difflib.get_close_matches(name, known, 1, 0.5)), None)


def _value(file: Path, name: str, value: object, known: Mapping[str, object]) -> _Value:
    names = [option for option in known if option not in _NOT_SETTINGS]
    if name not in names:
        if isinstance(value, dict):
            raise SettingsError(
                f"{file}: there is no setting {name!r}, and there are no tables:"
                f" write the settings of [{name}] at the top of the file, without [{name}]"
            )
        near = nearest(name, names)
        hint = f"did you mean {near!r}?" if near else "dcm-ws serve --help lists the settings"
        raise SettingsError(f"{file}: there is no setting {name!r}; {hint}")
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
    merged, variables, held = dict(options), dict(environment), dict[str, _Value]()
    file = find(options.get("config"))
    if file is not None:
        held = read(file, options)
        if held.pop("production", False) and held.setdefault("dcm-env", "production") != "production":
            raise SettingsError(f"{file}: production and dcm-env contradict each other")
    for name, value in held.items():
        if origins[name] == "default" and value not in ("", False, []):
            origins[name] = str(file)
            if name in VARIABLES:
                variables[_variable(name)] = str(value)
            else:
                merged[name] = value
    given = {name: origin for name, origin in origins.items() if origin != "default"}
    ignored = _modes(merged, environment)
    for ways in _ALTERNATIVES:
        for lost, sentence in _settle(ways, given, merged, variables):
            ignored += [sentence] if sentence else []
            for name in lost:
                origins[name] = "default"
                variables.pop(_variable(name), None)
                merged[name] = [] if name in _SEVERAL else False if name in FLAGS else None
    return Sources(merged, variables, origins, file, tuple(ignored))


def _settle(
    ways: tuple[_Way, ...], given: dict[str, str], options: Mapping[str, Any], variables: Mapping[str, str]
) -> Iterator[tuple[list[str], str]]:
    """
    For each way that does not count, the names given in it, which are taken out of C{given}, and a sentence that says
    so; empty if nothing is lost.
    """
    places = {name: _PLACES.get(origin, _FILE) for name, origin in given.items()}
    found = [(distance, way) for way in ways if (distance := way.distance(places)) is not None]
    if not found:
        return
    best = min(found, key=lambda one: one[0])[1]
    chosen = " and ".join(_named(name, given[name]) for name in best.names if name in given)
    for _, way in found:
        if way is best:
            continue
        lost = [name for name in way.names if name in given]
        told = lost
        if best.names == ("database-url",) and "db-host" in way.names:
            url = str(options.get("database-url") or variables.get("DATABASE_URL", ""))
            parts = database_parts(lambda name, variable: str(options.get(name) or variables.get(variable, "")))
            unlike = differing(url, parts)
            told = [name for name in lost if DATABASE_PARTS.get(name, "") in unlike or name == "db-password-file"]
            chosen = f"{_named('database-url', given['database-url'])} ({shown(url)})"
        names = " and ".join(_named(name, given[name]) + _value_of(name, options, variables) for name in told)
        sentence = f"{names} {'is' if len(told) == 1 else 'are'} ignored: {chosen} is used" if told else ""
        for name in lost:
            del given[name]
        yield lost, sentence


_PLACES = {"option": _OPTION, "environment": _ENVIRONMENT}


def _named(name: str, origin: str) -> str:
    """
    The setting as its user wrote it.
    """
    if origin == "option":
        return f"--{name}"
    return _variable(name) if origin == "environment" else f"{name} in {origin}"


def _value_of(name: str, options: Mapping[str, Any], variables: Mapping[str, str]) -> str:
    value = options.get(name) or variables.get(_variable(name))
    return "" if name in SECRET or not isinstance(value, str) else f"={value}"


def _modes(options: Mapping[str, Any], environment: Mapping[str, str]) -> list[str]:
    """
    The mode has names of its own.
    """
    mode = str(options.get("dcm-env") or environment.get("DCM_ENV") or "")
    if mode == "development" and options.get("production"):
        return ["DCM_ENV=development is ignored: --production is used"]
    if mode == "development" and environment.get("NODE_ENV") == "production":
        return ["NODE_ENV=production is ignored: DCM_ENV=development is used"]
    return []


def _origins(options: Mapping[str, Any], defaults: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, str]:
    origins = dict.fromkeys((name for name in options if name not in _NOT_SETTINGS), "default")
    for name in origins:
        if _given(name, options, defaults):
            origins[name] = "option"
        elif name in VARIABLES and environment.get(_variable(name), "").strip():
            origins[name] = "environment"
    if options.get("production"):
        origins["dcm-env"] = "option"
    elif origins["dcm-env"] == "default" and environment.get("NODE_ENV") == "production":
        origins["dcm-env"] = "environment"
    return origins


def _variable(name: str) -> str:
    return name.upper().replace("-", "_")


def _given(name: str, options: Mapping[str, Any], defaults: Mapping[str, Any]) -> bool:
    value = options[name]
    if name in FLAGS or name in _SEVERAL:
        return bool(value)
    # not by equality: the default may be given by hand, too
    return value is not None and value is not defaults.get(name)
