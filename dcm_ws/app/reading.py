"""
From the texts that were given to L{Settings}: one field may be given by several options together.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dcm_ws.app.files import path_of
from dcm_ws.app.options import BY_NAME, DATABASE_PARTS, TABLE, tcp_endpoint
from dcm_ws.app.settings import Settings, SettingsError, check_database, read
from dcm_ws.postgres import dsn

Value = str | bool | list[str]
"""
What was given: a text, a list of texts if the option may be repeated, or on or off.
"""

Given = Mapping[str, Value]
"""
What was given, by the names of options; without what was not given.
"""


def settings_of(given: Given) -> Settings:
    """
    Settings, with defaults for what was not given.

    @raise SettingsError: a value is invalid.
    """
    combined = _combined(given)
    own = {
        row.field: _value(given, row.name)
        for row in TABLE
        if row.field and row.name in given and row.field not in combined
    }
    return Settings(**combined, **own)


def is_production(given: Given) -> bool:
    """
    The mode, as in the settings.

    @raise SettingsError: there is no such mode.
    """
    return _value(given, "dcm-env") == "production" or bool(given.get("production"))


def secrets_of(given: Given) -> tuple[str, ...]:
    """
    The secrets, as in the settings: a file with one per line, a list, or a single one.

    @raise SettingsError: they cannot be read.
    """
    if given.get("ws-auth-secret-file"):
        name = "ws-auth-secret-file"
        found = [line.strip() for line in _content(given, name).splitlines()]
    elif given.get("ws-auth-secrets"):
        name = "ws-auth-secrets"
        found = _text(given, name).replace(",", " ").split()
    else:
        return (_text(given, "ws-auth-secret"),)
    secrets = tuple(secret for secret in found if secret)
    if not secrets:
        raise SettingsError(f"{BY_NAME[name].label} contains no secret")
    return secrets


def database_of(given: Given) -> str | None:
    """
    The database, as in the settings: C{database-url}, or else what the C{db-} settings say; None if there are none.

    @raise SettingsError: a value is invalid.
    """
    url = _text(given, "database-url").strip() or _database_of_parts(given)
    if url is not None:
        check_database(url)
    return url


def data_folder_of(given: Given) -> Path | None:
    """
    The folder for the embedded PostgreSQL, as in the settings; None for the default.

    @raise SettingsError: the path leads to the home folder of an unknown account.
    """
    return _path(given, "dcm-data-dir")


def database_parts(given: Given) -> dict[str, str]:
    """
    What the C{db-} settings say, by libpq's names; without those that are empty or blank.
    """
    parts = {part: str(given.get(name, "")) for name, part in DATABASE_PARTS.items()}
    return {part: value if part == "password" else value.strip() for part, value in parts.items() if value.strip()}


def _combined(given: Given) -> dict[str, Any]:
    """
    The fields that several options give together.
    """
    production, database = is_production(given), database_of(given)
    secret, *more_secrets = secrets_of(given)
    return {
        "listen": _value(given, "listen") if given.get("listen") else (_port_and_host(given),),
        "secret": secret,
        "more_secrets": tuple(more_secrets),
        "production": production,
        "database": database,
        "embedded": database is None and not production and not given.get("no-database"),
        "data_folder": data_folder_of(given),
        # it would be of no use to a service that is alone
        "cluster": bool(given.get("cluster") or given.get("nats")),
        "nats_ca": _path(given, "nats-ca"),
        "nats_creds": _path(given, "nats-creds"),
        "nats_nkey": _path(given, "nats-nkey"),
    }


def _port_and_host(given: Given) -> str:
    return tcp_endpoint(_value(given, "ws-port"), _text(given, "host"))


def _value(given: Given, name: str) -> Any:
    """
    What was given for an option, as a value; its default if nothing was.
    """
    row, value = BY_NAME[name], given.get(name)
    if value is None:
        return row.default
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, bool):
        return row.kind.read("") if value else row.default
    return read(row, value)


def _path(given: Given, name: str) -> Path | None:
    return path_of(BY_NAME[name].label, _text(given, name)) if given.get(name) else None


def _text(given: Given, name: str) -> str:
    return str(given.get(name, BY_NAME[name].default or ""))


def _content(given: Given, name: str) -> str:
    """
    The content of the file that was given.
    """
    file, label = _text(given, name), BY_NAME[name].label
    path = path_of(label, file)
    try:
        return path.read_text()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingsError(f"{label}: cannot read {file!r}: {reason}") from None


def _database_of_parts(given: Given) -> str | None:
    parts = database_parts(given)
    file = "db-password-file"
    if _text(given, file).strip():
        parts["password"] = _content(given, file).strip("\r\n")
    if not parts:
        return None
    if "port" in parts:
        parts["port"] = str(read(BY_NAME["db-port"], parts["port"]))
    try:
        return dsn.made_of(parts)
    except dsn.DSNError as error:
        raise SettingsError(f"{BY_NAME['db-host'].label}: {error}") from None
