"""
Where settings come from: options, the environment, a C{.env} file, a TOML file and the defaults, in this order.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import platformdirs

from dcm_ws.app.files import exposed, given_path, read_env, read_text, user_folder, writers
from dcm_ws.app.settings import DATABASE_PARTS, SettingsError, database_parts, path_of
from dcm_ws.postgres.dsn import differing, shown

FILE_NAME = "dcm-ws.toml"

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

_SEVERAL = (
    *("listen", "admin-listen", "extra-event", "extra-channel", "latest-event"),
    *("allowed-origin", "server-name", "trusted-proxy"),
)
_PATHS = ("ws-auth-secret-file", "db-password-file", "dcm-data-dir")
_NOT_SETTINGS = ("config", "env-file", "version", "help")


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
_OPTION, _ENVIRONMENT, _ENV_FILE, _FILE, _FARTHEST = range(5)

_Value = str | bool | list[str]


@dataclass(frozen=True, slots=True)
class Sources:
    """
    What there is to make L{Settings<dcm_ws.app.settings.Settings>} of.

    @ivar options: by option name, from the command line, the file or the defaults.
    @ivar environment: the variables, and what the file has in their place.
    @ivar origins: where each setting comes from, by option name: C{option}, C{environment}, a file's path or
        C{default}.
    @ivar file: the file that was read; None for none.
    @ivar ignored: a sentence for each setting that was given and does not count, since another one does.
    @ivar warnings: a sentence for each file that others may read or write, and should not.
    """

    options: Mapping[str, Any]
    environment: Mapping[str, str]
    origins: Mapping[str, str]
    file: Path | None
    ignored: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def find(given: str | None) -> Path | None:
    """
    The file to read: the one given, else the one in the working folder, else the one in the user's config folder.
    Folders that cannot be looked into have none.

    @raise SettingsError: there is no such place as the one given.
    """
    if given is not None:
        return given_path("--config", given)
    for folder in (Path(), user_folder(platformdirs.user_config_path)):
        with suppress(OSError):
            if folder is not None and (folder / FILE_NAME).is_file():
                return (folder / FILE_NAME).absolute()
    return None


def read(file: Path, known: Mapping[str, object], *, given: bool = True) -> tuple[dict[str, _Value], list[str]]:
    """
    The settings in a file, a string, a truth or a list of strings each; and warnings.

    @param known: the options that there are, by name.
    @param given: whether its user has named it; a file that was only found must not be writable by others.
    @raise SettingsError: the file cannot be read, or something in it is not a setting.
    """
    text, status = read_text(file)
    warnings = []
    if reason := writers(status):
        if not given:
            raise SettingsError(f"{file} is not used, because {reason}: use --config {file} if you trust it")
        warnings.append(f"{file} is used, although {reason}")
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{file} is not TOML: {error}") from None
    held = {name: _value(file, name, value, known) for name, value in table.items()}
    return held, warnings


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
    @raise SettingsError: the file is invalid.
    """
    warnings: list[str] = []
    places = dict(_PLACES)
    origins = _origins(options, defaults, environment)
    if options.get("env-file"):
        environment = _with_env_file(
            given_path("--env-file", options["env-file"]), environment, origins, places, warnings
        )
    merged, variables, held = dict(options), dict(environment), dict[str, _Value]()
    file = find(options.get("config"))
    if file is not None:
        held, said = read(file, options, given=options.get("config") is not None)
        warnings += said
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
        for lost, sentence in _settle(ways, given, merged, variables, places):
            ignored += [sentence] if sentence else []
            for name in lost:
                origins[name] = "default"
                variables.pop(_variable(name), None)
                merged[name] = [] if name in _SEVERAL else False if name in FLAGS else None
    warnings += _exposed(origins, merged, variables)
    return Sources(merged, variables, origins, file, tuple(ignored), tuple(warnings))


def _with_env_file(
    file: Path,
    environment: Mapping[str, str],
    origins: dict[str, str],
    places: dict[str, int],
    warnings: list[str],
) -> dict[str, str]:
    """
    The environment, with the variables that it lacks as the file has them; an empty one counts as lacking.
    """
    held, status = read_env(file)
    if reason := writers(status):
        warnings.append(f"{file} is used, although {reason}")
    places[str(file)] = _ENV_FILE
    known = {_variable(name): name for name in VARIABLES}
    together = dict(environment)
    for variable, value in held.items():
        if environment.get(variable, "").strip() or not value.strip():
            continue
        if variable in known and origins[known[variable]] == "default":
            origins[known[variable]] = str(file)
            together[variable] = value
        elif variable == "NODE_ENV":
            together[variable] = value
    if origins["dcm-env"] == "default" and together.get("NODE_ENV") == "production":
        origins["dcm-env"] = str(file)
    return together


def _exposed(origins: Mapping[str, str], options: Mapping[str, Any], variables: Mapping[str, str]) -> list[str]:
    """
    Warnings of files with secrets that others may read.
    """
    files = [origin for name, origin in origins.items() if name in SECRET and os.path.isabs(origin)]
    for name in ("ws-auth-secret-file", "db-password-file"):
        if origins[name] != "default" and (path := options.get(name) or variables.get(_variable(name))):
            files.append(str(path_of(name, str(path))))
    return [sentence for file in dict.fromkeys(files) if (sentence := exposed(file))]


def _settle(
    ways: tuple[_Way, ...],
    given: dict[str, str],
    options: Mapping[str, Any],
    variables: Mapping[str, str],
    ranks: Mapping[str, int],
) -> Iterator[tuple[list[str], str]]:
    """
    For each way that does not count, the names given in it, which are taken out of C{given}, and a sentence that says
    so; empty if nothing is lost.
    """
    places = {name: ranks.get(origin, _FILE) for name, origin in given.items()}
    found = [(distance, way) for way in ways if (distance := way.distance(places)) is not None]
    if not found:
        return
    best = min(found, key=lambda one: one[0])[1]
    kept = [_named(name, given[name]) for name in best.names if name in given]
    chosen, verb = " and ".join(kept), "is" if len(kept) == 1 else "are"
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
        sentence = f"{names} {'is' if len(told) == 1 else 'are'} ignored: {chosen} {verb} used" if told else ""
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
