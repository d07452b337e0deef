"""
The settings that C{dcm-ws check} shows: their values, with secrets masked, and where each comes from.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from psycopg2.extensions import make_dsn, parse_dsn

from dcm_ws.app.options import BY_NAME, DATABASE_PARTS
from dcm_ws.app.reading import is_production
from dcm_ws.app.rows import Row
from dcm_ws.app.settings import Settings, SettingsError, check_database
from dcm_ws.app.sources import Sources
from dcm_ws.cli.check_report import ShownSetting
from dcm_ws.cli.terminal import harmless


def shown_settings(sources: Sources, settings: Settings | None) -> list[ShownSetting]:
    """
    The settings that are given, and then those that have a default value.

    @param settings: what the sources come to; None if a value is invalid.
    """
    rows = []
    production = False
    with suppress(SettingsError):  # which is a finding of its own
        production = is_production(sources.given)
    for name, origin in sources.origins.items():
        value: Any = sources.given.get(name)
        if name in ("dcm-env", "production") and production:
            # one setting with two names
            origin, value = sources.origins["dcm-env"], True if name == "production" else "production"
        shown = _value(BY_NAME[name], value, settings)
        # the defaults of DB_HOST and the others only count if one of them is given
        unused = name in DATABASE_PARTS and origin == "default"
        if shown and not unused:
            rows.append(ShownSetting(name, masked(name, shown), origin))
    return sorted(rows, key=lambda row: (row.origin == "default", row.name))


def _value(row: Row, given: Any, settings: Settings | None) -> str:
    """
    The value of a setting as it was given, or else its default; empty if there is none.
    """
    if row.is_flag:
        return "on" if given else "off"
    if given:
        return ", ".join(given) if isinstance(given, list) else str(given)
    # the default is another setting, or belongs to an address that nothing was given of
    if row.otherwise or row.libpq:
        return ""
    known = settings is not None and row.field and not row.secret
    value = getattr(settings, row.field) if known else row.default
    return "" if value in (None, ()) else row.kind.written(value)


def masked(name: str, value: str) -> str:
    """
    The value, with asterisks in place of what is secret in it.
    """
    if not BY_NAME[name].secret:
        return harmless(value)
    if name == "database-url":
        try:
            check_database(value)
            parts = parse_dsn(value)
        except SettingsError:
            return "***"
        return harmless(make_dsn(**{key: "***" if "password" in key else part for key, part in parts.items()}))
    return "***"
