"""
The settings that C{dcm-ws check} shows: their values, with secrets masked, and where each comes from.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from psycopg2.extensions import make_dsn, parse_dsn

from dcm_ws.app.settings import (
    DEFAULT_HOST,
    DEFAULT_PORT,
    DEFAULT_SECRET,
    Settings,
    SettingsError,
    check_database,
    is_production,
)
from dcm_ws.app.sources import FLAGS, SECRET, VARIABLES, Sources
from dcm_ws.cli.check_report import ShownSetting
from dcm_ws.cli.terminal import harmless

_DEFAULTS = {
    "ws-port": DEFAULT_PORT,
    "host": DEFAULT_HOST,
    "ws-auth-secret": DEFAULT_SECRET,
    "dcm-env": "development",
}


def shown_settings(sources: Sources, settings: Settings | None) -> list[ShownSetting]:
    """
    The settings that are given, and then those that have a default value.

    @param settings: what the sources come to; None if a value is invalid.
    """
    rows = []
    production = False
    with suppress(SettingsError):  # which is a finding of its own
        production = is_production(sources.options, sources.environment)
    for name, origin in sources.origins.items():
        value: Any = sources.options.get(name)
        if name in VARIABLES and value is None:
            value = sources.environment.get(name.upper().replace("-", "_")) or None
        if name in ("dcm-env", "production") and production:
            # one setting with two names
            origin, value = sources.origins["dcm-env"], True if name == "production" else "production"
        if value is None:
            value = _DEFAULTS.get(name)
        if value is None and settings is not None and name not in SECRET:
            value = getattr(settings, name.replace("-", "_"), None)
        if value in (None, [], ()):
            continue
        if isinstance(value, bool) or name in FLAGS:
            value = "on" if value else "off"
        shown = ", ".join(value) if isinstance(value, list | tuple) else str(value)
        rows.append(ShownSetting(name, masked(name, shown), origin))
    return sorted(rows, key=lambda row: (row.origin == "default", row.name))


def masked(name: str, value: str) -> str:
    """
    The value, with asterisks in place of what is secret in it.
    """
    if name not in SECRET:
        return harmless(value)
    if name == "database-url":
        try:
            check_database(value)
            parts = parse_dsn(value)
        except SettingsError:
            return "***"
        return harmless(make_dsn(**{key: "***" if "password" in key else part for key, part in parts.items()}))
    return "***"
