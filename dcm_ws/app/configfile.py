"""
The TOML file with settings: where it is looked for, and what it may contain.
"""

from __future__ import annotations

import tomllib
from contextlib import suppress
from pathlib import Path

import platformdirs

from dcm_ws.app.files import given_path, path_of, read_text, user_folder, writers
from dcm_ws.app.kinds import Switch
from dcm_ws.app.options import BY_NAME
from dcm_ws.app.reading import Value
from dcm_ws.app.rows import Row
from dcm_ws.app.setting_names import nearest_setting
from dcm_ws.app.settings import SettingsError
from dcm_ws.http.jwks import is_url

FILE_NAME = "dcm-ws.toml"


def find(given: str | None) -> Path | None:
    """
    The file to read: the one given, else the one in the working folder, else the one in the user's config folder.
    Folders that cannot be read are skipped.

    @raise SettingsError: the path given is in a folder that does not exist.
    """
    if given is not None:
        return given_path("--config", given)
    for folder in (Path(), user_folder(platformdirs.user_config_path)):
        with suppress(OSError):
            if folder is not None and (folder / FILE_NAME).is_file():
                return (folder / FILE_NAME).absolute()
    return None


def read(file: Path, *, given: bool) -> tuple[dict[str, Value], list[str]]:
    """
    The settings in a file, by the names of their options, and warnings.

    @param given: the file was named by its user; a file that was only found must not be writable by others.
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
    found = {name: _value(file, _row(file, name, value), value) for name, value in table.items()}
    # one setting that has two names
    if found.pop("production", False) and found.setdefault("dcm-env", "production") != "production":
        raise SettingsError(f"{file}: production and dcm-env contradict each other")
    return found, warnings


def _row(file: Path, name: str, value: object) -> Row:
    row = BY_NAME.get(name)
    if row is not None:
        return row
    if isinstance(value, dict):
        raise SettingsError(
            f"{file}: there is no setting {name!r}, and there are no tables:"
            f" write the settings of [{name}] at the top of the file, without [{name}]"
        )
    near = nearest_setting(name, BY_NAME)
    hint = f"did you mean {near!r}?" if near else "dcm-ws serve --help lists the settings"
    raise SettingsError(f"{file}: there is no setting {name!r}; {hint}")


def _value(file: Path, row: Row, value: object) -> Value:
    shown = "what it is" if row.secret else repr(value)
    if row.is_flag:
        if not isinstance(value, bool):
            raise SettingsError(f"{file}: {row.name} must be true or false, not {shown}")
        return value
    if row.repeatable:
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
            raise SettingsError(f"{file}: {row.name} must be a list of strings, not {shown}")
        return list(values)
    if isinstance(value, bool) and isinstance(row.kind, Switch) and row.kind.on == "on":
        return "on" if value else "off"
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise SettingsError(f"{file}: {row.name} must be a string or a number, not {shown}")
    if row.kind.is_path and value and not is_url(str(value)):
        # relative to the file, wherever the service is started
        return str(file.parent / path_of(f"{file}: {row.name}", str(value)))
    return str(value)
