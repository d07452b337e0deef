"""
Where settings come from: options, the environment, a C{.env} file, a TOML file and the defaults, in this order.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dcm_ws.app import configfile
from dcm_ws.app.alternatives import ENV_FILE, ENVIRONMENT, OPTION, settle
from dcm_ws.app.files import exposed, given_path, path_of, read_env, writers
from dcm_ws.app.kinds import Choice
from dcm_ws.app.options import BY_NAME
from dcm_ws.app.reading import Given, Value
from dcm_ws.app.rows import Row

_BY_VARIABLE = {row.variable: row for row in BY_NAME.values() if row.has_variable}
_MODE = BY_NAME["dcm-env"]


@dataclass(frozen=True, slots=True)
class Sources:
    """
    What L{Settings<dcm_ws.app.settings.Settings>} are made of.

    @ivar given: what was given, by the names of options.
    @ivar origins: where each setting comes from, by the name of its option: C{option}, C{environment}, a file's path or
        C{default}.
    @ivar file: the TOML file that was read; None for none.
    @ivar ignored: a sentence for each setting that was given and is overridden by another one.
    @ivar warnings: a sentence for each file that others can read or write, and should not.
    """

    given: Given
    origins: Mapping[str, str]
    file: Path | None
    ignored: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def merge(options: Mapping[str, Any], environment: Mapping[str, str]) -> Sources:
    """
    Put together what was given, the nearest first.

    @param options: from the command line, by name; None, 0 or an empty list if not given.
    @raise SettingsError: a file is invalid.
    """
    merging = _Merging()
    merging.take_options(options)
    merging.take_environment(environment)
    old_mode = environment.get(_MODE.old_variable, "")
    if options.get("env-file"):
        old_mode = merging.take_env_file(given_path("--env-file", options["env-file"]), environment)
    merging.compare_modes(old_mode)
    file = configfile.find(options.get("config"))
    if file is not None:
        merging.take_file(file, given=options.get("config") is not None)
    merging.settle()
    return Sources(
        merging.given,
        merging.origins,
        file,
        tuple(merging.ignored),
        (*merging.warnings, *_exposed(merging.origins, merging.given)),
    )


@dataclass(slots=True)
class _Merging:
    """
    What has been found so far, while one place after another is looked at.
    """

    given: dict[str, Value] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=lambda: dict.fromkeys(BY_NAME, "default"))
    distances: dict[str, int] = field(default_factory=lambda: {"option": OPTION, "environment": ENVIRONMENT})
    ignored: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def take_options(self, options: Mapping[str, Any]) -> None:
        for row in BY_NAME.values():
            value: Any = options.get(row.name)
            if _is_given(row, value):
                self._take(row, bool(value) if row.is_flag else value, "option")
        if options.get("production"):
            # the same setting by another name
            self.origins[_MODE.name] = "option"

    def take_environment(self, environment: Mapping[str, str]) -> None:
        for variable, row in _BY_VARIABLE.items():
            value = environment.get(variable, "")
            if value and row.name not in self.given:
                self.given[row.name] = value
            # a blank value is used only if no later source has another
            if value.strip() and self._is_free(row):
                self.origins[row.name] = "environment"
        if self._is_free(_MODE) and environment.get(_MODE.old_variable) == "production":
            self._take(_MODE, "production", "environment")

    def take_env_file(self, file: Path, environment: Mapping[str, str]) -> str:
        """
        Take the variables that the environment lacks; an empty one counts as lacking.

        @return: the value of the older variable for the mode.
        """
        found, status = read_env(file)
        if reason := writers(status):
            self.warnings.append(f"{file} is used, although {reason}")
        self.distances[str(file)] = ENV_FILE
        lacking = {
            name: value for name, value in found.items() if value.strip() and not environment.get(name, "").strip()
        }
        for variable, value in lacking.items():
            row = _BY_VARIABLE.get(variable)
            if row is not None and self._is_free(row):
                self._take(row, value, str(file))
        old_mode = lacking.get(_MODE.old_variable, environment.get(_MODE.old_variable, ""))
        if self._is_free(_MODE) and old_mode == "production":
            self._take(_MODE, "production", str(file))
        return old_mode

    def take_file(self, file: Path, *, given: bool) -> None:
        found, warnings = configfile.read(file, given=given)
        self.warnings += warnings
        for name, value in found.items():
            if self._is_free(BY_NAME[name]) and value not in ("", False, []):
                self._take(BY_NAME[name], value, str(file))

    def compare_modes(self, old_mode: str) -> None:
        """
        The mode may be given by several names, which are compared before the file is read.
        """
        if self.given.get(_MODE.name) != "development":
            return
        if self.given.get("production"):
            self.ignored.append(f"{_MODE.variable}=development is ignored: --production is used")
        elif old_mode == "production":
            self.ignored.append(f"{_MODE.old_variable}=production is ignored: {_MODE.variable}=development is used")

    def settle(self) -> None:
        """
        Take out what is overridden by an alternative.
        """
        origins = {name: origin for name, origin in self.origins.items() if origin != "default" and name in self.given}
        for lost, sentence in list(settle(self.given, origins, self.distances)):
            if sentence:
                self.ignored.append(sentence)
            for name in lost:
                self.origins[name] = "default"
                del self.given[name]

    def _take(self, row: Row, value: Value, origin: str) -> None:
        self.given[row.name] = value
        self.origins[row.name] = origin

    def _is_free(self, row: Row) -> bool:
        return self.origins[row.name] == "default"


def _is_given(row: Row, value: Any) -> bool:
    if row.is_flag or row.repeatable:
        return bool(value)
    # an empty text is a value, but not one of a choice
    return value is not None and not (value == "" and isinstance(row.kind, Choice))


def _exposed(origins: Mapping[str, str], given: Given) -> list[str]:
    """
    Warnings of files with secrets that others can read.
    """
    files = [origin for name, origin in origins.items() if BY_NAME[name].secret and os.path.isabs(origin)]
    for row in BY_NAME.values():
        if row.holds_secret and origins[row.name] != "default" and given.get(row.name):
            files.append(str(path_of(row.label, str(given[row.name]))))
    return [sentence for file in dict.fromkeys(files) if (sentence := exposed(file))]
